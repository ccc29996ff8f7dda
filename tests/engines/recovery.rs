//! A store that was lost, damaged or is behind its journal is rebuilt from the journal.

mod loss;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use streamlined::{
    meta::{Accounts, Error, Exported, Metadata, Upkeep, sled::SledMetadata},
    model::{name::UserId, time::UnixMillis},
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{accounts::token, flip};

/// Small enough that the index is saved as a snapshot after a few dozen commits.
const SAVE_BYTES: u64 = 4 << 10;
const NEVER: u64 = u64::MAX;

struct World {
    dir: tempfile::TempDir,
    runtime: Runtime,
}

fn user(n: u64) -> UserId {
    UserId::parse(&format!("user{n}")).unwrap()
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), runtime: Runtime::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn try_open(&self, save_bytes: u64) -> Result<SledMetadata, Error> {
        fs::create_dir_all(self.path("")).unwrap();
        SledMetadata::open(&self.path(""), 16 << 20, save_bytes)
    }

    fn open(&self, save_bytes: u64) -> SledMetadata {
        self.try_open(save_bytes).unwrap()
    }

    /// Adds these users, one commit each.
    fn add(&self, meta: &SledMetadata, users: std::ops::Range<u64>) {
        self.runtime.block_on(async {
            for n in users {
                meta.ensure_user(&user(n), UnixMillis(n)).await.unwrap();
            }
        });
    }

    /// A closed store with the first `count` users.
    fn with(count: u64, save_bytes: u64) -> Self {
        let world = Self::new();
        let meta = world.open(save_bytes);
        world.add(&meta, 0..count);
        drop(meta);
        world
    }

    /// Checks that the store has exactly the first `count` users and takes one more.
    fn check(&self, meta: &SledMetadata, count: u64) {
        self.runtime.block_on(async {
            for n in 0..count {
                let found = meta.user(&user(n)).await.unwrap();
                assert_eq!(found.map(|user| user.created), Some(UnixMillis(n)), "user {n}");
            }
            assert_eq!(meta.user(&user(count)).await.unwrap(), None);
        });
        self.add(meta, count..count + 1);
    }

    fn reopened(&self, count: u64) {
        self.check(&self.open(NEVER), count);
        // Once more, with the user that the first check added.
        self.check(&self.open(NEVER), count + 1);
    }

    fn logs(&self) -> Vec<PathBuf> {
        self.journal("log")
    }

    fn snapshots(&self) -> Vec<PathBuf> {
        self.journal("snapshot")
    }

    fn journal(&self, kind: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == kind))
            .collect();
        files.sort();
        files
    }

    /// The database of sled itself, to be used while the store is closed.
    fn sled(&self) -> sled::Db {
        sled::Config::new().path(self.path("meta")).segment_size(4 << 20).open().unwrap()
    }

    /// Copies the index as it is now, for [`World::put_index_back`].
    fn keep_index(&self) {
        copy(&self.path("meta"), &self.path("early"));
    }

    fn put_index_back(&self) {
        fs::remove_dir_all(self.path("meta")).unwrap();
        fs::rename(self.path("early"), self.path("meta")).unwrap();
    }

    fn set_aside(&self) -> bool {
        self.path("meta.damaged-1").exists()
    }
}

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(1000).unwrap();
}

/// Damages the commit that added user `n` in a log of the journal.
fn damage(log: &Path, n: u64) {
    let (bytes, name) = (fs::read(log).unwrap(), format!("user{n}"));
    flip(log, memchr::memmem::find(&bytes, name.as_bytes()).unwrap());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(path, target).map(drop).unwrap() }
    }
}

#[test]
fn what_sled_did_not_keep_is_replayed() {
    let world = World::new();
    let meta = world.open(NEVER);
    world.add(&meta, 0..3);
    // Combines sled as it is now with the journal as it is at the end.
    world.keep_index();
    world.add(&meta, 3..40);
    drop(meta);
    world.put_index_back();
    world.reopened(40);
    assert!(!world.set_aside());
}

