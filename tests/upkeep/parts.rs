//! Large parts of one upload in any order, side by side, sent again, also in other sizes, given up,
//! continued, refused, cut, and across restarts. For each number, the part that was acknowledged
//! last is the one that is stored and that the whole is made of.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{future::try_join_all, stream};
use proptest::{collection::vec, prelude::*};
use streamlined::{
    app::{
        Error,
        append::{Arrival, Claim, Ends, Piece},
        checksum::{Checksum, Digest},
        incoming::Incoming,
    },
    blob::{Address, BlobStore, memory::MemoryBlobs},
    meta::{Metadata, memory::MemoryMetadata, sled::SledMetadata},
    model::{
        digest::Sha256,
        id::{PartNumber, UploadId},
        limits::{PART_NUMBER_MAX, PARTIALS_MAX},
        range::Slice,
        upload::{Mode, Part, tail},
    },
    sys::clock::Clock,
};
use tokio::runtime::Runtime;

use crate::world::{TTL, World, complete, content, init_as, init_of, part, read, store, user};

/// Each part is several buffers long, and the last one is shorter.
const SIZES: [usize; 4] = [400_000, 400_000, 400_000, 300_000];
/// Sizes of parts that are sent instead: small enough to be packed, small enough to be continued as
/// the last part, and larger.
const OTHER_SIZES: [usize; 6] = [10, 70_000, 80_000, 90_000, 95_000, 200_000];
/// The size of an upload that is never whole.
const HUGE: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// Begins a part by its place, with its length announced or not.
    Begin(usize, bool),
    /// Continues one of the parts that were begun, by its turn.
    Feed(usize),
    End(usize),
    GiveUp(usize),
    Restart,
    /// Sends a whole part of another size, by its place.
    Put(usize, usize),
    /// Appends so many bytes behind the last part.
    Append(usize, Fate),
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    /// The bytes do not match their digest.
    Refused,
    /// The client disconnects after the bytes.
    Cut,
}

/// How a run begins: with nothing, with the first part stored, or with the second part begun before
/// the first, when its place is not known yet.
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

