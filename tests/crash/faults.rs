//! A disk that fails: chosen operations of the real binary end in ENOSPC or EIO while clients go
//! on.
//!
//! While they fail, every request is answered, no failure of the server is answered other than by
//! 503 or 507 in the promised form, and what was acknowledged can be read; only after a write of
//! sled's file failed may a read be answered 503. Room that comes back is used without a restart.
//! After a sync that failed for another reason than missing room, the daemon says that it is not
//! ready and takes no writes. After a restart everything acknowledged is there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    clients::Client,
    daemon::{Daemon, Fault, Recorder, START_PATIENCE},
    dice::Dice,
    ledger::{Action, Content, Ledger, Target, word},
    session::{Report, is_rebuild, scratch, verify},
    wire::{Answer, Wire},
};

/// `FAIL_…` of the recorder.
const WRITE: u32 = 1;
const SYNC: u32 = 2;
const NAME: u32 = 4;
const CREATE: u32 = 8;
const RESIZE: u32 = 16;
/// From `errno.h`.
pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

/// With a journal this small, few commits wait for the index to be written.
const SETTINGS: &[(&str, &str)] = &[("STREAMLINED_JOURNAL_BYTES", "32KiB")];

const STEPS_BEFORE: usize = 40;
/// Steps from the first operation on that fails.
const STEPS_DURING: usize = 50;
/// How long it may take until an operation fails.
const FAULT_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take until room that came back is used.
const RECOVERY: Duration = Duration::from_secs(3);

/// The filter of operations on sled's files.
const OF_INDEX: &str = "meta/";

/// The kinds of failure: what it is, the operations, the error, and the filter of their paths.
/// Blocks for sled's file are allocated ahead of its writes, so no file system answers such a write
/// with ENOSPC.
pub const KINDS: &[(&str, u32, i32, &str)] = &[
    ("no room for a write", WRITE, ENOSPC, "!meta/"),
    ("a write fails", WRITE, EIO, "!meta/"),
    ("a write of the index fails", WRITE, EIO, OF_INDEX),
    ("no room in a sync", SYNC, ENOSPC, "!meta/"),
    ("a sync of the journal fails", SYNC, EIO, "journal/"),
    ("a sync of content fails", SYNC, EIO, "blobs/"),
    ("no room for a name", NAME | CREATE, ENOSPC, ""),
    ("a rename or link fails", NAME, EIO, ""),
    ("no room anywhere", WRITE | NAME | CREATE | RESIZE | SYNC, ENOSPC, "!meta/"),
];

/// A daemon on a new directory whose disk can be made to fail. Callers destructure it: the locals
/// are then dropped in reverse order, the daemon before its directory.
struct Recorded {
    dir: TempDir,
    recorder: Recorder,
    daemon: Daemon,
}

/// The data directory, and where the daemon's log goes.
fn places(dir: &TempDir) -> (PathBuf, PathBuf) {
    (dir.path().join("data"), dir.path().join("stderr"))
}

impl Recorded {
    fn start(settings: &[(&str, &str)]) -> Self {
        let dir = scratch();
        let (data, stderr) = places(&dir);
        std::fs::create_dir(&data).unwrap();
        let recorder = Recorder::new(dir.path(), 1);
        let daemon = Daemon::start(&data, &stderr, settings, Some(&recorder));
        let daemon = daemon.unwrap_or_else(|said| panic!("{said}"));
        settle(&daemon, &data);
        Self { dir, recorder, daemon }
    }
}