#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    for save_bytes in [NEVER, SAVE_BYTES] {
        for harm in ["lost", "emptied", "scribbled", "cut", "foreign"] {
            let world = World::with(200, save_bytes);
            let meta = world.path("meta");
            match harm {
                "lost" => fs::remove_dir_all(&meta).unwrap(),
                "emptied" => {
                    fs::remove_dir_all(&meta).unwrap();
                    fs::create_dir(&meta).unwrap();
                }
                "scribbled" => {
                    fs::write(meta.join("conf"), b"nonsense").unwrap();
                    fs::write(meta.join("db"), vec![7; 100_000]).unwrap();
                }
                "cut" => fs::write(meta.join("conf"), b"").unwrap(),
                _ => {
                    let other = World::with(3, NEVER);
                    fs::remove_dir_all(&meta).unwrap();
                    copy(&other.path("meta"), &meta);
                }
            }
            world.reopened(200);
            assert!(harm != "foreign" || world.set_aside());
            // A missing or empty index is not set aside.
            assert!(!matches!(harm, "lost" | "emptied") || !world.set_aside(), "{harm}");
        }
    }
}

#[test]
fn an_index_that_fell_behind_the_journal_is_made_anew() {
    let world = World::new();
    let meta = world.open(SAVE_BYTES);
    world.add(&meta, 0..3);
    world.keep_index();
    world.add(&meta, 3..300);
    drop(meta);
    world.put_index_back();
    assert!(!world.path("journal/0000000000000000.log").exists(), "old logs are gone");
    world.reopened(300);
    assert!(world.set_aside());
}

#[test]
fn the_index_stands_in_for_a_lost_journal() {
    let world = World::with(50, NEVER);
    let meta = world.open(NEVER);
    let backup = tempfile::tempdir().unwrap();
    world.runtime.block_on(meta.export(backup.path())).unwrap();
    drop(meta);
    fs::remove_dir_all(world.path("journal")).unwrap();
    world.reopened(50);
    // The lost journal may have had commits that the index lacks and the backup has, so the backup
    // counts as that of another store.
    let exported = world.runtime.block_on(world.open(NEVER).exported(backup.path()));
    assert_eq!(exported, Ok(Some(Exported::Foreign)));
    fs::remove_dir_all(world.path("meta")).unwrap();
    world.reopened(52);
}

#[test]
fn a_damaged_journal_is_noticed_and_healed_from_the_index() {
    for harm in ["a byte", "cut short"] {
        let world = World::with(50, NEVER);
        let log = world.logs()[0].clone();
        match harm {
            "a byte" => damage(&log, 20),
            _ => cut(&log),
        }
        world.reopened(50);
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(52);
    }
}

#[test]
fn a_check_reads_the_journal_beside_the_index() {
    let harms = ["no log", "a commit", "cut short", "an old head", "no snapshot", "a snapshot"];
    for harm in harms {
        let save_bytes = if harm.contains("snapshot") { SAVE_BYTES } else { NEVER };
        let world = World::with(100, save_bytes);
        let meta = world.open(save_bytes);
        world.add(&meta, 100..200);
        let check = || world.runtime.block_on(meta.check()).unwrap();
        assert_eq!(check(), [""; 0], "{harm}");
        let logs = world.logs();
        match harm {
            "no log" => fs::remove_file(&logs[0]).unwrap(),
            "a commit" => damage(&logs[0], 20),
            "cut short" => cut(&logs[1]),
            "an old head" => flip(&logs[0], 8),
            "no snapshot" => fs::remove_file(&world.snapshots()[0]).unwrap(),
            _ => flip(&world.snapshots()[0], 500),
        }
        let found = check();
        assert!(!found.is_empty(), "{harm}");
        // The commits that follow make a new journal from the index.
        let mut users = 200;
        while !check().is_empty() {
            world.add(&meta, users..users + 1);
            users += 1;
            assert!(users < 2_000, "{harm}: {found:?}");
        }
        drop(meta);
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(users);
    }
}

#[test]
fn missing_commits_are_not_passed_over_in_silence() {
    let world = World::with(50, NEVER);
    // These go into a second log.
    world.add(&world.open(NEVER), 50..60);
    damage(&world.logs()[0], 20);
    fs::remove_dir_all(world.path("meta")).unwrap();
    let named = "commit 21 cannot be read, and 22 to 60 after it are left out";
    for _ in 0..2 {
        let refused = world.try_open(NEVER).err().unwrap();
        let said = refused.to_string();
        assert!(said.contains(named) && said.contains("fsck --rebuild"), "{said}");
    }
    let missing = SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap().unwrap();
    assert!(missing.contains(named), "{missing}");
    // The commits before the damaged one are there; those behind it are not, because they may
    // depend on it.
    world.reopened(20);
    assert_eq!(SledMetadata::rebuild(&world.path(""), 16 << 20), Ok(None));
    world.reopened(22);
}