fn steps_in_other_sizes() -> impl Strategy<Value = Vec<Step>> {
    let size = || prop::sample::select(&OTHER_SIZES[..]);
    let fate = prop_oneof![Just(Fate::Kept), Just(Fate::Refused), Just(Fate::Cut)];
    let step = prop_oneof![
        2 => (0..3_usize, any::<bool>()).prop_map(|(place, said)| Step::Begin(place, said)),
        3 => (0..99_usize).prop_map(Step::Feed),
        2 => (0..99_usize).prop_map(Step::End),
        3 => (0..99_usize).prop_map(Step::GiveUp),
        1 => Just(Step::Restart),
        8 => (0..3_usize, size()).prop_map(|(place, size)| Step::Put(place, size)),
        8 => (size(), fate).prop_map(|(size, fate)| Step::Append(size, fate)),
    ];
    // All parts are there from the start: behind a gap nothing can be appended.
    let first = [size(), size(), size()].prop_map(|sizes| {
        sizes.into_iter().enumerate().map(|(place, size)| Step::Put(place, size)).collect()
    });
    (first, vec(step, 10..30)).prop_map(|(first, rest): (Vec<_>, Vec<_>)| [first, rest].concat())
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
    async fn new(dir: &Path, first: usize, mode: Mode, size: u64) -> Self {
        let meta: Arc<dyn Metadata> = Arc::new(MemoryMetadata::default());
        let blobs: Arc<dyn BlobStore> = Arc::new(store(dir));
        let world = World::new(dir, Arc::clone(&meta), Arc::clone(&blobs)).await;
        let id = init_as(&world.app, mode, size).await;
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
            Step::Put(place, size) => {
                self.seed += 1;
                let whole = content(self.seed, size);
                let (app, number) = (&self.world.app, self.number(place));
                let said = Some(size as u64);
                let mut incoming = app.begin_part_of(self.id, number, said).await.unwrap();
                incoming.write(whole.clone()).await.unwrap();
                app.finish_part(&user(), self.id, number, incoming, None).await.unwrap();
                self.stored.insert(place, whole);
            }
            Step::Append(size, fate) => {
                self.seed += 1;
                self.append(&content(self.seed, size), fate).await;
            }
        }
    }

    async fn append(&mut self, bytes: &Bytes, fate: Fate) {
        let app = &self.world.app;
        let before = self.meta.parts(self.id).await.unwrap();
        let tail = tail(&before);
        let pieces = bytes.chunks(60_000).map(Bytes::copy_from_slice);
        let mut arrivals: Vec<_> = pieces.map(|piece| Ok(Arrival::Bytes(piece))).collect();
        if matches!(fate, Fate::Cut) {
            arrivals.push(Err(Error::BodyAborted));
        }
        let wrong = Digest::of_sha256(Sha256([0; 32]));
        let piece = Piece {
            claim: Claim {
                offset: tail.offset,
                size: None,
                announced: Some(bytes.len() as u64),
                ends: Ends::Itself,
                whole: None,
            },
            checksum: matches!(fate, Fate::Refused).then(|| Checksum::new(wrong)),
            content: stream::iter(arrivals),
        };
        let appended = app.append(&user(), self.id, piece).await.map(drop);
        if !tail.missing.is_empty() {
            assert!(matches!(appended, Err(Error::PartsMissing(_))), "{appended:?}");
            return;
        }
        match fate {
            Fate::Kept => appended.unwrap(),
            Fate::Cut => assert!(matches!(appended, Err(Error::BodyAborted)), "{appended:?}"),
            Fate::Refused => {
                assert!(matches!(appended, Err(Error::ChecksumDiffers)), "{appended:?}");
                assert_eq!(self.meta.parts(self.id).await.unwrap(), before);
                return;
            }
        }
        let after = self.meta.parts(self.id).await.unwrap();
        let place = after.last().unwrap().number.0 as usize - self.first;
        let known =
            if after.len() == before.len() { self.stored[&place].clone() } else { "".into() };
        self.stored.insert(place, [known, bytes.clone()].concat().into());
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
            let size = SIZES.iter().sum::<usize>() as u64;
            let mut client = Client::new(dir.path(), first, Mode::Chunked, size).await;
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
            // Parts that are still on their way do not hold up the completion.
            let file = complete(&client.world.app, client.id).await.unwrap();
            let whole = client.stored.values().flatten().copied().collect::<Vec<_>>();
            assert!(read(&client.world.app, &file).await.unwrap() == whole);
        });
    }
    #[test]
    fn acknowledged_parts_stay_in_whatever_size(
        steps in steps_in_other_sizes(),
        first in 0..2_usize,
        is_growing in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        Runtime::new().unwrap().block_on(async {
            let (mode, size) = if is_growing { (Mode::Growing, 0) } else { (Mode::Chunked, HUGE) };
            let mut client = Client::new(dir.path(), first, mode, size).await;
            for step in &steps {
                client.take(dir.path(), step).await;
                if !matches!(step, Step::Begin(..) | Step::Feed(_)) {
                    client.check().await;
                }
            }
            let last = client.stored.keys().last().copied().unwrap_or(0);
            for place in 0..=last {
                if !client.stored.contains_key(&place) {
                    client.take(dir.path(), &Step::Put(place, 70_000)).await;
                }
            }
            client.check().await;
            if is_growing {
                let file = complete(&client.world.app, client.id).await.unwrap();
                let whole = client.stored.values().flatten().copied().collect::<Vec<_>>();
                assert!(read(&client.world.app, &file).await.unwrap() == whole);
            }
        });
    }
}

