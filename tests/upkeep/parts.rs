//! Large parts of one upload in every order, side by side, sent again, given up and over restarts:
//! what was acknowledged of each number last is what is there, and what the whole is made of.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use streamlined::{
    app::incoming::Incoming,
    blob::{Address, BlobStore},
    meta::{Metadata, memory::MemoryMetadata},
    model::{
        id::{PartNumber, UploadId},
        range::Slice,
    },
};
use tokio::runtime::Runtime;

use crate::world::{World, complete, content, init, read, store, user};

/// Several buffers long, and the last one shorter.
const SIZES: [usize; 4] = [400_000, 400_000, 400_000, 300_000];

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

/// The first part is there, or comes behind the second one, which does not know its place then.
const BEGINS: [&[Step]; 3] = [
    &[],
    &[Step::Begin(0, true), Step::End(0)],
    &[Step::Begin(1, true), Step::Feed(0), Step::Begin(0, true), Step::Feed(0)],
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let is_said = prop::bool::weighted(0.9);
    let step = prop_oneof![
        9 => (0..SIZES.len(), is_said).prop_map(|(place, said)| Step::Begin(place, said)),
        12 => (0..99_usize).prop_map(Step::Feed),
        5 => (0..99_usize).prop_map(Step::End),
        2 => (0..99_usize).prop_map(Step::GiveUp),
        1 => Just(Step::Restart),
    ];
    vec(step, 10..40)
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
    meta: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
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
        let meta: Arc<dyn Metadata> = Arc::new(MemoryMetadata::default());
        let blobs: Arc<dyn BlobStore> = Arc::new(store(dir));
        let world = World::new(dir, Arc::clone(&meta), Arc::clone(&blobs)).await;
        let id = init(&world.app, SIZES.iter().sum::<usize>() as u64).await;
        let (begun, stored) = (Vec::new(), BTreeMap::new());
        Self { world, meta, blobs, id, first, begun, stored, seed: 0 }
    }

    fn number(&self, place: usize) -> PartNumber {
        PartNumber(u32::try_from(self.first + place).unwrap())
    }

    async fn take(&mut self, dir: &Path, step: &Step) {
        let turn = |turn: usize| turn.checked_rem(self.begun.len());
        match *step {
            Step::Begin(place, is_said) => {
                self.seed += 1;
                let whole = content(self.seed, SIZES[place]);
                let said = is_said.then_some(whole.len() as u64);
                let (app, number) = (&self.world.app, self.number(place));
                let incoming = app.begin_part_of(self.id, number, said).await.unwrap();
                self.begun.push(Begun { place, incoming, left: whole.clone(), whole });
            }
            Step::Feed(which) => {
                let Some(at) = turn(which) else { return };
                let begun = &mut self.begun[at];
                let next = begun.left.split_to(150_000.min(begun.left.len()));
                begun.incoming.write(next).await.unwrap();
            }
            Step::End(which) => {
                let Some(at) = turn(which) else { return };
                let mut begun = self.begun.swap_remove(at);
                begun.incoming.write(begun.left).await.unwrap();
                let (app, number) = (&self.world.app, self.number(begun.place));
                app.finish_part(&user(), self.id, number, begun.incoming, None).await.unwrap();
                self.stored.insert(begun.place, begun.whole);
            }
            Step::GiveUp(which) => {
                let Some(at) = turn(which) else { return };
                self.begun.swap_remove(at);
            }
            Step::Restart => {
                self.begun.clear();
                self.blobs = Arc::new(store(dir));
                let (meta, blobs) = (Arc::clone(&self.meta), Arc::clone(&self.blobs));
                self.world = World::new(dir, meta, blobs).await;
            }
        }
    }

    /// Reads every part that was acknowledged.
    async fn check(&self) {
        for part in self.meta.parts(self.id).await.unwrap() {
            let (size, blake3) = (part.size, part.blake3);
            let address = Address { blake3, size, locator: part.place };
            let mut reader = self.blobs.open(&address, Slice::whole(size)).await.unwrap();
            let mut found = Vec::new();
            while let Some(bytes) = reader.next().await.unwrap() {
                found.extend_from_slice(&bytes);
            }
            let place = part.number.0 as usize - self.first;
            assert!(found == self.stored[&place], "part {place}");
        }
        assert_eq!(self.meta.parts(self.id).await.unwrap().len(), self.stored.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn acknowledged_parts_stay_in_whatever_order(
        steps in steps(),
        first in 0..2_usize,
        begin in 0..BEGINS.len(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        Runtime::new().unwrap().block_on(async {
            let mut client = Client::new(dir.path(), first).await;
            for step in BEGINS[begin].iter().chain(&steps) {
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