/// The head of a log is written before the log's first commit. A damaged head with whole commits
/// behind it is therefore no trace of a crash, and the commits count.
#[test]
fn a_damaged_head_takes_no_commit_with_it() {
    for (before, index) in [(0, "kept"), (0, "behind"), (0, "lost"), (5, "behind"), (5, "lost")] {
        let world = World::new();
        if before > 0 {
            world.add(&world.open(NEVER), 0..before);
        }
        let meta = world.open(NEVER);
        world.add(&meta, before..before + 3);
        world.keep_index();
        world.add(&meta, before + 3..40);
        drop(meta);
        match index {
            "behind" => world.put_index_back(),
            "lost" => fs::remove_dir_all(world.path("meta")).unwrap(),
            _ => {}
        }
        flip(world.logs().last().unwrap(), 20);
        world.reopened(40);
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(42);
    }
}

#[test]
fn a_damaged_head_and_commit_are_not_passed_over_in_silence() {
    for has_index in [true, false] {
        let world = World::new();
        drop(world.open(NEVER));
        world.keep_index();
        let meta = world.open(NEVER);
        world.add(&meta, 0..40);
        drop(meta);
        if has_index {
            world.put_index_back();
        } else {
            fs::remove_dir_all(world.path("meta")).unwrap();
        }
        let log = world.logs()[0].clone();
        flip(&log, 20);
        damage(&log, 0);
        for _ in 0..2 {
            let said = world.try_open(NEVER).err().unwrap().to_string();
            assert!(said.contains("1 cannot be read") && said.contains("fsck --rebuild"), "{said}");
        }
        // An empty store is not accepted as a result: its next gc would remove all content.
        for _ in 0..2 {
            let refused = SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap_err();
            assert!(refused.to_string().contains("nothing else can be read"), "{refused}");
        }
        assert_eq!(world.logs(), [log]);
    }
}

/// A store with a snapshot and this many logs behind it, of ten commits each; also answers the
/// number of users.
fn snapshot_and_logs(logs: u64) -> (World, u64) {
    let world = World::with(200, SAVE_BYTES);
    for life in 0..logs {
        world.add(&world.open(NEVER), 200 + life * 10..210 + life * 10);
    }
    (world, 200 + logs * 10)
}

fn number(path: &Path) -> u64 {
    u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap()
}

#[test]
fn the_log_behind_the_snapshot_does_not_go_missing_in_silence() {
    let (world, _) = snapshot_and_logs(3);
    let saved = number(world.snapshots().last().unwrap());
    let logs = world.logs();
    let left: Vec<_> = logs.iter().filter(|log| number(log) >= 210).cloned().collect();
    assert_eq!(left.len(), 2, "{logs:?}");
    for log in logs.iter().filter(|log| !left.contains(log)) {
        fs::remove_file(log).unwrap();
    }
    fs::remove_dir_all(world.path("meta")).unwrap();
    for _ in 0..2 {
        let said = world.try_open(NEVER).err().unwrap().to_string();
        let lost = format!("commits {} to 210 cannot be read", saved + 1);
        assert!(said.contains(&lost) && said.contains("fsck --rebuild"), "{said}");
    }
    let missing = SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap().unwrap();
    assert!(missing.contains("to 210 cannot be read"), "{missing}");
    // The logs that were left out are moved away, so that none of their commits mixes with later
    // ones.
    assert!(world.logs().is_empty());
    // A snapshot also holds some of the commits that were made while it was taken.
    let meta = world.open(NEVER);
    let has = |n: &u64| world.runtime.block_on(meta.user(&user(*n))).unwrap().is_some();
    let there = (0..230).take_while(has).count() as u64;
    assert!((saved..=200).contains(&there), "{saved} {there}");
    drop(meta);
    world.reopened(there);
    assert_eq!(SledMetadata::rebuild(&world.path(""), 16 << 20), Ok(None));
    world.reopened(there + 2);
}

