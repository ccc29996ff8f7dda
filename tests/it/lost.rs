//! What an operator is told when data is lost, and what must not silently take its place.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Client, Daemon, bytes,
    command::{command, refused, report, run, text},
    daemon::BINARY,
    harm::{blob, damage, flip, unreadable},
};

/// Stops a daemon and moves its directory to a place of its own.
fn stopped(mut daemon: Daemon) -> (tempfile::TempDir, PathBuf) {
    daemon.stop();
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    fs::rename(daemon.dir(), &data).unwrap();
    (place, data)
}

fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The paths in a directory that end in `ending`, in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| text(path).ends_with(ending)).collect();
    found.sort();
    found
}

fn files_of(data: &Path, user: &str) -> Value {
    run(data, &["user", "show", user])["files"].clone()
}

#[test]
fn an_older_copy_never_takes_the_place_of_a_later_backup() {
    let mut daemon = Daemon::start();
    daemon.user("u").store("first", "", b"content");
    daemon.stop();
    let place = tempfile::tempdir().unwrap();
    let (older, to) = (place.path().join("older"), place.path().join("backup"));
    copied(&daemon.dir(), &older);
    daemon.resume();
    daemon.user("u").store("second", "", b"more content");
    report(&daemon.dir(), &["backup", text(&to)]);
    report(&daemon.dir(), &["backup", text(&to)]);
    let said = refused(&older, 1, &["backup", text(&to)]);
    assert!(said.contains("holds changes that this store does not have"), "{said}");
    let rolled_back = Daemon::on(&older);
    let answer = rolled_back.operator("POST", &format!("/backup?dir={}", to.display()));
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("newer_backup"), "{answer}");
    let elsewhere = place.path().join("elsewhere");
    report(&rolled_back.dir(), &["backup", text(&elsewhere)]);
    // A store that was restored from a backup is never behind that backup.
    let restored = place.path().join("restored");
    let output = command(&restored, &["restore", text(&to)]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(files_of(&restored, "u"), 2);
    report(&restored, &["backup", text(&to)]);
}

/// A stopped store with eight files, each of at least one commit, and a backup of it.
fn with_eight_files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for n in 1..=8 {
        user.store(&format!("needle{n}"), "", &bytes(n, 100));
    }
    let (place, data) = stopped(daemon);
    let to = place.path().join("backup");
    report(&data, &["backup", text(&to)]);
    (place, data, to)
}

#[test]
fn a_rebuild_at_a_loss_names_all_of_it_and_backs_up_elsewhere() {
    let (place, data, to) = with_eight_files();
    fs::remove_dir_all(data.join("meta")).unwrap();
    damage(&data.join("journal"), b"needle3");
    let before = refused(&data, 1, &["fsck"]);
    let said = refused(&data, 1, &["fsck", "--rebuild"]);
    for said in [&before, &said] {
        let (_, behind) = said.split_once("cannot be read, and ").unwrap();
        let (first, last) = behind.split_once(" to ").unwrap();
        let last = last.split(' ').next().unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        assert!(last - first >= 4 && said.contains("are left out"), "{said}");
    }
    assert!(said.contains("journal.damaged-N"), "{said}");
    assert_eq!(files(&data.join("journal.damaged-1"), ".log").len(), 1);
    assert_eq!(files_of(&data, "u"), 2);
    assert_eq!(report(&data, &["fsck"])["findings"], json!([]));
    // However many commits follow, this is not the store whose backup lies there.
    for n in 0..20 {
        run(&data, &["token", "create", &format!("later{n}")]);
    }
    let said = refused(&data, 1, &["backup", text(&to)]);
    assert!(said.contains("holds the backup of another store"), "{said}");
    let restored = place.path().join("restored");
    assert!(command(&restored, &["restore", text(&to)]).status.success());
    assert_eq!(files_of(&restored, "u"), 8);
}

