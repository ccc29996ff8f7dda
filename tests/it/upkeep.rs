//! What an operator runs: fsck, scrub, gc, backup and restore, beside a daemon and without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    audit::lines,
    restore::{backed_up, kill_between_renames},
    support::{
        Daemon, bytes,
        command::{command, refused, report, run, text},
        daemon::BINARY,
        eventually,
        harm::{blob, damage, flip, unreadable},
    },
};

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Ends the daemon, rebuilds its index from the journal, and starts it again.
fn rebuilt(daemon: &mut Daemon) {
    daemon.stop();
    let data = daemon.dir();
    fs::remove_dir_all(data.join("meta")).unwrap();
    assert!(command(&data, &["fsck", "--rebuild"]).status.success());
    assert_eq!(report(&data, &["fsck"])["findings"], Value::Array(Vec::new()));
    daemon.resume();
}

#[test]
fn reports_are_the_same_with_and_without_a_daemon() {
    let mut daemon = Daemon::start();
    let user = daemon.user("u");
    user.store("small", "a/b", &bytes(1, 100));
    let gone = user.store("gone", "a", &bytes(2, 100_000));
    user.delete_file(&gone).ok();
    let open = user.init("open", 300);
    user.part(&open, 1, &bytes(3, 200)).ok();
    let check = |data: &Path| {
        let checked = report(data, &["fsck"]);
        assert_eq!(checked["findings"], Value::Array(Vec::new()));
        let scrubbed = report(data, &["scrub"]);
        assert_eq!((&scrubbed["blobs"], &scrubbed["damaged"]), (&2.into(), &0.into()));
        let collected = report(data, &["gc"]);
        assert_eq!(collected["blobs"], 0, "within its time of grace");
        [checked, scrubbed, collected]
    };
    let beside = check(&daemon.dir());
    daemon.stop();
    assert!(!daemon.dir().join("admin.sock").exists());
    assert_eq!(check(&daemon.dir()), beside);
}

#[test]
fn damage_is_found_told_and_healed() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged");
    let user = daemon.user("u");
    let content = bytes(1, 100_000);
    let file = user.store("f", "", &content);
    flip(&blob(&daemon.dir(), &file), 50_000);
    let found = command(&daemon.dir(), &["scrub"]);
    assert_eq!(found.status.code(), Some(1));
    let key = file["key"].as_str().unwrap();
    user.content(key).refused(500, "content_damaged");
    let partial = user.header("range", "bytes=0-9").content(key);
    partial.refused(500, "content_damaged");
    user.store("again", "", &content);
    assert_eq!(user.content(key).body, content);
    assert_eq!(report(&daemon.dir(), &["scrub"])["damaged"], 0);
}

#[test]
fn a_damaged_journal_is_found_told_and_mended() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("the journal is damaged");
    let user = daemon.user("u");
    let needle = user.store("needle", "", b"content");
    damage(&daemon.dir().join("journal"), b"needle");
    let found = command(&daemon.dir(), &["fsck"]);
    assert_eq!(found.status.code(), Some(1));
    let told = String::from_utf8(found.stdout).unwrap();
    // The damaged commit is the last one, unless the daemon has made one by itself since.
    let last = told.contains("are not in the journal");
    assert!(last || told.contains("cannot be read"), "{told}");
    let mut stores = 0;
    while !command(&daemon.dir(), &["fsck"]).status.success() {
        user.store("g", "", b"more");
        stores += 1;
        assert!(stores < 100, "{told}");
    }
    rebuilt(&mut daemon);
    let user = user.moved(&daemon);
    assert_eq!(user.content(needle["key"].as_str().unwrap()).body, b"content");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 1 + stores);
}