#[test]
fn an_index_ahead_of_the_snapshot_stands_in_for_lost_logs() {
    let (world, count) = snapshot_and_logs(2);
    for log in world.logs() {
        fs::remove_file(log).unwrap();
    }
    world.reopened(count);
    fs::remove_dir_all(world.path("meta")).unwrap();
    world.reopened(count + 2);
}

/// Damages the runs in sled that hold users, except the first run, which an open reads.
fn damage_runs(world: &World) {
    let db = world.sled();
    for run in db.range("A"..).keys().skip(1).map(Result::unwrap).collect::<Vec<_>>() {
        db.insert(run, b"\xff\xff").unwrap();
    }
}

/// An open reads few pages of the index. Damage in another page shows when that page is read.
#[test]
fn a_damaged_index_that_a_read_meets_is_made_anew_by_the_next_open() {
    for save_bytes in [NEVER, SAVE_BYTES] {
        let world = World::with(200, save_bytes);
        damage_runs(&world);
        let meta = world.open(NEVER);
        let read = world.runtime.block_on(meta.user(&user(7)));
        assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
        drop(meta);
        world.reopened(200);
        assert!(world.set_aside());
    }
}

#[test]
fn a_damaged_index_is_found_by_a_check_and_kept_out_of_a_backup() {
    for save_bytes in [NEVER, SAVE_BYTES] {
        let world = World::with(200, save_bytes);
        damage_runs(&world);
        let meta = world.open(NEVER);
        let found = world.runtime.block_on(meta.check()).unwrap();
        assert!(found.len() == 1 && found[0].contains("restart the daemon"), "{found:?}");
        let exported = || {
            let backup = World::new();
            fs::create_dir_all(backup.path("")).unwrap();
            world.runtime.block_on(meta.export(&backup.path(""))).unwrap();
            backup
        };
        exported().reopened(200);
        // The open store knows the id of its journal, even when no log tells it any more.
        let has_snapshot = !world.snapshots().is_empty();
        world.logs().iter().for_each(|log| flip(log, 20));
        exported().reopened(200);
        drop(meta);
        if has_snapshot {
            world.reopened(200);
        }
    }
}

#[test]
fn a_log_that_is_gone_between_others_is_missed() {
    let world = World::with(200, SAVE_BYTES);
    let count = world.logs().len();
    world.add(&world.open(NEVER), 200..210);
    let logs = world.logs();
    assert_eq!(logs.len(), count + 1);
    for log in &logs[..count] {
        fs::remove_file(log).unwrap();
    }
    fs::remove_dir_all(world.path("meta")).unwrap();
    let refused = world.try_open(NEVER).err().unwrap().to_string();
    assert!(refused.contains("to 200 cannot be read, and 201 to 210 after them"), "{refused}");
}

