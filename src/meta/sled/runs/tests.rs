use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::meta::sled::records::Records;

pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn empty() -> Runs {
    let db = sled::Config::new().temporary(true).open().unwrap();
    db.insert(index::PROBE, &[]).unwrap();
    Runs::new(&db)
}

/// Stores bytes that are not a run.
pub fn damage(runs: &Runs, bound: &[u8]) {
    runs.0.insert(bound, b"\xff").unwrap();
}

/// Keys of tables with all three kinds of growth, many with a common prefix. One key is only the
/// name of its table.
pub fn key() -> impl Strategy<Value = Vec<u8>> {
    let table = prop::sample::select(&b"ilk"[..]);
    let near = (0_u8..3, any::<u8>(), 0_u8..4).prop_map(|(a, b, c)| vec![a, b, c]);
    prop_oneof![
        9 => (table, near).prop_map(|(table, near)| [&[table][..], &near].concat()),
        1 => Just(b"n".to_vec()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![20 => 0_usize..60, 2 => 60_usize..700, 1 => 1000_usize..5000];
    (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length])
}

/// Keys and what is written to them.
pub type Commit = Vec<(Vec<u8>, Option<Vec<u8>>)>;

pub fn commit() -> impl Strategy<Value = Commit> {
    let write = (key(), prop_oneof![3 => value().prop_map(Some), 2 => Just(None)]);
    prop::collection::vec(write, 1..150)
}

/// Applies a commit to the model, and returns the writes that the index takes.
pub fn writes(model: &mut Model, commit: &[(Vec<u8>, Option<Vec<u8>>)]) -> Writes {
    let mut writes = Writes::new();
    for (key, value) in commit {
        writes.insert(key.clone(), value.as_deref().map(IVec::from));
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
    writes
}

pub fn read(entries: impl Iterator<Item = Result<Entry>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries.map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
}

pub fn pairs<'a>(
    model: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn all(runs: &Runs) -> impl Iterator<Item = Result<Entry>> {
    Records::new(runs.clone(), 0).iter()
}

/// Bytes of each run, in order.
fn sizes(runs: &Runs) -> Vec<usize> {
    runs.0.range(index::FIRST_TABLE..).map(|run| run.unwrap().1.len()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is split and joined, the runs are one ordered map.
    #[test]
    fn runs_are_a_map(commits in prop::collection::vec(commit(), 1..12), asked in key()) {
        let (runs, mut model) = (empty(), Model::new());
        for commit in &commits {
            runs.apply(&writes(&mut model, commit), b"").unwrap();
            prop_assert_eq!(read(all(&runs)), pairs(model.iter()));
        }
        let stored = runs.get(&asked).unwrap().map(|value| value.to_vec());
        prop_assert_eq!(stored.as_ref(), model.get(&asked));
        let longest = model.values().map(Vec::len).max().unwrap_or(0);
        prop_assert!(sizes(&runs).iter().all(|size| (1..2048 + longest).contains(size)));
        // Loading the same records gives the same map.
        let loaded = empty();
        let mut loader = loaded.loader();
        for (key, value) in &model {
            loader.push(key, value).unwrap();
        }
        loader.finish().unwrap();
        prop_assert_eq!(read(all(&loaded)), pairs(model.iter()));
    }

    /// Damage is an error, never a panic.
    #[test]
    fn any_bytes_are_a_run_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut entries = Reader::new(&bytes);
        while let Ok(Some(value)) = entries.next() {
            prop_assert!(value.end <= bytes.len());
        }
        let _ = run::find(&bytes, b"f");
    }
}

fn fill(runs: &Runs, keys: impl Iterator<Item = Vec<u8>>) {
    for key in keys {
        let writes = Writes::from([(key, Some(IVec::from(&[0; 20])))]);
        runs.apply(&writes, b"").unwrap();
    }
}

/// Runs of a table that grows at one end are full; those of other tables are two thirds full.
#[test]
fn runs_fill_as_their_table_grows() {
    let count = 4000_u32;
    let key = |table: u8, n: u32| [&[table][..], &n.to_be_bytes()].concat();
    let scattered = |n: u32| n.wrapping_mul(2_654_435_761);
    let at_the_end = (0..count).map(|n| key(b'i', n));
    let at_the_begin = (0..count).map(|n| key(b'l', count - n));
    let anywhere = (0..count).map(|n| key(b'k', scattered(n)));
    let mean_bytes = |keys: &mut dyn Iterator<Item = Vec<u8>>| {
        let runs = empty();
        fill(&runs, keys);
        let sizes = sizes(&runs);
        sizes.iter().sum::<usize>() / sizes.len()
    };
    assert!(mean_bytes(&mut { at_the_end }) > 1000);
    assert!(mean_bytes(&mut { at_the_begin }) > 1000);
    assert!(mean_bytes(&mut { anywhere }) > 512 * 6 / 10);
}

/// When most records are removed, so are most runs.
#[test]
fn runs_that_empty_are_joined() {
    let runs = empty();
    let keys: Vec<Vec<u8>> = (0..4000_u32).map(|n| [b"k", &n.to_be_bytes()[..]].concat()).collect();
    fill(&runs, keys.iter().cloned());
    let before = sizes(&runs).len();
    for (_, key) in keys.iter().enumerate().filter(|(n, _)| n % 50 != 0) {
        runs.apply(&Writes::from([(key.clone(), None)]), b"").unwrap();
    }
    assert_eq!(all(&runs).count(), 80);
    let after = sizes(&runs).len();
    assert!(after * 12 < before, "{after} of {before}");
    for key in keys.iter().step_by(50) {
        runs.apply(&Writes::from([(key.clone(), None)]), b"").unwrap();
    }
    assert!(sizes(&runs).is_empty());
}

/// Records are loaded in order or not at all, also where a run ends.
#[test]
fn what_is_not_in_order_is_not_loaded() {
    let runs = empty();
    let mut loader = runs.loader();
    loader.push(b"k2", &[0; 2000]).unwrap();
    loader.push(b"k3", &[0; 2000]).unwrap();
    loader.push(b"k4", b"").unwrap();
    for key in [b"k4", b"k1", b"i9"] {
        assert!(loader.push(key, b"").is_err());
    }
}

/// A run under a bound that is not its own is neither scanned nor written to.
#[test]
fn a_run_out_of_its_place_is_damage() {
    let runs = empty();
    fill(&runs, (0..200_u32).map(|n| [b"k", &n.to_be_bytes()[..]].concat()));
    let first = runs.0.range(index::FIRST_TABLE..).next().unwrap().unwrap();
    let second = runs.0.get_gt(&first.0).unwrap().unwrap();
    runs.0.insert(&first.0, second.1).unwrap();
    assert!(all(&runs).any(|entry| matches!(entry, Err(Error::Corrupt(_)))));
    let write = Writes::from([(b"k\0".to_vec(), None)]);
    assert!(matches!(runs.apply(&write, b""), Err(Error::Corrupt(_))));
}