#[test]
fn a_journal_that_lacks_what_the_index_has_is_rebuilt_without_a_loss() {
    let (_place, data, to) = with_eight_files();
    damage(&data.join("journal"), b"needle3");
    let output = command(&data, &["fsck", "--rebuild"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("journal.damaged-N"), "{output:?}");
    assert_eq!(files_of(&data, "u"), 8);
    fs::remove_dir_all(data.join("meta")).unwrap();
    assert_eq!(files_of(&data, "u"), 8);
    report(&data, &["backup", text(&to)]);
}

#[test]
fn nothing_is_made_of_a_snapshot_that_tells_nothing() {
    let (place, _, to) = with_eight_files();
    let snapshot = files(&to.join("journal"), ".snapshot").remove(0);
    flip(&snapshot, 60);
    let data = place.path().join("restored");
    let output = command(&data, &["restore", text(&to)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("damaged at byte 56"), "{said}");
    assert!(said.contains("fsck --rebuild"), "{said}");
    // The snapshot of so small a store is one piece, so nothing of it can be read. A store made of
    // nothing would let go of all content.
    let said = refused(&data, 1, &["fsck", "--rebuild"]);
    assert!(said.contains("left out") && said.contains("nothing else can be read"), "{said}");
    assert_eq!(fs::read_dir(data.join("blobs/packs")).unwrap().count(), 1);
}

#[test]
fn content_of_which_nothing_is_known_is_not_taken_over_by_a_new_store() {
    let daemon = Daemon::start();
    daemon.user("u").store("f", "", b"content");
    let (_place, data) = stopped(daemon);
    for keeps_directories in [false, true] {
        for name in ["journal", "meta"] {
            let _ = fs::remove_dir_all(data.join(name));
            if keeps_directories {
                fs::create_dir(data.join(name)).unwrap();
            }
        }
        for again in [&["serve", "--listen", "127.0.0.1:0"][..], &["gc"], &["user", "list"]] {
            let said = refused(&data, 1, again);
            assert!(said.contains("journal/ and meta/ are lost"), "{said}");
        }
        let said = refused(&data, 1, &["fsck", "--rebuild"]);
        assert!(said.contains("has no journal"), "{said}");
    }
    assert_eq!(fs::read_dir(data.join("blobs/packs")).unwrap().count(), 1);
    // Without content, this could be a first start that was killed, so the next one succeeds.
    fs::remove_file(&files(&data.join("blobs/packs"), ".pack")[0]).unwrap();
    drop(Daemon::on(&data));
}

/// What `fsck` prints when it has findings and so ends with exit status 1.
fn found(data: &Path) -> String {
    let output = command(data, &["fsck"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn check_what_fsck_finds(user: &Client, data: &Path, finds: impl Fn() -> String) {
    let hash = |file: &Value| file["blake3"].as_str().unwrap().to_owned();
    let stored: Vec<_> = (1..=3).map(|n| user.store("f", "", &bytes(n, 100_000))).collect();
    let packed = user.store("small", "", &bytes(4, 1_000));
    assert_eq!(report(data, &["fsck"])["findings"], json!([]));
    fs::remove_file(blob(data, &stored[0])).unwrap();
    let short = fs::File::options().write(true).open(blob(data, &stored[1])).unwrap();
    short.set_len(99_999).unwrap();
    flip(&blob(data, &stored[2]), 5);
    let said = finds();
    let gone = format!("the content {}, of 1 files, is missing", hash(&stored[0]));
    assert!(said.contains(&gone), "{said}");
    assert!(said.contains(&format!("{}, of 1 files, is cut short", hash(&stored[1]))), "{said}");
    assert!(!said.contains(&hash(&stored[2])) && !said.contains(&hash(&packed)), "{said}");
    // Only reading finds the changed byte; from then on the damage is known.
    assert_eq!(command(data, &["scrub"]).status.code(), Some(1));
    let known = format!("{}, of 1 files, is known to be damaged", hash(&stored[2]));
    assert!(finds().contains(&known), "{}", finds());
    for pack in files(&data.join("blobs/packs"), ".pack") {
        fs::File::options().write(true).open(pack).unwrap().set_len(500).unwrap();
    }
    assert!(finds().contains(&format!("{}, of 1 files, is cut short", hash(&packed))));
}

#[test]
fn fsck_finds_content_that_is_gone_cut_short_or_known_to_be_damaged() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged");
    let data = daemon.dir();
    check_what_fsck_finds(&daemon.user("u"), &data, || found(&data));
    let (_place, data) = stopped(daemon);
    // A daemon that ends gives its pack the old length again, though not the bytes, so `fsck` may
    // miss the packed content.
    assert!(found(&data).matches("the content ").count() >= 3);
}

#[test]
fn fsck_goes_on_behind_what_it_cannot_look_at() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let stored: Vec<_> = (1..=3).map(|n| user.store("f", "", &bytes(n, 100_000))).collect();
    let packed = user.store("small", "", &bytes(4, 1_000));
    let data = daemon.dir();
    let [loops, gone] = [0, 1].map(|n| blob(&data, &stored[n]));
    let packs = files(&data.join("blobs/packs"), ".pack");
    for path in packs.iter().chain([&loops, &gone]) {
        fs::remove_file(path).unwrap();
    }
    for path in packs.iter().chain([&loops]) {
        symlink(path, path).unwrap();
    }
    let said = found(&data);
    for (file, fault) in [
        (&stored[0], "cannot be accessed: Too many levels of symbolic links"),
        (&packed, "cannot be accessed: Too many levels of symbolic links"),
        (&stored[1], "is missing"),
    ] {
        let hash = file["blake3"].as_str().unwrap();
        let fault = format!("the content {hash}, of 1 files, {fault}");
        assert!(said.contains(&fault), "{fault}: {said}");
    }
    assert_eq!(said.matches("the content ").count(), 3, "{said}");
}

#[test]
fn a_command_without_a_daemon_tells_itself_what_a_log_would() {
    let daemon = Daemon::start();
    let file = daemon.user("u").store("f", "", &bytes(1, 100_000));
    let (place, data) = stopped(daemon);
    let told = |arguments: &[&str]| {
        let output = command(&data, arguments);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(told(&["fsck"]), (true, String::new()));
    fs::remove_dir_all(data.join("meta")).unwrap();
    let (done, said) = told(&["user", "list"]);
    assert!(done && said.contains("rebuilt from the journal"), "{said}");
    let path = blob(&data, &file);
    let kept = place.path().join("kept");
    fs::rename(&path, &kept).unwrap();
    unreadable(&path);
    let (_, said) = told(&["backup", text(&place.path().join("backup"))]);
    assert!(said.contains(text(&path)) && !said.contains("daemon"), "{said}");
    fs::remove_file(&path).unwrap();
    let (_, said) = told(&["scrub"]);
    assert!(said.contains("damaged blob found by scrub") && !said.contains("daemon"), "{said}");
    fs::rename(&kept, &path).unwrap();
    fs::write(data.join("FORMAT"), "5\n").unwrap();
    let (done, said) = told(&["fsck"]);
    assert!(!done && said.contains("has a new format"), "{said}");
}

#[test]
fn a_command_says_that_it_began_a_store() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let began = format!("began a new store in {}", data.display());
    for is_first in [true, false] {
        let output = command(&data, &["token", "create", "x"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains(&began) == is_first, "{said}");
    }
}

#[test]
fn lost_keys_are_told() {
    let mut daemon = Daemon::start();
    daemon.user("u");
    assert!(!daemon.log().contains("keys/ had"));
    let keys = daemon.dir().join("keys");
    for (is_lost, told) in [(".pem", "no signing key"), ("link.key", "no link.key")] {
        daemon.expect_trouble(told);
        daemon.stop();
        for path in files(&keys, is_lost) {
            fs::remove_file(path).unwrap();
        }
        daemon.resume();
        assert_eq!(daemon.log().matches(told).count(), 1);
    }
    daemon.restart(Signal::TERM);
    assert_eq!(daemon.log().matches("keys/ had").count(), 2);
}

#[test]
fn a_start_needs_no_room_to_tell_where_it_listens() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    run(&data, &["token", "create", "x"]);
    // A directory is in the way, so the file `listen` cannot be written.
    fs::create_dir_all(data.join("listen/taken")).unwrap();
    let mut serve = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&data)])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serve.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("streamlined listens on ").map(str::to_owned);
    let status = url.map(|url| Client::new(&url, &[]).get("/readyz").status);
    serve.kill().unwrap();
    serve.wait().unwrap();
    assert_eq!(status, Some(200), "{line}");
}