/// A store that lost commits may reach the same number of commits again, which are others. An
/// earlier export must not count as its own.
#[test]
fn what_was_exported_is_told_from_what_is_ahead_and_of_another() {
    let world = World::with(20, NEVER);
    let (early, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let meta = world.open(NEVER);
    let export = |to: &Path| world.runtime.block_on(meta.export(to)).unwrap();
    export(early.path());
    world.add(&meta, 20..30);
    export(late.path());
    let is = |meta: &SledMetadata, of: &Path| world.runtime.block_on(meta.exported(of)).unwrap();
    assert_eq!(is(&meta, &world.path("none")), None);
    let before = Some(Exported::Before);
    assert_eq!((is(&meta, early.path()), is(&meta, late.path())), (before, before));
    let copied = SledMetadata::open(early.path(), 16 << 20, NEVER).unwrap();
    assert_eq!(is(&copied, late.path()), Some(Exported::Ahead));
    drop((meta, copied));
    damage(&world.logs()[0], 10);
    fs::remove_dir_all(world.path("meta")).unwrap();
    assert!(SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap().is_some());
    let meta = world.open(NEVER);
    world.add(&meta, 10..40);
    for of in [early.path(), late.path()] {
        assert_eq!(is(&meta, of), Some(Exported::Foreign));
    }
}

/// The store is so large that its snapshot consists of several records.
#[test]
fn of_a_damaged_snapshot_the_rest_is_kept() {
    const USERS: u64 = 40_000;
    let world = World::new();
    let meta = Arc::new(world.open(SAVE_BYTES));
    world.runtime.block_on(async {
        for first in (0..USERS).step_by(2000) {
            let mut adding = JoinSet::new();
            for n in first..first + 2000 {
                let meta = Arc::clone(&meta);
                adding.spawn(async move { meta.ensure_user(&user(n), UnixMillis(n)).await });
            }
            for added in adding.join_all().await {
                added.unwrap();
            }
        }
    });
    drop(meta);
    let snapshot = world.snapshots().pop().unwrap();
    let bytes = fs::read(&snapshot).unwrap();
    let records: Vec<_> = memchr::memmem::find_iter(&bytes, b"slj1").collect();
    assert!(records.len() > 3, "{records:?}");
    flip(&snapshot, records[1] + 100);
    fs::remove_dir_all(world.path("meta")).unwrap();
    loss::an_index_at_a_loss_is_nothing_without_its_journal(&world);
    let missing = SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap().unwrap();
    let gap = format!("the records in {} bytes of it are left out", records[2] - records[1]);
    assert!(missing.contains(&gap), "{missing}");
    let meta = world.open(NEVER);
    let there = world.runtime.block_on(async {
        let mut there = 0;
        for n in 0..USERS {
            there += u64::from(meta.user(&user(n)).await.unwrap().is_some());
        }
        there
    });
    assert!((USERS / 2..USERS).contains(&there), "{there}");
    drop(meta);
    assert_eq!(SledMetadata::rebuild(&world.path(""), 16 << 20), Ok(None));
}

#[test]
fn files_of_two_directories_are_not_mixed() {
    let (world, other) = (World::with(5, NEVER), World::with(500, NEVER));
    fs::copy(&other.logs()[0], world.path("journal/0000000000000007.log")).unwrap();
    let refused = world.try_open(NEVER).err().unwrap();
    assert!(refused.to_string().contains("another data directory"), "{refused}");
}

/// A run that cannot be read while commits are replayed into it is no reason to refuse to start.
#[test]
fn a_damaged_run_that_commits_meet_is_made_anew() {
    let world = World::new();
    let meta = world.open(NEVER);
    world.add(&meta, 0..20);
    drop(meta);
    world.keep_index();
    let meta = world.open(NEVER);
    world.add(&meta, 20..40);
    drop(meta);
    world.put_index_back();
    let db = world.sled();
    for run in db.range("A"..).keys().map(Result::unwrap).collect::<Vec<_>>() {
        db.insert(run, b"\xff\xff").unwrap();
    }
    drop(db);
    world.reopened(40);
    assert!(world.set_aside());
}

#[test]
fn half_an_index_without_a_journal_is_refused() {
    let world = World::with(20, NEVER);
    world.sled().insert("!half-made", "").unwrap();
    fs::rename(world.path("journal"), world.path("kept")).unwrap();
    let refused = world.try_open(NEVER).err().unwrap();
    assert!(refused.to_string().contains("half made"), "{refused}");
    fs::remove_dir_all(world.path("journal")).unwrap();
    fs::rename(world.path("kept"), world.path("journal")).unwrap();
    world.reopened(20);
}

/// An index of an older format is replaced by one that its own journal makes. Beside the journal of
/// another store, it is set aside instead of removed.
#[test]
fn an_index_of_before_beside_another_journal_is_set_aside() {
    let (world, other) = (World::with(5, NEVER), World::with(20, NEVER));
    // An index without the mark `!runs` counts as one of an older format.
    world.sled().remove("!runs").unwrap();
    fs::remove_dir_all(world.path("journal")).unwrap();
    copy(&other.path("journal"), &world.path("journal"));
    world.reopened(20);
    assert!(world.set_aside());
}

/// An older version would take runs for records, so the new format number is written before the
/// first run.
#[test]
fn a_new_layout_is_told_before_it_is_there() {
    let format = |world: &World| fs::read_to_string(world.path("FORMAT")).unwrap();
    for (is_damaged, expected) in [(false, "6\n"), (true, "4\n")] {
        let world = World::with(50, NEVER);
        world.sled().remove("!runs").unwrap();
        fs::write(world.path("FORMAT"), "4\n").unwrap();
        if is_damaged {
            damage(&world.logs()[0], 20);
        }
        assert_eq!(world.try_open(NEVER).is_err(), is_damaged);
        assert_eq!(format(&world), expected);
        let missing = SledMetadata::rebuild(&world.path(""), 16 << 20).unwrap();
        assert_eq!((missing.is_some(), format(&world).as_str()), (is_damaged, "6\n"));
    }
}

#[test]
fn a_commit_that_was_cut_short_is_no_commit() {
    let world = World::with(10, NEVER);
    let log = world.logs()[0].clone();
    // The last commit reaches the disk only in part, and sled does not have it.
    let meta = world.open(NEVER);
    world.keep_index();
    world.add(&meta, 10..11);
    drop(meta);
    world.put_index_back();
    let last = world.logs().pop().unwrap();
    assert_ne!(last, log, "every open begins a new log");
    let mut torn = fs::read(&last).unwrap();
    let at = torn.iter().rposition(|byte| *byte != 0).unwrap();
    torn[at] = 0;
    fs::write(&last, torn).unwrap();
    world.reopened(10);
}

#[test]
fn an_export_taken_under_writes_opens_as_a_store() {
    let world = World::new();
    let meta = world.open(SAVE_BYTES);
    world.add(&meta, 0..100);
    let copy = tempfile::tempdir().unwrap();
    let (going_on, exported) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| world.add(&meta, 100..400));
        let exported = Runtime::new().unwrap().block_on(meta.export(copy.path()));
        (writer.join(), exported)
    });
    going_on.unwrap();
    exported.unwrap();
    let (dir, runtime) = (copy, Runtime::new().unwrap());
    let opened = SledMetadata::open(dir.path(), 16 << 20, NEVER).unwrap();
    let has = |n: u64| runtime.block_on(opened.user(&user(n))).unwrap().is_some();
    let there: Vec<bool> = (0..401).map(has).collect();
    let count = there.iter().position(|there| !there).unwrap();
    assert!(count >= 100, "{count}");
    assert!(there[count..].iter().all(|there| !there), "a later commit without an earlier one");
}

