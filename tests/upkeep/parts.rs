//! Large parts of one upload in every order, side by side, sent again, given up and over restarts:
//! what was acknowledged of each number last is what is there, and what the whole is made of.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use streamlined::{
    app::incoming::Incoming,
    blob::Address,
    meta::memory::MemoryMetadata,
    model::{
        id::{PartNumber, UploadId},
        range::Slice,
    },
};
use tokio::runtime::Runtime;

use crate::world::{World, complete, content, init, read, store, user};

/// Several buffers long, and the last one shorter.
const SIZES: [usize; 5] = [400_000, 400_000, 400_000, 400_000, 300_000];

#[derive(Clone, Debug)]
enum Step {
    /// A part by its place, of which the length is said or not.
    Begin(usize, bool),
    /// One of those that were begun, by its turn.
    Feed(usize),
    End(usize),
    GiveUp(usize),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let begin = (0..SIZES.len(), any::<bool>()).prop_map(|(place, said)| Step::Begin(place, said));
    let step = prop_oneof![
        8 => begin,
        12 => (0..9_usize).prop_map(Step::Feed),
        6 => (0..9_usize).prop_map(Step::End),
        2 => (0..9_usize).prop_map(Step::GiveUp),
        1 => Just(Step::Restart),
    ];
    vec(step, 0..40)
}

/// A part on its way.
struct Begun {
    place: usize,
    incoming: Incoming,
    whole: Bytes,
    left: Bytes,
}

struct Client {
    world: World,
    meta: Arc<MemoryMetadata>,
    id: UploadId,
    /// The number of the first part.
    first: usize,
    begun: Vec<Begun>,
    /// What was acknowledged, by its place.
    stored: BTreeMap<usize, Bytes>,
    seed: u64,
}

impl Client {
    async fn new(dir: &Path, first: usize) -> Self {
        let meta = Arc::new(MemoryMetadata::default());
        let world = World::new(dir, meta.clone(), Arc::new(store(dir))).await;
        let id = init(&world.app, SIZES.iter().sum::<usize>() as u64).await;
        Self { world, meta, id, first, begun: Vec::new(), stored: BTreeMap::new(), seed: 0 }
    }

    fn number(&self, place: usize) -> PartNumber {
        PartNumber(u32::try_from(self.first + place).unwrap())
    }

    async fn take(&mut self, dir: &Path, step: &Step) {
        match *step {
            Step::Begin(place, is_said) => {
                self.seed += 1;
                let whole = content(self.seed, SIZES[place]);
                let said = is_said.then_some(whole.len() as u64);
                let (app, number) = (&self.world.app, self.number(place));
                let incoming = app.begin_part_of(self.id, number, said).await.unwrap();
                self.begun.push(Begun { place, incoming, left: whole.clone(), whole });
            }
            Step::Feed(turn) => {
                if let Some(begun) = self.begun.get_mut(turn) {
                    let next = begun.left.split_to(90_000.min(begun.left.len()));
                    begun.incoming.write(next).await.unwrap();
                }
            }
            Step::End(turn) if turn < self.begun.len() => {
                let mut begun = self.begun.swap_remove(turn);
                begun.incoming.write(begun.left).await.unwrap();
                let (app, number) = (&self.world.app, self.number(begun.place));
                app.finish_part(&user(), self.id, number, begun.incoming, None).await.unwrap();
                self.stored.insert(begun.place, begun.whole);
            }
            Step::GiveUp(turn) if turn < self.begun.len() => drop(self.begun.swap_remove(turn)),
            Step::End(_) | Step::GiveUp(_) => {}
            Step::Restart => {
                self.begun.clear();
                self.world = World::new(dir, self.meta.clone(), Arc::new(store(dir))).await;
            }
        }
    }

    /// Reads every part that was acknowledged.
    async fn check(&self) {
        let app = &self.world.app;
        for part in app.meta.parts(self.id).await.unwrap() {
            let (size, blake3) = (part.size, part.blake3);
            let address = Address { blake3, size, locator: part.place };
            let mut reader = app.blobs.open(&address, Slice::whole(size)).await.unwrap();
            let mut found = Vec::new();
            while let Some(bytes) = reader.next().await.unwrap() {
                found.extend_from_slice(&bytes);
            }
            let place = part.number.0 as usize - self.first;
            assert!(found == self.stored[&place], "part {place}");
        }
        assert_eq!(app.meta.parts(self.id).await.unwrap().len(), self.stored.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn acknowledged_parts_stay_in_whatever_order(steps in steps(), first in 0..2_usize) {
        let dir = tempfile::tempdir().unwrap();
        Runtime::new().unwrap().block_on(async {
            let mut client = Client::new(dir.path(), first).await;
            for step in &steps {
                client.take(dir.path(), step).await;
                if !matches!(step, Step::Begin(..)) {
                    client.check().await;
                }
            }
            for place in 0..SIZES.len() {
                if !client.stored.contains_key(&place) {
                    client.take(dir.path(), &Step::Begin(place, true)).await;
                    client.take(dir.path(), &Step::End(client.begun.len() - 1)).await;
                }
            }
            // Those that are still on their way keep nobody from the end.
            let file = complete(&client.world.app, client.id).await.unwrap();
            let whole = client.stored.values().flatten().copied().collect::<Vec<_>>();
            assert!(read(&client.world.app, &file).await.unwrap() == whole);
        });
    }
}
