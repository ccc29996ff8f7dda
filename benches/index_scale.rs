//! What the index costs as it grows: a page, a lookup, totals and a commit at each size, memory and
//! disk for each file, and the time of the next open after a clean close.
//!
//! `cargo bench --bench index_scale -- 1000 100000 1000000`; `DIR` names a directory to measure on.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use streamlined::{
    meta::{Metadata, NewFile, sled::SledMetadata},
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::FileId,
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        time::UnixMillis,
    },
};
use tokio::runtime::Runtime;

const USERS: u64 = 100;
const STEP_FILES: u64 = 500;
const SAMPLES: u64 = 300;

fn user(n: u64) -> UserId {
    UserId::parse(&format!("user{}@example.com", n % USERS)).unwrap()
}

fn key(n: u64) -> FileKey {
    let salt = u32::try_from(n).unwrap();
    FileKey::compose(&user(n), &folder(), salt, &FileName::parse("photo.jpg").unwrap())
}

fn folder() -> Folder {
    Folder::parse("main/pictures").unwrap()
}

fn new_file(n: u64) -> NewFile {
    let hash = *blake3::hash(&n.to_le_bytes()).as_bytes();
    let file = FileRecord {
        id: FileId::new(
            UnixMillis(1_700_000_000_000 + n / 4096),
            u16::try_from(n & 0xfff).unwrap(),
            n,
        ),
        owner: user(n),
        folder: folder(),
        name: FileName::parse("photo.jpg").unwrap(),
        key: key(n),
        mime: "image/jpeg".into(),
        size: 4096,
        blake3: ContentHash(hash),
        sha256: Sha256(hash),
        meta: CallerMeta::default(),
    };
    NewFile { file, locator: Locator([1, 2, 3, 4, 5, 6].into()), upload: None }
}

fn open(dir: &Path) -> SledMetadata {
    SledMetadata::open(dir, 32 << 20, 64 << 20).unwrap()
}

fn median(mut sample: impl FnMut(u64)) -> Duration {
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|n| {
            let began = Instant::now();
            sample(n);
            began.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join("meta")).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn main() {
    let sizes: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 100_000] } else { sizes };
    let base = std::env::var_os("DIR").unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let runtime = Runtime::new().unwrap();
    let mut index = open(dir.path());
    let empty = resident_bytes();
    let mut stored = 0;
    println!(
        "    files  page of 100   lookup   totals   commit   RSS/file  disk/file  load/s  open"
    );
    for size in sizes {
        let (began, before) = (Instant::now(), stored);
        while stored < size {
            let files: Vec<NewFile> =
                (stored..(stored + STEP_FILES).min(size)).map(new_file).collect();
            stored += files.len() as u64;
            let record = index.record_files(files, UnixMillis(0), u64::MAX);
            runtime.block_on(record).unwrap();
        }
        let load = Duration::from_secs(1).as_nanos() * u128::from(stored - before)
            / began.elapsed().as_nanos().max(1);
        let spread = |n: u64| n.wrapping_mul(2_654_435_761) % size;
        let page = median(|n| {
            let (owner, folder) = (user(spread(n)), folder());
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
        stored += SAMPLES;
        let memory = resident_bytes().saturating_sub(empty) / stored;
        let disk = disk_bytes(dir.path()) / stored;
        drop(index);
        let began = Instant::now();
        index = open(dir.path());
        let reopened = began.elapsed();
        println!(
            "{size:>9} {page:>12.1?} {lookup:>8.1?} {totals:>8.1?} {commit:>8.1?} {memory:>10} \
             {disk:>10} {load:>7} {reopened:>5.2?}"
        );
    }
}
