//! `kill -9` between any two steps of a protocol: at every named point of the program, and at no
//! matter what instant.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    clients::work,
    daemon::{Daemon, Recorder},
    dice::Dice,
    ledger::Ledger,
    session::{Report, scratch, verify},
};
use std::time::Duration;

/// Within so long a point is reached, or it is not on the way of this run.
const WORK: Duration = Duration::from_millis(1_500);
/// For a point that a slow machine did not come to.
const MORE_ROUNDS: usize = 15;
/// A replay, which there is when sled has not flushed by itself before.
const BY_CHANCE: &str = "open: replayed";
/// The index is saved all the time, so that its points are reached.
const SETTINGS: [(&str, &str); 3] = [
    ("STREAMLINED_JOURNAL_BYTES", "16KiB"),
    ("STREAMLINED_RECLAIM_GRACE", "1h"),
    ("STREAMLINED_UPLOAD_TTL", "24h"),
];

/// Every `fault::point("…")` in the program.
pub fn points() -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let named = text.split("fault::point(\"").skip(1);
            points.extend(named.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
        }
    }
    points
}

/// Dies at `point`, when it comes there for the `count`-th time, or at the end of the work; then
/// a daemon starts on what is left and is held to what clients were told. Answers whether the
/// point was reached.
pub fn die_at(
    dir: &Path,
    ledger: &mut Ledger,
    point: &str,
    count: usize,
    dice: &mut Dice,
) -> (bool, Report) {
    let data = dir.join("data");
    let fault = format!("{point} {count}");
    let mut settings = SETTINGS.to_vec();
    settings.push(("SLT_FAULT_POINT", &fault));
    // Only keeps the order of the books.
    let clock = Recorder::new(dir, 1);
    let (seed, stderr) = (dice.number(), dir.join("stderr"));
    let reached = match Daemon::start(&data, &stderr, &settings, None) {
        // It died on the way up; one that refuses to start would never come to any point.
        Err(said) => {
            assert!(said.contains("SIGKILL"), "{point}: {said}");
            true
        }
        Ok(daemon) => {
            let clients = work(&daemon, &clock, ledger, seed, WORK);
            *ledger = ledger.at(&clients, u64::MAX);
            clients.iter().flatten().any(|event| event.answered.is_none())
        }
    };
    // Checking goes on with uploads and more; the next daemon starts on what the death left.
    let checked = scratch();
    super::copy(&data, &checked.path().join("data"));
    (reached, verify(checked.path(), ledger, false, seed))
}

/// A directory that lives through everything, and one daemon after another that dies on it.
pub fn deaths(seed: u64, rounds: usize) -> (usize, Report) {
    let mut dice = Dice::new(seed);
    let (mut deaths, mut report, mut missed) = (0, Report::default(), Vec::new());
    // What only an operator's command comes to dies in `it`.
    for point in points().into_iter().filter(|point| !point.starts_with("operator: ")) {
        let dir = scratch();
        fs::create_dir(dir.path().join("data")).unwrap();
        let mut ledger = Ledger::default();
        let (mut reached, mut round) = (0, 0);
        while round < rounds || reached == 0 && round < rounds + MORE_ROUNDS {
            let few = round < 2 || round >= rounds;
            let count = if few { 1 } else { 1 + dice.below(1 << (2 * round).min(8)) };
            let (died, mut one) = die_at(dir.path(), &mut ledger, &point, count, &mut dice);
            reached += usize::from(died);
            for failure in &mut one.failures {
                *failure = format!("seed {seed}, {point} {count}, round {round}: {failure}");
            }
            report.add(one);
            round += 1;
        }
        println!("{point}: died there {reached} of {round} times");
        if reached == 0 && point != BY_CHANCE {
            missed.push(point);
        }
        deaths += reached;
    }
    assert!(missed.is_empty(), "seed {seed}: never reached: {missed:?}");
    (deaths, report)
}