/// Three parts, of which the second was sent again with another size. The third, which is small
/// enough to grow, no longer lies where it belongs.
async fn with_a_last_part_elsewhere(client: &mut Client, dir: &Path) {
    for step in [(0, 95_000), (1, 95_000), (2, 95_000), (1, 10)] {
        client.take(dir, &Step::Put(step.0, step.1)).await;
    }
}

#[tokio::test]
async fn a_last_part_that_lies_elsewhere_is_not_written_over() {
    for fate in [Fate::Refused, Fate::Cut, Fate::Kept] {
        let dir = tempfile::tempdir().unwrap();
        let mut client = Client::new(dir.path(), 1, Mode::Growing, 0).await;
        with_a_last_part_elsewhere(&mut client, dir.path()).await;
        client.take(dir.path(), &Step::Append(300_000, fate)).await;
        client.check().await;
    }
}

#[tokio::test]
async fn a_final_upload_is_made_of_a_thousand_others_and_of_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Arc::new(MemoryMetadata::default());
    let world = World::new(dir.path(), meta, Arc::new(MemoryBlobs::default())).await;
    let app = &world.app;
    let concatenated = async |count: usize| {
        let mut partials = Vec::new();
        for _ in 0..count {
            partials.push(init_as(app, Mode::Partial, 1).await);
        }
        app.concatenate(&user(), init_of(Mode::Final, 0), partials).await.map(|it| it.offset)
    };
    for count in [0, PARTIALS_MAX + 1] {
        let refused = concatenated(count).await;
        let is_told = matches!(refused, Err(Error::Invalid { code: "invalid_upload_concat", .. }));
        assert!(is_told, "{count}: {refused:?}");
    }
    assert!(matches!(concatenated(PARTIALS_MAX).await, Ok(0)));
}

/// An append that would need a number past the last one is refused, and changes no part.
#[tokio::test]
async fn behind_the_last_part_that_there_may_be_nothing_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    // sled, because the reference engine copies all its records for each of the many steps here.
    let meta = Arc::new(SledMetadata::open(dir.path(), 16 << 20, 64 << 20).unwrap());
    let world = World::new(dir.path(), meta.clone(), Arc::new(MemoryBlobs::default())).await;
    let (app, id) = (&world.app, init_as(&world.app, Mode::Chunked, HUGE).await);
    // The content of all parts but the last ones does not matter here.
    part(app, id, 1, &content(1, 1)).await.unwrap();
    let first = meta.parts(id).await.unwrap().remove(0);
    let later = world.clock.now().after(TTL);
    let numbers: Vec<_> = (2..PART_NUMBER_MAX - 1).map(PartNumber).collect();
    for numbers in numbers.chunks(1_000) {
        let next = |number: &PartNumber| Part { number: *number, ..first.clone() };
        let record = |number| meta.record_part(id, next(number), None, later, u64::MAX);
        try_join_all(numbers.iter().map(record)).await.unwrap();
    }
    part(app, id, PART_NUMBER_MAX - 1, &content(2, 1)).await.unwrap();
    let append = async |size: usize| {
        let bytes = content(0, size);
        let claim = Claim {
            offset: tail(&meta.parts(id).await.unwrap()).offset,
            size: None,
            announced: Some(size as u64),
            ends: Ends::Itself,
            whole: None,
        };
        let arrivals = stream::iter([Ok(Arrival::Bytes(bytes))]);
        app.append(&user(), id, Piece { claim, checksum: None, content: arrivals }).await
    };
    // A small last part grows, so the last part but one is filled first.
    for size in [200_000, 99_000, 200_000] {
        append(size).await.unwrap();
    }
    let before = meta.parts(id).await.unwrap();
    let sizes: Vec<_> = before[9_998..].iter().map(|part| part.size).collect();
    assert_eq!(sizes, [200_001, 299_000]);
    let refused = append(1).await.map(drop);
    assert!(matches!(refused, Err(Error::Invalid { code: "too_many_parts", .. })), "{refused:?}");
    assert_eq!(meta.parts(id).await.unwrap(), before);
}