#[test]
fn a_backup_under_load_restores_what_was_acknowledged() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let mut stored = Vec::new();
    for (n, size) in [0, 10, 3_000, 70_000, 200_000].into_iter().enumerate() {
        stored.push((user.store("f", "a", &bytes(n as u64, size)), bytes(n as u64, size)));
    }
    let open = user.init("open", 100_010);
    user.part(&open, 1, &bytes(8, 100_000)).ok();
    let target = tempfile::tempdir().unwrap();
    let backup = target.path().join("backup");
    let to = backup.to_str().unwrap();
    let enough = AtomicBool::new(false);
    let (first, second) = std::thread::scope(|scope| {
        for worker in 0..2_u64 {
            let (user, enough) = (user.clone(), &enough);
            scope.spawn(move || {
                let mut n = 0;
                while !enough.load(Ordering::Relaxed) {
                    n += 1;
                    let size = if n % 3 == 0 { 80_000 } else { 2_000 };
                    let file = user.store("load", "b", &bytes(worker << 32 | n, size));
                    if n % 2 == 0 {
                        let key = file["key"].as_str().unwrap();
                        user.delete(&format!("/v1/files/{key}")).ok();
                    }
                }
            });
        }
        let reports =
            (report(&daemon.dir(), &["backup", to]), report(&daemon.dir(), &["backup", to]));
        enough.store(true, Ordering::Relaxed);
        reports
    });
    assert!(first["copied_bytes"].as_u64() > Some(370_000), "{first}");
    assert!(second["kept"].as_u64() >= Some(2), "{second}");
    drop(daemon);

    let restored = tempfile::tempdir().unwrap();
    let data = restored.path().join("data");
    let said = refused(&data, 1, &["restore", text(target.path())]);
    assert!(said.contains("not a complete backup"), "{said}");
    let output = command(&data, &["restore", to]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!command(&data, &["restore", to]).status.success(), "over what is there");
    let daemon = Daemon::on(&data);
    let user = daemon.user("u");
    for (file, content) in &stored {
        assert_eq!(user.content(file["key"].as_str().unwrap()).body, *content);
    }
    let list = user.get("/v1/files/all").ok();
    let files = list["files"].as_array().unwrap();
    assert_eq!(list["total_count"], files.len());
    for file in files {
        assert_eq!(user.content(file["key"].as_str().unwrap()).body.len(), file["size"]);
    }
    user.part(&open, 2, &bytes(9, 10)).ok();
    let whole = [bytes(8, 100_000), bytes(9, 10)].concat();
    assert_eq!(user.content(user.complete(&open).ok()["key"].as_str().unwrap()).body, whole);
}

#[test]
fn a_key_that_was_withdrawn_does_not_come_back_with_a_backup() {
    let daemon = Daemon::start();
    daemon.user("u").store("f", "a", b"content");
    let target = tempfile::tempdir().unwrap();
    let backup = target.path().join("made/with/those/above");
    let to = backup.to_str().unwrap();
    report(&daemon.dir(), &["backup", to]);
    let (keys, kept) = (daemon.dir().join("keys"), backup.join("keys"));
    let before = names(&keys);
    assert_eq!(names(&kept), before);
    assert!(command(&daemon.dir(), &["key", "rotate"]).status.success());
    let withdrawn = before.iter().find(|name| Path::new(name).extension() == Some("pem".as_ref()));
    let withdrawn = withdrawn.unwrap();
    fs::remove_file(keys.join(withdrawn)).unwrap();
    report(&daemon.dir(), &["backup", to]);
    assert_eq!(names(&kept), names(&keys));
    assert!(!kept.join(withdrawn).exists());
}

/// A temporary file that a killed process left behind may hold a key.
#[test]
fn a_key_that_was_half_written_is_neither_kept_nor_backed_up() {
    let mut daemon = Daemon::start();
    let keys = daemon.dir().join("keys");
    let target = tempfile::tempdir().unwrap();
    let backup = target.path().join("backup");
    let is_half = |name: &&String| Path::new(name).extension().is_some_and(|end| end == "tmp");
    let half = |dir: &Path| names(dir).iter().filter(is_half).count();
    for name in ["link.tmp", "abc.tmp"] {
        fs::write(keys.join(name), "half a key").unwrap();
    }
    report(&daemon.dir(), &["backup", text(&backup)]);
    assert_eq!((half(&keys), half(&backup.join("keys"))), (2, 0));
    daemon.restart(Signal::TERM);
    assert_eq!(half(&keys), 0);
}