/// Waits until a new store has written to its journal what it writes by itself: no fault is meant
/// for that.
fn settle(daemon: &Daemon, data: &Path) {
    let collected = Command::new(env!("CARGO_BIN_EXE_streamlined"))
        .args(["gc", "--data-dir"])
        .arg(data)
        .env_clear()
        .output()
        .unwrap();
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    let mut wire = Wire::service(&daemon.address);
    let mut last_read = || wire.get("/readyz").unwrap().json()["scrub"]["last_completed"].clone();
    let began = Instant::now();
    while last_read() == Value::Null {
        assert!(began.elapsed() < START_PATIENCE, "the first scrub does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs one case and answers what was wrong.
pub fn case(fault: &Fault, seed: u64) -> Report {
    let Recorded { dir, recorder, mut daemon } = Recorded::start(SETTINGS);
    let mut client = Client::new(&daemon, Ledger::default(), seed, 0);
    for _ in 0..STEPS_BEFORE {
        assert!(client.step(&recorder), "seed {seed}: not answered without a fault");
    }
    let mut wrong = Vec::new();
    let mut dice = Dice::new(seed);
    recorder.arm(fault);
    let (armed, mut left) = (Instant::now(), STEPS_DURING);
    while left > 0 {
        if recorder.counted().1 > 0 {
            left -= 1;
        } else {
            assert!(armed.elapsed() < FAULT_PATIENCE, "seed {seed}: no operation fails: {fault:?}");
        }
        client.step(&recorder);
        wrong.extend(client.events.last().and_then(|event| {
            let (_, status, told) = event.answered.as_ref()?;
            let told = told.as_str().unwrap_or_default();
            let promised = *status < 500 || matches!(status, 503 | 507) && told.contains("code");
            (!promised).then(|| format!("{} was answered {status}: {told}", name(&event.action)))
        }));
        if client.events.last().is_some_and(|event| event.answered.is_none()) {
            let action = client.events.last().map(|event| name(&event.action));
            wrong.push(format!("{} is never answered", action.unwrap_or_default()));
            break;
        }
        // sled reads nothing from the disk any more once a write of it has failed.
        let may_be = |said: &String| fault.filter == OF_INDEX && said.contains("503");
        let said = unreadable(&daemon, client.ledger(), &mut dice);
        wrong.extend(said.filter(|said| !may_be(said)));
    }
    recorder.disarm();
    wrong.extend(after(fault, &daemon));
    if !daemon.is_running() {
        wrong.push("the daemon has ended".to_owned());
    }
    wrong.extend(daemon.panics());
    recorder.stop();
    let said = daemon.said();
    drop(daemon);
    let mut report = verify(dir.path(), client.ledger(), false, seed);
    if fault.filter == OF_INDEX {
        // When the daemon learned of it, the index may lack writes and is made anew.
        report.rebuilds = report.rebuilds.saturating_sub(1);
        report.failures.retain(|line| !is_rebuild(line));
    }
    if !wrong.is_empty() {
        report.losses = 1;
        wrong.sort();
        wrong.dedup();
        wrong.push(said.lines().take(3).collect::<Vec<_>>().join("\n    "));
        report.failures.extend(wrong);
    }
    report
}

/// Lets a sync below a directory fail. Answers the status and code of one write, and what `/readyz`
/// then says of the stores.
pub fn stores_after_a_failed_sync(below: &'static str) -> (String, Value) {
    let Recorded { dir: _dir, recorder, daemon } = Recorded::start(&[]);
    recorder.arm(&Fault { kinds: SYNC, error: EIO, skip: 0, times: -1, filter: below });
    let (_, said) = put(&daemon, 3_000);
    let ready = Wire::service(&daemon.address).get("/readyz").unwrap();
    assert_eq!(ready.status, 503);
    (said, ready.json()["stores"].clone())
}

/// Asks for two tokens while the expiry of the first cannot be noted. Answers the statuses of the
/// first token, of `/readyz` and of the second token, and after each token whether an expiry is
/// noted.
pub fn tokens_beside_keys_that_fail(error: i32) -> ([u16; 3], [bool; 2]) {
    let Recorded { dir, recorder, daemon } = Recorded::start(&[]);
    let schedule = places(&dir).0.join("keys/schedule.json");
    let noted = || !std::fs::read_to_string(&schedule).unwrap().contains("\"last_expiry\": 0");
    recorder.arm(&Fault { kinds: SYNC, error, skip: 0, times: 1, filter: "keys/" });
    let mut wire = Wire::service(&daemon.address);
    let token = Action::Token { user: "eve".into() };
    let mut ask = || super::clients::send(&mut wire, &Ledger::default(), &token).unwrap().status;
    let (first, noted_first) = (ask(), noted());
    let ready = Wire::service(&daemon.address).get("/readyz").unwrap().status;
    ([first, ready, ask()], [noted_first, noted()])
}

/// The status of a write when the first `times` syncs of the journal find no room, and the number
/// of files after a kill and a restart. One file was there before.
pub fn refused_by_the_journal_and_killed(times: i64) -> (u16, Value) {
    let Recorded { dir, recorder, daemon } = Recorded::start(&[]);
    assert_eq!(put(&daemon, 3_000).0, 201);
    recorder.arm(&Fault { kinds: SYNC, error: ENOSPC, skip: 0, times, filter: "journal/" });
    let (status, _) = put(&daemon, 3_000);
    assert_eq!(files(&daemon), 1, "what was refused is seen");
    recorder.stop();
    drop(daemon);
    let (data, stderr) = places(&dir);
    let daemon = Daemon::start(&data, &stderr, &[], None).unwrap_or_else(|said| panic!("{said}"));
    (status, files(&daemon))
}

fn files(daemon: &Daemon) -> Value {
    let list = Wire::service(&daemon.address).get("/v1/files/all?user_id=eve").unwrap();
    list.json()["total_count"].clone()
}

fn name(action: &Action) -> String {
    let text = format!("{action:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The status and the code of an answer, which are the same for every refusal of a kind.
fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.json()["code"])
}

/// Reads one acknowledged file back and says so if that fails.
fn unreadable(daemon: &Daemon, ledger: &Ledger, dice: &mut Dice) -> Option<String> {
    let files: Vec<_> = ledger.files.iter().collect();
    let (key, file) = dice.pick(&files)?;
    let doubted = |doubt: &Action| matches!(doubt, Action::Delete { key: own } if own == *key);
    if ledger.doubts.iter().any(doubted) {
        return None;
    }
    let answer = Wire::service(&daemon.address).get(&format!("/v1/files/content/{key}"));
    let same = answer.as_ref().is_ok_and(|answer| {
        blake3::hash(&answer.body).to_hex().as_str() == word(&file.answer, "blake3")
    });
    (!same).then(|| format!("cannot be read: {:?}", answer.map(|answer| said(&answer))))
}

/// Stores a file and answers the status, and the status with the code as text.
fn put(daemon: &Daemon, size: usize) -> (u16, String) {
    let content = Content { seed: 1, size };
    let target = Target { user: "eve".into(), folder: String::new(), name: "later".into() };
    let action = Action::Put { target, content };
    let mut wire = Wire::service(&daemon.address);
    let answer = super::clients::send(&mut wire, &Ledger::default(), &action);
    answer.map_or_else(|error| (0, error.to_string()), |a| (a.status, said(&a)))
}

/// Checks what has to hold when the fault is over, and answers what does not.
fn after(fault: &Fault, daemon: &Daemon) -> Vec<String> {
    if fault.error == ENOSPC {
        let began = Instant::now();
        let mut wrong = Vec::new();
        for size in [3_000, 100_000] {
            let mut answer = put(daemon, size);
            while answer.0 != 201 && began.elapsed() < RECOVERY {
                std::thread::sleep(Duration::from_millis(100));
                answer = put(daemon, size);
            }
            if answer.0 != 201 {
                wrong.push(format!("room is back, but {size} bytes: {}", answer.1));
            }
        }
        return wrong;
    }
    let mut wrong = Vec::new();
    if fault.kinds & SYNC != 0 {
        let (status, text) = put(daemon, 3_000);
        if status != 503 {
            wrong.push(format!("after a failed sync a write is answered {text}"));
        }
        match Wire::service(&daemon.address).get("/readyz") {
            Ok(answer) if answer.status == 503 => {}
            ready => wrong.push(format!("after a failed sync /readyz is {ready:?}")),
        }
    }
    wrong
}
