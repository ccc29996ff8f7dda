//! Power cuts, played back against the real binary.
//!
//! A daemon works for clients under `recorder.c`, which records every operation on its data
//! directory. For many points of that recording, the directory is rebuilt as a disk could hold it
//! if the power had failed there (`disk`). A daemon is started on it, and everything that the
//! clients had been told by then has to hold (`ledger`, `check`).
//!
//! For thousands of cuts: `CRASH_CUTS=3000 CRASH_SEED=1 cargo nextest run --test crash
//! --run-ignored all power_cuts_long --no-capture`.

mod check;
mod clients;
mod daemon;
mod dice;
mod disk;
mod faults;
mod kill;
mod ledger;
mod pages;
mod recording;
mod session;
mod wire;

use std::{env, fs, os::unix::fs::FileTypeExt, path::Path, time::Duration};

use daemon::Fault;
use dice::Dice;
use disk::Mutation;
use ledger::Ledger;
use recording::SyncCall;
use serde_json::json;
use session::{Plan, Report, Session, scratch, verify};

/// Cuts in the run that every test run makes.
const CUTS: usize = 40;
/// Cuts in one call of `generations` in a long run.
const CUTS_OF_A_RECORDING: usize = 120;
/// Each mutation must be noticed within this many cuts.
const MUTATION_CUTS: usize = 60;

/// Syncs whose loss the harness must notice.
const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "sled's sync is not overridden",
        prefixes: &["meta/"],
        calls: &[SyncCall::Fdatasync],
    },
    Mutation {
        name: "the journal is not synced",
        prefixes: &["journal/"],
        calls: &[SyncCall::Fdatasync],
    },
    Mutation {
        name: "blobs and parts are not synced",
        prefixes: &["blobs/", "staging/"],
        calls: &[SyncCall::Fdatasync],
    },
    Mutation {
        name: "nothing is synced",
        prefixes: &[""],
        calls: &[SyncCall::Fsync, SyncCall::Fdatasync],
    },
];

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let seed = seed();
    let report = generations(seed, CUTS);
    report.prove(&format!("seed {seed}"));
}

#[test]
#[ignore = "long: see the module"]
fn power_cuts_long() {
    let cuts = number("CRASH_CUTS").unwrap_or(1_000);
    let mut dice = Dice::new(seed());
    let mut report = Report::default();
    while report.cuts < usize::try_from(cuts).unwrap() && report.failures.is_empty() {
        let seed = dice.number();
        report.add(generations(seed, CUTS_OF_A_RECORDING));
        println!("{} cuts, {} losses", report.cuts, report.losses + report.failed_starts);
    }
    report.prove("long run");
}

#[test]
fn the_harness_notices_lost_syncs() {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let dir = empty();
    let session = Session::record(dir.path(), Ledger::default(), plan(&mut dice, true, false));
    for mutation in MUTATIONS {
        let report = session.examine(&session.cuts(MUTATION_CUTS, &mut dice), Some(mutation));
        println!("{}: noticed at cut {}", mutation.name, report.cuts);
        assert!(!report.failures.is_empty(), "seed {seed}: not noticed: {}", mutation.name);
    }
}

/// For more deaths: `CRASH_KILLS=8 cargo nextest run --test crash a_death_at --no-capture`.
#[test]
fn a_death_at_any_step_loses_nothing() {
    let rounds = number("CRASH_KILLS").unwrap_or(2);
    let (deaths, report) = kill::deaths(seed(), usize::try_from(rounds).unwrap());
    println!("{deaths} deaths");
    report.prove("killed");
}

/// Makes each kind of failure at a seeded operation: of that operation alone, and of it and all
/// that follow. For more operations: `CRASH_FAULTS=3 cargo nextest run --test crash a_failing_disk
/// --no-capture`.
#[test]
fn a_failing_disk_halves_nothing() {
    let mut dice = Dice::new(seed());
    let mut report = Report::default();
    for _ in 0..number("CRASH_FAULTS").unwrap_or(1) {
        for (what, kinds, error, filter) in faults::KINDS {
            for times in [1, -1] {
                let skip = i64::try_from(dice.below(60)).unwrap();
                let fault = Fault { kinds: *kinds, error: *error, skip, times, filter };
                let seed = dice.number();
                let mut one = faults::case(&fault, seed);
                if !one.failures.is_empty() {
                    let found = one.failures.join("\n  ");
                    let fault = format!("{what} (skip {skip}, times {times}, seed {seed})");
                    println!("{fault}:\n  {found}");
                    one.failures = vec![format!("{fault}: {}", one.failures[0])];
                }
                report.add(one);
            }
        }
    }
    report.prove("a failing disk");
}

