//! `kill -9` between the steps of a protocol: at every named fault point of the program. A daemon
//! that does not come to its point is killed when the work is over.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    clients::work,
    daemon::{Daemon, Recorder},
    dice::Dice,
    ledger::Ledger,
    session::{Report, scratch, verify},
};
use std::time::Duration;

/// How long clients work. A point that is not reached by then is not on the way of this run.
const WORK: Duration = Duration::from_millis(1_500);
/// Further rounds for a point that was not reached, as on a slow machine.
const MORE_ROUNDS: usize = 15;
/// This point is reached by chance only: an open replays the journal if sled has not flushed by
/// itself before.
const BY_CHANCE: &str = "open: replayed";
/// With a journal this small the index is saved all the time, so that the points of a save are
/// reached.
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

/// Runs a daemon that dies when it comes to `point` for the `count`-th time, or is killed at the
/// end of the work. Then starts a daemon on what is left and checks it against what clients were
/// told. Answers whether the point was reached.
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
    // `work` asks a recorder for the length of its log. This daemon is not recorded, so the log
    // stays empty.
    let clock = Recorder::new(dir, 1);
    let (seed, stderr) = (dice.number(), dir.join("stderr"));
    let reached = match Daemon::start(&data, &stderr, &settings, None) {
        // The daemon died during its start. One that refused to start would never come to a point.
        Err(said) => {
            assert!(said.contains("SIGKILL"), "{point}: {said}");
            true
        }
        Ok(daemon) => {
            let clients = work(&daemon, &clock, ledger, seed, WORK);
            *ledger = ledger.at(&clients, u64::MAX);
            assert_eq!(daemon.panics(), [""; 0], "{point}");
            clients.iter().flatten().any(|event| event.answered.is_none())
        }
    };
    // The check changes the store, so it works on a copy. The next daemon starts on what the death
    // left.
    let checked = scratch();
    super::copy(&data, &checked.path().join("data"));
    (reached, verify(checked.path(), ledger, false, seed))
}

/// For each point, one directory and one daemon after another that dies on it. Answers how many
/// died at their point.
pub fn deaths(seed: u64, rounds: usize) -> (usize, Report) {
    let mut dice = Dice::new(seed);
    let (mut deaths, mut report, mut missed) = (0, Report::default(), Vec::new());
    // Points that only an operator's command comes to are tested in `it`.
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
