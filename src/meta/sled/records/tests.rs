use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use proptest::prelude::*;

use super::*;
use crate::meta::sled::runs::tests::{
    Commit, Model, commit, damage, empty, key, pairs, read, writes,
};

#[derive(Clone, Debug)]
enum Step {
    Commit(Commit),
    BeginSettling,
    EndSettling,
}

fn step() -> impl Strategy<Value = Step> {
    let settling = prop::sample::select(vec![Step::BeginSettling, Step::EndSettling]);
    prop_oneof![3 => commit().prop_map(Step::Commit), 2 => settling]
}

/// The records, the model that they must equal, and the layer that is being settled.
struct World {
    records: Records,
    model: Model,
    id: JournalId,
    settling: Option<Arc<Layer>>,
}

impl World {
    fn new() -> Self {
        let (records, model) = (Records::new(empty(), 0), Model::new());
        Self { records, model, id: JournalId::new(), settling: None }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Commit(commit) => self.records.push(writes(&mut self.model, commit), 1, 1),
            Step::BeginSettling if self.settling.is_none() => {
                self.settling = self.records.close_layer().unwrap();
            }
            Step::BeginSettling => {}
            Step::EndSettling => {
                if let Some(layer) = self.settling.take() {
                    self.records.take_into_sled(&layer, self.id).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is settled and whatever waits, the records are one ordered map.
    #[test]
    fn records_are_a_map(
        steps in prop::collection::vec(step(), 1..12),
        asked in key(),
        limit in 1_usize..100,
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            prop_assert_eq!(read(world.records.iter()), pairs(world.model.iter()));
        }
        let World { records, model, .. } = world;
        let stored = records.read(&asked).unwrap().map(|value| value.to_vec());
        prop_assert_eq!(stored.as_ref(), model.get(&asked));
        prop_assert_eq!(records.contains_key(&asked).unwrap(), model.contains_key(&asked));
        prop_assert_eq!(read(records.range(&asked)), pairs(model.range(asked.clone()..)));
        let table = &asked[..1];
        let in_table = || model.iter().filter(|(key, _)| key.starts_with(table));
        prop_assert_eq!(read(records.scan_prefix(table)), pairs(in_table()));
        let page = records.page(table, Some(&asked), limit).unwrap();
        let behind = in_table().filter(|(key, _)| **key > asked).take(limit);
        prop_assert_eq!(read(page.into_iter().map(Ok)), pairs(behind));
    }

    /// A reader sees every record that is there all the time, once and in order, whatever else is
    /// written and settled.
    #[test]
    fn a_reader_misses_nothing_beside_writes(
        first in prop::collection::vec(step(), 10),
        later in prop::collection::vec(step(), 10),
    ) {
        let mut world = World::new();
        let stays = |key: &[u8]| key.last().is_some_and(|byte| byte % 4 == 0);
        for step in &first {
            world.take(step);
        }
        let there = pairs(world.model.iter().filter(|(key, _)| stays(key)));
        let mut later = later.into_iter();
        let (mut seen, mut last) = (Vec::new(), Vec::new());
        for (at, entry) in world.records.iter().enumerate() {
            let (key, value) = entry.unwrap();
            prop_assert!(key > last);
            last.clone_from(&key);
            if stays(&key) {
                seen.push((key, value.to_vec()));
            }
            if at % 5 == 0 && let Some(mut step) = later.next() {
                if let Step::Commit(commit) = &mut step {
                    commit.retain(|(key, _)| !stays(key));
                }
                world.take(&step);
            }
        }
        prop_assert_eq!(seen, there);
    }

    /// If a kill leaves only some runs of a layer in sled, the replay of its commits completes it.
    #[test]
    fn half_a_layer_is_replayed(
        before in prop::collection::vec(commit(), 0..5),
        commits in prop::collection::vec(commit(), 1..8),
        taken in 0_usize..400,
    ) {
        let (runs, mut model) = (empty(), Model::new());
        for commit in &before {
            runs.apply(&writes(&mut model, commit), b"").unwrap();
        }
        let commits: Vec<Writes> = commits.iter().map(|one| writes(&mut model, one)).collect();
        let mut layer = Writes::new();
        for commit in &commits {
            layer.extend(commit.clone());
        }
        runs.apply(&layer.into_iter().take(taken).collect(), b"").unwrap();
        for commit in &commits {
            runs.apply(commit, b"").unwrap();
        }
        prop_assert_eq!(read(Records::new(runs, 0).iter()), pairs(model.iter()));
    }
}

/// A pushed record is found while it is being settled: it is always in its layer or in sled.
#[test]
fn a_reader_misses_nothing_that_is_being_settled() {
    let (records, id) = (Records::new(empty(), 0), JournalId::new());
    let (pushed, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    let key = |n: u32| [b"f", &n.to_be_bytes()[..]].concat();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let last = pushed.load(Ordering::Acquire);
                if last > 0 {
                    let found = records.range(&key(last)).next().unwrap().unwrap();
                    assert_eq!(found.0, key(last));
                    assert!(records.read(&key(last)).unwrap().is_some());
                }
            }
        });
        for n in 1..3_000 {
            records.push(Writes::from([(key(n), Some(IVec::from(b"v")))]), 1, u64::from(n));
            pushed.store(n, Ordering::Release);
            records.settle(id).unwrap();
        }
        is_over.store(true, Ordering::Release);
    });
    assert_eq!(records.iter().count(), 2_999);
}

/// What cannot be settled stays readable, and nothing is settled over it.
#[test]
fn what_fails_to_settle_is_still_there() {
    let runs = empty();
    let (records, id) = (Records::new(runs.clone(), 0), JournalId::new());
    let write = |key: &[u8]| Writes::from([(key.to_vec(), Some(IVec::from(b"v")))]);
    damage(&runs, b"l");
    records.push(write(b"kept"), 1, 1);
    assert!(records.settle(id).is_err());
    records.push(write(b"later"), 1, 2);
    assert!(records.settle(id).is_err());
    assert_eq!(records.waiting().writes, 2);
    for key in [&b"kept"[..], b"later"] {
        assert!(records.read(key).unwrap().is_some());
    }
}