/// To Prometheus, a counter that appears with the value 1 has not increased, so each counter that
/// an alert uses must be there before.
#[test]
fn what_alerts_look_at_is_shown_before_there_is_any() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring/alerts.yml");
    let rules = fs::read_to_string(rules).unwrap();
    let daemon = Daemon::start();
    let page = daemon.operator("GET", "/metrics");
    let counters = rules.split("streamlined_").skip(1).filter_map(|rule| {
        let end = rule.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, rest) = rule.split_at(end);
        let labels = rest.strip_prefix('{').and_then(|labels| labels.split_once('}'));
        name.ends_with("_total").then_some((name, labels.map_or("", |(labels, _)| labels)))
    });
    let mut checked = 0;
    for (name, labels) in counters.filter(|(name, _)| *name != "http_requests_total") {
        let (label, values) = labels.split_once('=').unwrap_or_default();
        for value in values.trim_matches(['~', '"']).split('|') {
            let label = format!("{label}=\"{value}\"");
            let is_one = |line: &&str| {
                let is_labelled = labels.is_empty() || line.contains(&label);
                line.starts_with(&format!("streamlined_{name}")) && is_labelled
            };
            assert!(page.lines().any(|line| is_one(&line)), "{name} {label}");
            checked += 1;
        }
    }
    assert!(checked >= 7, "{checked}");
}