/// Whoever may write to a backup could put another key or journal into it.
#[test]
fn a_backup_leaves_its_directory_to_nobody_else_to_write() {
    let daemon = Daemon::start();
    let target = tempfile::tempdir().unwrap();
    for (name, before, after) in [("a", 0o777, 0o755), ("b", 0o770, 0o750), ("c", 0o755, 0o755)] {
        let to = target.path().join(name);
        fs::create_dir(&to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(before)).unwrap();
        report(&daemon.dir(), &["backup", text(&to)]);
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, after, "{name}");
    }
}

/// Runs a backup that fails before its last steps.
fn cut_short(backup: &Path, daemon: &Daemon) {
    let (keys, kept) = (backup.join("keys"), backup.join("kept"));
    fs::rename(&keys, &kept).unwrap();
    fs::write(&keys, "in the way").unwrap();
    assert!(!command(&daemon.dir(), &["backup", text(backup)]).status.success());
    fs::remove_file(&keys).unwrap();
    fs::rename(kept, keys).unwrap();
}

/// A backup was killed between its two renames, and the next one fails.
#[test]
fn what_an_earlier_backup_left_stays_good() {
    let (target, backup, mut daemon) = backed_up();
    daemon.expect_trouble("a store is unavailable");
    let to = backup.to_str().unwrap();
    kill_between_renames(&backup);
    // A daemon that was started on the backup refused to run, and left this directory.
    fs::create_dir(backup.join("journal")).unwrap();
    cut_short(&backup, &daemon);
    let data = target.path().join("data");
    assert!(command(&data, &["restore", to]).status.success());
    assert_eq!(run(&data, &["user", "show", "u"])["files"], 2);
}

/// The hash of each file below a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            let hash = blake3::hash(&fs::read(&path).unwrap()).to_string();
            found.insert(path, hash);
        }
    }
    found
}

/// The journal of a backup names bytes as they were then. So files that changed since are put in
/// place only together with their journal.
#[test]
fn a_backup_that_is_cut_changes_no_file_of_an_earlier_one() {
    let (target, backup, mut daemon) = backed_up();
    daemon.expect_trouble("a store is unavailable");
    let to = backup.to_str().unwrap();
    let before = contents(&backup.join("blobs"));
    assert!(!before.is_empty());
    daemon.user("u").store("f", "b", b"another");
    cut_short(&backup, &daemon);
    assert_eq!(contents(&backup.join("blobs")), before);
    report(&daemon.dir(), &["backup", to]);
    assert_ne!(contents(&backup.join("blobs")), before);
    assert!(!backup.join("incoming").exists());
    let data = target.path().join("data");
    assert!(command(&data, &["restore", to]).status.success());
    assert_eq!(run(&data, &["user", "show", "u"])["files"], 3);
}

/// The target is as a backup leaves it that found no room for more than its lock.
#[test]
fn a_backup_that_left_a_lock_alone_is_begun_again() {
    let daemon = Daemon::start();
    let target = tempfile::tempdir().unwrap();
    for left in ["LOCK", "FORMAT.tmp"] {
        fs::write(target.path().join(left), "").unwrap();
    }
    report(&daemon.dir(), &["backup", text(target.path())]);
    assert!(target.path().join("FORMAT").exists());
}

