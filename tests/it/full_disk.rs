//! A disk that is really full: a small file system of its own, where the machine allows a mount.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Client, Daemon, bytes,
    command::{command, refused, report, run},
    raw::begin,
};

/// Unmounts when dropped.
struct Mount(PathBuf);

impl Mount {
    /// Mounts a file system at `at`; `None` where that is not allowed.
    fn new(at: &Path, size: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A daemon on a file system of its own; where that is not allowed, this prints so and returns
/// `None`.
fn on_a_disk_of(size: &str) -> Option<(Mount, Daemon)> {
    let mut mount = None;
    let daemon = Daemon::prepared(|data| mount = Mount::new(data, size));
    if mount.is_none() {
        println!("NOT TESTED: this machine does not let us mount a file system");
    }
    Some((mount?, daemon))
}

/// Takes every byte that is left on the disk.
fn fill(path: &Path) {
    let mut filler = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while filler.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_of_a_backup_is_not_taken_for_that_of_the_data() {
    let place = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(place.path(), "10m") else {
        println!("NOT TESTED: this machine does not let us mount a file system");
        return;
    };
    let mut daemon = Daemon::start();
    daemon.expect_trouble("no room for the backup");
    let user = daemon.user("u");
    user.store("small", "", b"small");
    let to = place.path().join("backup");
    let to = to.to_str().unwrap();
    report(&daemon.dir(), &["backup", to]);
    let told = format!("no room left on the disk of {to}");
    user.store("large", "", &bytes(1, 8_000_000));
    assert!(refused(&daemon.dir(), 1, &["backup", to]).contains(&told));
    let filler = place.path().join("filler");
    fill(&filler);
    assert!(refused(&daemon.dir(), 1, &["backup", to]).contains(&told));
    assert_eq!(daemon.log().matches("no room for the backup").count(), 2);
    let metrics = daemon.operator("GET", "/metrics");
    assert!(metrics.contains("refusals_total{code=\"no_space\"} 0"), "{metrics}");
    fs::remove_file(&filler).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data");
    assert!(command(&data, &["restore", to]).status.success());
    assert_eq!(run(&data, &["user", "show", "u"])["files"], 1);
}

#[test]
fn a_full_disk_refuses_what_takes_room_and_recovers_by_itself() {
    let Some((mount, mut daemon)) = on_a_disk_of("112m") else { return };
    daemon.expect_trouble("no space");
    daemon.expect_trouble("the audit log cannot be written");
    let user = daemon.user("u");
    let large = bytes(1, 300_000);
    let kept = user.store("kept", "", &large);
    let mut stored = vec![user.store("small", "", b"small")];
    let filler = daemon.dir().join("filler");
    fill(&filler);
    // Large contents find the disk full at once, small ones when the room allocated ahead is used
    // up.
    let mut refused = 0;
    for n in 0..4_000 {
        let size = if n % 16 == 0 { 100_000 } else { 6_000 };
        let answer = user.put("/v1/files/content?filename=f", bytes(n, size));
        match answer.status {
            201 => stored.push(answer.json()),
            507 => {
                answer.refused(507, "no_space");
                refused += 1;
            }
            status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
        if refused > 300 {
            break;
        }
    }
    assert!(refused > 300, "{refused} refused");
    assert_eq!(user.content(kept["key"].as_str().unwrap()).body, large);
    // Requests that release something still work.
    for file in stored.drain(..stored.len() / 2) {
        user.delete_file(&file).ok();
    }
    fs::remove_file(&filler).unwrap();
    stored.push(user.store("later", "", &bytes(9, 200_000)));
    stored.push(user.store("later", "", b"small again"));
    stored.push(kept);
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    let list = user.get("/v1/files/all").ok();
    assert_eq!(list["total_count"], stored.len());
    for file in &stored {
        let body = user.content(file["key"].as_str().unwrap()).body;
        assert_eq!(blake3::hash(&body).to_hex().as_str(), file["blake3"].as_str().unwrap());
    }
    drop(daemon);
    drop(mount);
}

/// Begins uploads, which take room in the index only, until it has no more.
fn use_up(user: &Client) {
    let body = r#"{"mode":"single","files":[{"name":"f","size":1}]}"#;
    let statuses = (0..20_000).map(|_| user.post("/v1/files/init", body).status);
    assert_eq!(statuses.into_iter().find(|status| *status != 200), Some(507));
}

fn gc(daemon: &Daemon) -> Value {
    let answer = daemon.operator("POST", "/gc");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Deletions need room as well, and it is kept for them: on a full disk, all of ten thousand small
/// files can be deleted, also across restarts, and their room becomes free.
#[test]
fn everything_can_be_deleted_on_a_full_disk() {
    let Some((mount, mut daemon)) = on_a_disk_of("288m") else { return };
    daemon.expect_trouble("no space");
    daemon.expect_trouble("the audit log cannot be written");
    daemon.expect_trouble("the end of the audit log may be lost");
    daemon.expect_trouble("the next start takes longer");
    let user = daemon.user("u");
    let large: Vec<_> = (0..20).map(|n| user.store("large", "", &bytes(n, 1 << 20))).collect();
    let stored: Vec<_> = (0..10_000).map(|n| user.store("f", "", &bytes(n, 50))).collect();
    fill(&daemon.dir().join("filler"));
    use_up(&user);
    gc(&daemon);
    // Both ways of ending, each with a start that finds nothing free but the room that is kept for
    // it. Whatever either leaves free is taken.
    let signals = [Signal::TERM, Signal::KILL].into_iter().cycle();
    for (round, (signal, files)) in signals.zip(stored.chunks(1_000)).enumerate() {
        daemon.signal(signal);
        daemon.wait();
        fill(&daemon.dir().join(format!("filler.{round}")));
        daemon.resume();
        fill(&daemon.dir().join(format!("filler.behind.{round}")));
        let user = daemon.user("u");
        use_up(&user);
        assert_eq!(user.content(large[0]["key"].as_str().unwrap()).body, bytes(0, 1 << 20));
        for file in files {
            user.delete_file(file).ok();
        }
    }
    let user = daemon.user("u");
    for file in &large {
        user.delete_file(file).ok();
    }
    // What is deleted in a collection's first millisecond is left to the next one.
    gc(&daemon);
    gc(&daemon);
    assert_eq!(gc(&daemon)["blobs"], 0, "no time of grace on a full disk");
    fs::remove_file(daemon.dir().join("filler")).unwrap();
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    user.store("later", "", &bytes(1, 8 << 20));
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 1);
    drop(daemon);
    drop(mount);
}

/// The index's file loses the room past its end whenever sled makes it shorter. If others have
/// taken that room, what waits for it has it from the ballast before sled writes anything.
#[test]
fn room_that_the_index_has_lost_comes_from_what_is_kept() {
    let Some((mount, mut daemon)) = on_a_disk_of("288m") else { return };
    daemon.expect_trouble("no space");
    daemon.expect_trouble("the audit log cannot be written");
    let user = daemon.user("u");
    // Some five writes of the index for each, with 3 KiB of room for each write; too few to be
    // settled on their own.
    let stored: Vec<_> = (0..1_000).map(|n| user.store("f", "", &bytes(n, 50))).collect();
    fill(&daemon.dir().join("filler"));
    let index = fs::File::options().write(true).open(daemon.dir().join("meta/db")).unwrap();
    let has_room = || index.metadata().unwrap().blocks() * 512 >= 14 << 20;
    assert!(has_room());
    index.set_len(index.metadata().unwrap().len()).unwrap();
    assert!(!has_room());
    fill(&daemon.dir().join("filler.behind"));
    user.delete_file(&stored[0]).ok();
    assert!(has_room());
    for file in &stored[1..] {
        user.delete_file(file).ok();
    }
    drop(daemon);
    drop(mount);
}

/// Each range is opened only when the one before it was sent, so the deleted content must stay
/// until the answer ends, even on a full disk.
#[test]
fn an_answer_of_several_ranges_is_sent_to_its_end_on_a_full_disk() {
    let Some((mount, mut daemon)) = on_a_disk_of("200m") else { return };
    daemon.expect_trouble("no space");
    daemon.expect_trouble("the audit log cannot be written");
    let user = daemon.user("u");
    let content = bytes(1, 40_000_000);
    let file = user.store("f", "", &content);
    let get = format!("GET /v1/files/content/{}", file["key"].as_str().unwrap());
    let lines = "range: bytes=0-17999999,20000000-37999999\r\nconnection: close\r\n";
    let mut socket = begin(&daemon, &get, lines);
    // The second range is not opened yet: the first one is larger than what the sockets hold.
    let mut answer = vec![0; 100_000];
    socket.read_exact(&mut answer).unwrap();
    fill(&daemon.dir().join("filler"));
    user.delete_file(&file).ok();
    gc(&daemon);
    socket.read_to_end(&mut answer).unwrap();
    assert!(answer.windows(1000).any(|some| some == &content[37_999_000..38_000_000]));
    gc(&daemon);
    user.store("later", "", &content[..1 << 20]);
    drop(daemon);
    drop(mount);
}

/// One collection frees the room of deleted files, because no grace time applies on a full disk.
#[test]
fn what_is_deleted_on_a_full_disk_makes_room_at_once() {
    let Some((mount, mut daemon)) = on_a_disk_of("320m") else { return };
    daemon.expect_trouble("no space");
    daemon.expect_trouble("the audit log cannot be written");
    let user = daemon.user("u");
    let stored: Vec<_> = (0..200).map(|n| user.store("f", "", &bytes(n, 1 << 20))).collect();
    fill(&daemon.dir().join("filler"));
    user.put("/v1/files/content?filename=f", bytes(1, 1 << 20)).refused(507, "no_space");
    for file in &stored {
        user.delete_file(file).ok();
    }
    gc(&daemon);
    for n in 0..20 {
        user.store("later", "", &bytes(n, 1 << 20));
    }
    drop(daemon);
    drop(mount);
}

/// Room is allocated for commits that wait to be settled, several times what they need in the end.
/// That alone must not fill a small disk.
#[test]
fn the_room_that_waits_for_the_index_fills_no_small_disk() {
    let Some((mount, daemon)) = on_a_disk_of("104m") else { return };
    let user = daemon.user("u");
    for n in 0..2_500 {
        user.store("f", "", &bytes(n, 50));
    }
    drop(daemon);
    drop(mount);
}