#[test]
fn a_close_notes_how_far_sled_got() {
    let world = World::new();
    let meta = world.open(NEVER);
    // The name of the file tells up to where sled need not read its log again.
    let noted = || {
        let entries = fs::read_dir(world.path("meta")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let ends =
            names.filter_map(|name| u64::from_str_radix(name.strip_prefix("snap.")?, 16).ok());
        ends.max().unwrap_or(0)
    };
    let before = noted();
    world.add(&meta, 0..1000);
    assert_eq!(noted(), before);
    drop(meta);
    let closed = noted();
    assert!(closed > before + 1000 * 10, "{before} to {closed}");
    drop(world.open(NEVER));
    let meta = world.open(NEVER);
    world.check(&meta, 1000);
}

#[test]
fn tokens_come_back_too() {
    let world = World::with(1, NEVER);
    let token = token(5);
    let meta = world.open(NEVER);
    world.runtime.block_on(meta.add_service_token(token.clone())).unwrap();
    drop(meta);
    fs::remove_dir_all(world.path("meta")).unwrap();
    let meta = world.open(NEVER);
    assert_eq!(world.runtime.block_on(meta.service_token(&[5; 32])), Ok(Some(token)));
}

/// The logs of short runs of the daemon are replaced by a snapshot, too, although each of them is
/// short.
#[test]
fn short_lives_are_saved_too() {
    let world = World::new();
    for life in 0..12 {
        world.add(&world.open(4 << 20), life..life + 1);
    }
    // This run lasts long enough for a save, and writes no more than the others did.
    let meta = world.open(4 << 20);
    let mut count = 12;
    while world.snapshots().is_empty() || world.logs().len() > 2 {
        assert!(count < 20_000, "{:?}", world.logs());
        world.add(&meta, count..count + 1);
        count += 1;
    }
    drop(meta);
    world.reopened(count);
}

#[test]
fn an_index_that_is_damaged_where_an_open_looks_first_is_made_anew() {
    let world = World::with(20, NEVER);
    let path = world.path("meta").join("db");
    let mut bytes = fs::read(&path).unwrap();
    let found: Vec<usize> = memchr::memmem::find_iter(&bytes, b"!applied").collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at + 1] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    let meta = world.open(NEVER);
    assert!(world.set_aside());
    world.check(&meta, 20);
}