#[test]
fn a_backup_that_cannot_be_written_says_where() {
    let daemon = Daemon::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = command(&daemon.dir(), &["backup", file.path().join("b").to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains(file.path().to_str().unwrap()), "{told}");
}

#[test]
fn a_backup_never_goes_where_a_daemon_has_its_data() {
    let mut daemon = Daemon::start();
    let file = daemon.user("u").store("f", "a", b"content");
    let data = daemon.dir();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(&data, &link).unwrap();
    let beside = data.join("../data");
    let around = data.parent().unwrap();
    let inside = data.join("blobs/backup");
    let refused = |to: &Path| refused(&data, 1, &["backup", text(to)]);
    for to in [&data, &link, &beside, &link.join("made/anew"), around, &inside] {
        let told = refused(to);
        assert!(told.contains("a directory of its own"), "{told}");
    }
    assert!(!inside.exists() && !around.join("FORMAT").exists());
    let mut other = Daemon::start();
    assert!(refused(&other.dir()).contains("is in use by a daemon"));
    other.stop();
    assert!(refused(&other.dir()).contains("it has meta/"));
    daemon.restart(Signal::KILL);
    let key = file["key"].as_str().unwrap();
    assert_eq!(daemon.user("u").content(key).body, b"content");
}

#[test]
fn a_backup_replaces_nothing_that_is_not_one() {
    let daemon = Daemon::start();
    daemon.user("u").store("f", "", b"x");
    let place = tempfile::tempdir().unwrap();
    let theirs = place.path().join("theirs");
    for kept in ["keys/ssh.key", "incoming/mail"] {
        fs::create_dir_all(theirs.join(kept).parent().unwrap()).unwrap();
        fs::write(theirs.join(kept), kept).unwrap();
    }
    let told = refused(&daemon.dir(), 1, &["backup", text(&theirs)]);
    assert!(told.contains("holds something other than a backup"), "{told}");
    for kept in ["keys/ssh.key", "incoming/mail"] {
        assert_eq!(fs::read_to_string(theirs.join(kept)).unwrap(), kept);
    }
    // A mount point that is otherwise empty, and then the earlier backup in it.
    let own = place.path().join("own");
    fs::create_dir_all(own.join("lost+found")).unwrap();
    for _ in 0..2 {
        assert!(command(&daemon.dir(), &["backup", text(&own)]).status.success());
    }
}

#[test]
fn a_backup_never_takes_the_place_of_that_of_another_store() {
    let mut daemon = Daemon::start();
    daemon.user("u").store("f", "a", b"content");
    let target = tempfile::tempdir().unwrap();
    let to = target.path().join("backup");
    report(&daemon.dir(), &["backup", text(&to)]);
    assert!(daemon.log().contains("a new, empty store was begun"));
    daemon.restart(Signal::TERM);
    assert_eq!(daemon.log().matches("a new, empty store was begun").count(), 1);
    // The other store is new, like one that a daemon begins when the disk with the data is not
    // mounted.
    let other = Daemon::start();
    let refused = || refused(&other.dir(), 1, &["backup", text(&to)]);
    assert!(refused().contains("holds the backup of another store"));
    let answer = other.operator("POST", &format!("/backup?dir={}", to.display()));
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("other_store"), "{answer}");
    kill_between_renames(&to);
    assert!(refused().contains("holds the backup of another store"));
    let data = target.path().join("data");
    assert!(command(&data, &["restore", text(&to)]).status.success());
    assert_eq!(run(&data, &["user", "show", "u"])["files"], 1);
    // The restored store continues this backup, and so does the first store.
    report(&data, &["backup", text(&to)]);
    for n in 0..20 {
        daemon.user("u").store(&format!("g{n}"), "", b"more");
    }
    report(&daemon.dir(), &["backup", text(&to)]);
}

/// A pipe among the blobs makes a backup wait as long as the test wants.
#[test]
fn a_backup_that_nobody_waits_for_keeps_others_out_until_its_end() {
    let daemon = Daemon::start();
    let file = daemon.user("u").store("f", "a", &bytes(1, 100_000));
    let target = tempfile::tempdir().unwrap();
    let (to, other) = (target.path().join("backup"), target.path().join("other"));
    report(&daemon.dir(), &["backup", text(&to)]);
    let pipe = daemon.dir().join("blobs/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let waiting = Command::new(BINARY)
        .args(["backup", to.to_str().unwrap(), "--data-dir"])
        .arg(daemon.dir())
        .env_clear()
        .stdout(Stdio::null())
        .spawn();
    let mut waiting = waiting.unwrap();
    // The backup is copying the journal, or is at the blobs already.
    eventually(|| to.join("incoming/journal").exists());
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    // The backup goes on, and the audit log says that the answer to its request was cut.
    eventually(|| {
        let lines = lines(&daemon.dir());
        lines.iter().any(|line| line["outcome"] == "cut" && line["target"] == *to.to_str().unwrap())
    });
    for to in [&to, &other] {
        let told = refused(&daemon.dir(), 1, &["backup", text(to)]);
        assert!(told.contains("A backup is being taken"), "{told}");
    }
    let told = refused(&to, 1, &["fsck"]);
    assert!(told.contains("in use by another daemon, a command or a backup"), "{told}");
    // Opening the other end of the pipe lets the backup go on.
    fs::write(&pipe, "").unwrap();
    fs::remove_file(&pipe).unwrap();
    eventually(|| command(&daemon.dir(), &["backup", text(&to)]).status.success());
    let data = target.path().join("data");
    assert!(command(&data, &["restore", text(&to)]).status.success());
    let restored = Daemon::on(&data);
    let key = file["key"].as_str().unwrap();
    assert_eq!(restored.user("u").content(key).body, bytes(1, 100_000));
}

#[test]
fn a_backup_of_a_failing_disk_has_everything_that_can_be_read() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("not in the backup: unreadable");
    let user = daemon.user("u");
    let (lost, kept) = (user.store("f", "a", &bytes(1, 100_000)), bytes(2, 100_000));
    let file = user.store("g", "a", &kept);
    let path = blob(&daemon.dir(), &lost);
    fs::remove_file(&path).unwrap();
    unreadable(&path);
    let target = tempfile::tempdir().unwrap();
    let backup = target.path().join("backup");
    let to = backup.to_str().unwrap();
    let output = command(&daemon.dir(), &["backup", to]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("1 files could not be read"), "{told}");
    let counted: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counted["unreadable"], 1);
    assert!(daemon.log().contains(path.to_str().unwrap()));
    let data = target.path().join("data");
    let output = command(&data, &["restore", to]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"damaged\": 1"), "{output:?}");
    let mut restored = Daemon::on(&data);
    restored.expect_trouble("damaged");
    let user = restored.user("u");
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, kept);
    user.content(lost["key"].as_str().unwrap()).refused(500, "content_damaged");
}

