//! What the index costs as it grows. Measured at each size: a page, a lookup, totals and a commit;
//! memory and disk for each file; the time of a clean close; the memory of a process that only
//! opened and read the index; the time of the next open after that close, with what it reads, and
//! of the next open after a kill that came upon a tenth more files; and the time to rebuild the
//! index from the journal.
//!
//! `cargo bench --bench index_scale -- 1000 100000 1000000`. `DIR` names a directory to measure on.
//! `USERS` is the number of users among whom the files are shared out in turns (10: of a thousand
//! files each has a page of 100).

mod photos;

use std::{
    env, fs,
    io::{self, Write as _},
    ops::Range,
    path::Path,
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use rustix::process::{Signal, getpid, kill_process};
use streamlined::{
    meta::{Metadata, NewFile, sled::SledMetadata},
    model::{
        key::FileKey,
        name::{Folder, UserId},
        time::UnixMillis,
    },
};
use tokio::runtime::Runtime;

const STEP_FILES: usize = 500;
const SAMPLES: u64 = 300;
const CACHE_BYTES: u64 = 32 << 20;
/// Tells a process which files to store before it kills itself.
const TO_BE_KILLED: &str = "INDEX_SCALE_KILLED";
/// Tells a process to open the index, look some files up and print how much memory that takes.
const TO_BE_OPENED: &str = "INDEX_SCALE_OPENED";

static USERS: LazyLock<u64> =
    LazyLock::new(|| env::var("USERS").map_or(10, |users| users.parse().unwrap()));

fn user(n: u64) -> UserId {
    UserId::parse(&format!("user{}@example.com", n % *USERS)).unwrap()
}

fn key(n: u64) -> FileKey {
    photos::key(&user(n), n)
}

fn new_file(n: u64) -> NewFile {
    photos::new_file(user(n), n)
}

fn open(dir: &Path) -> SledMetadata {
    SledMetadata::open(dir, CACHE_BYTES, 64 << 20).unwrap()
}

fn store(runtime: &Runtime, index: &SledMetadata, files: Range<u64>) {
    for first in files.clone().step_by(STEP_FILES) {
        let step = (first..files.end).take(STEP_FILES).map(new_file).collect();
        runtime.block_on(index.record_files(step, UnixMillis(0), u64::MAX)).unwrap();
    }
}

/// Stores files in a process of its own, which is killed then.
fn store_and_die(dir: &Path, files: &Range<u64>) {
    let mut child = Command::new(env::current_exe().unwrap());
    let files = format!("{} {}", files.start, files.end);
    child.arg(dir).env(TO_BE_KILLED, files);
    assert_eq!(child.status().unwrap().code(), None, "it was not killed");
}

fn to_be_killed(files: &str) {
    let dir = env::args().nth(1).unwrap();
    let (first, end) = files.split_once(' ').unwrap();
    let files = first.parse().unwrap()..end.parse().unwrap();
    let index = open(dir.as_ref());
    store(&Runtime::new().unwrap(), &index, files);
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// Resident memory of a process that only opened and read the index.
fn resident_when_opened(dir: &Path, files: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.arg(dir).env(TO_BE_OPENED, files.to_string()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn to_be_opened(files: &str) {
    let files: u64 = files.parse().unwrap();
    let empty = resident_bytes();
    let index = open(env::args().nth(1).unwrap().as_ref());
    let runtime = Runtime::new().unwrap();
    for n in 0..100_000_u64 {
        let key = key(n.wrapping_mul(2_654_435_761) % files);
        assert!(runtime.block_on(index.file(&key)).unwrap().is_some());
    }
    println!("{}", resident_bytes().saturating_sub(empty));
}

fn took<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let outcome = work();
    (outcome, began.elapsed())
}

fn median(mut sample: impl FnMut(u64)) -> Duration {
    let mut times: Vec<Duration> = (0..SAMPLES).map(|n| took(|| sample(n)).1).collect();
    times.sort();
    times[times.len() / 2]
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes that this process has read so far, cached or not.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("rchar:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("meta")).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn main() {
    if let Ok(files) = env::var(TO_BE_KILLED) {
        return to_be_killed(&files);
    }
    if let Ok(files) = env::var(TO_BE_OPENED) {
        return to_be_opened(&files);
    }
    let sizes: Vec<u64> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 100_000] } else { sizes };
    let base = env::var_os("DIR").unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let runtime = Runtime::new().unwrap();
    let mut index = open(dir.path());
    let empty = resident_bytes();
    let mut stored = 0;
    println!(
        "    files  page of 100   lookup   totals   commit   RSS/file  disk/file  load/s   close    open    \
         reads RSS/file  killed    anew"
    );
    for size in sizes {
        let ((), loading) = took(|| store(&runtime, &index, stored..size));
        let load = Duration::from_secs(1).as_nanos() * u128::from(size - stored)
            / loading.as_nanos().max(1);
        let spread = |n: u64| n.wrapping_mul(2_654_435_761) % size;
        let page = median(|n| {
            let (owner, folder) = (user(spread(n)), photos::folder());
            let list = runtime.block_on(index.list_files(&owner, &folder, None, 100));
            assert!(!list.unwrap().is_empty());
        });
        let lookup = median(|n| {
            assert!(runtime.block_on(index.file(&key(spread(n)))).unwrap().is_some());
        });
        let totals = median(|n| {
            runtime.block_on(index.totals(&user(spread(n)), &Folder::default())).unwrap();
        });
        let commit = median(|n| {
            let new = vec![new_file(size + n)];
            runtime.block_on(index.record_files(new, UnixMillis(0), u64::MAX)).unwrap();
        });
        stored = size + SAMPLES;
        let memory = resident_bytes().saturating_sub(empty) / stored;
        let disk = disk_bytes(dir.path()) / stored;
        print!(
            "{size:>9} {page:>12.1?} {lookup:>8.1?} {totals:>8.1?} {commit:>8.1?} {memory:>10} \
             {disk:>10} {load:>7}"
        );
        io::stdout().flush().unwrap();
        let ((), closing) = took(|| drop(index));
        let before = read_bytes();
        let (reopened, clean) = took(|| open(dir.path()));
        let read = (read_bytes() - before) >> 20;
        drop(reopened);
        let opened = resident_when_opened(dir.path(), size) / stored;
        print!(" {closing:>7.2?} {clean:>7.2?} {read:>5}MiB {opened:>8}");
        io::stdout().flush().unwrap();
        let more = stored..stored + size / 10;
        store_and_die(dir.path(), &more);
        stored = more.end;
        let (reopened, killed) = took(|| open(dir.path()));
        drop(reopened);
        let (missing, anew) = took(|| SledMetadata::rebuild(dir.path(), CACHE_BYTES).unwrap());
        assert_eq!(missing, None);
        fs::remove_dir_all(dir.path().join("meta.damaged-1")).unwrap();
        index = open(dir.path());
        let last = runtime.block_on(index.file(&key(stored - 1)));
        assert!(last.unwrap().is_some(), "what was stored before the kill is lost");
        println!(" {killed:>7.2?} {anew:>7.2?}");
    }
}