#[test]
fn a_failed_sync_names_the_store_that_stopped() {
    for (below, stores) in [
        ("journal/", json!({"index": "read_only", "blobs": "ok"})),
        ("blobs/", json!({"index": "ok", "blobs": "read_only"})),
    ] {
        let said = "503 \"unavailable\"".to_owned();
        assert_eq!(faults::stores_after_a_failed_sync(below), (said, stores), "{below}");
    }
}

/// Clients that only read need tokens, too, so a token is given even if its expiry cannot be noted.
/// It is noted with the next token.
#[test]
fn a_token_that_cannot_be_noted_is_given_and_noted_with_the_next_one() {
    for error in [faults::EIO, faults::ENOSPC] {
        let (statuses, noted) = faults::tokens_beside_keys_that_fail(error);
        assert_eq!((statuses, noted), ([200, 200, 200], [false, true]), "{error}");
    }
}

/// 507 promises that nothing was stored; 503 leaves open whether it was.
#[test]
fn a_commit_that_found_no_room_does_not_come_back() {
    assert_eq!(faults::refused_by_the_journal_and_killed(1), (507, 1.into()));
    assert_eq!(faults::refused_by_the_journal_and_killed(2).0, 503);
}

/// The command that a failure prints runs this: it starts a daemon on a copy of the kept directory
/// and checks it again.
#[test]
#[ignore = "needs CRASH_CASE"]
fn replay_a_case() {
    let case = env::var("CRASH_CASE").expect("CRASH_CASE names a kept directory");
    let books = fs::read(Path::new(&case).join("books")).unwrap();
    let (ledger, expiring, seed): (Ledger, bool, u64) = serde_json::from_slice(&books).unwrap();
    let dir = scratch();
    copy(&Path::new(&case).join("data"), &dir.path().join("data"));
    verify(dir.path(), &ledger, expiring, seed).prove(&case);
}

/// Makes and examines three recordings. The first begins in an empty directory. The other two begin
/// in what a power cut left of the one before, so that cuts also fall into a recovery, and while
/// they are made the index is saved and logs are removed. During the third, sweeps run all the
/// time, too.
fn generations(seed: u64, cuts: usize) -> Report {
    let mut dice = Dice::new(seed);
    let mut report = Report::default();
    let mut dir = empty();
    let mut ledger = Ledger::default();
    for generation in 0..3 {
        let session =
            Session::record(dir.path(), ledger, plan(&mut dice, generation > 0, generation == 2));
        let count = if generation == 0 { cuts / 2 } else { cuts / 4 };
        let found = session.examine(&session.cuts(count, &mut dice), None);
        println!(
            "generation {generation}: {} requests ({} concatenations), {} cuts, {} losses",
            session.requests(),
            session.concatenations(),
            found.cuts,
            found.losses + found.failed_starts,
        );
        report.add(found);
        if !report.failures.is_empty() {
            break;
        }
        let half = dice.below(2);
        let (at, seed) = session.cuts(8, &mut dice)[5 + half];
        dir = tempfile::tempdir().unwrap();
        ledger = session.cut(at, seed, dir.path());
    }
    report
}

fn plan(dice: &mut Dice, saving: bool, expiring: bool) -> Plan {
    let millis = if expiring { 2_500 } else { 1_500 };
    Plan { seed: dice.number(), time: Duration::from_millis(millis), saving, expiring }
}

/// A directory with an empty data directory. It is on a disk, not in memory, so that syncs take
/// their time.
fn empty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_socket() {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The seed of this run: `CRASH_SEED`, else always the same.
fn seed() -> u64 {
    number("CRASH_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}