#[test]
fn scrub_does_not_take_into_memory_what_stands_behind_a_content() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged");
    let file = daemon.user("u").store("f", "", &bytes(1, 100_000));
    let blob = File::options().write(true).open(blob(&daemon.dir(), &file)).unwrap();
    blob.set_len(300 << 20).unwrap();
    assert_eq!(command(&daemon.dir(), &["scrub"]).status.code(), Some(1));
    let peak = daemon.peak_memory_kib();
    assert!(peak < 200 << 10, "{peak} KiB");
}

/// A pipe in place of a blob makes the first scrub wait.
#[test]
fn a_second_scrub_is_told_of_the_first() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged");
    daemon.expect_trouble("cannot be read");
    let file = daemon.user("u").store("f", "", &bytes(1, 100_000));
    let blob = blob(&daemon.dir(), &file);
    fs::rename(&blob, blob.with_extension("away")).unwrap();
    assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success());
    let mut scrub = Command::new(BINARY);
    scrub.args(["scrub", "--data-dir"]).arg(daemon.dir()).env_clear();
    let mut first = scrub.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually(|| daemon.log().matches("scrub begins").count() > 1);
    let said = refused(&daemon.dir(), 1, &["scrub"]);
    assert!(said.contains("A scrub is running"), "{said}");
    assert!(daemon.operator("POST", "/scrub").starts_with("HTTP/1.1 409"));
    // Opening the pipe's other end lets a scrub go on. The daemon's own scrub waits there, too.
    while first.try_wait().unwrap().is_none() {
        let open = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::WRONLY;
        drop(rustix::fs::open(&blob, open, rustix::fs::Mode::empty()));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = File::options().read(true).write(true).open(&blob);
}

#[test]
fn an_index_is_made_anew_on_command() {
    let mut daemon = Daemon::start();
    let user = daemon.user("u");
    let file = user.store("f", "a", b"content");
    let open = user.init("open", 3);
    user.part(&open, 1, b"abc").ok();
    assert!(!command(&daemon.dir(), &["fsck", "--rebuild"]).status.success(), "it is in use");
    rebuilt(&mut daemon);
    let user = user.moved(&daemon);
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, b"content");
    let list = user.get("/v1/files/all?folder=a").ok();
    assert_eq!((&list["total_count"], &list["total_size"]), (&1.into(), &7.into()));
    let whole = user.complete(&open).ok();
    assert_eq!(user.content(whole["key"].as_str().unwrap()).body, b"abc");
    let kept = tempfile::tempdir().unwrap();
    let to = kept.path().join("b");
    daemon.stop();
    let report = report(&daemon.dir(), &["backup", text(&to)]);
    assert!(report["files"].as_u64() > Some(0));
}
