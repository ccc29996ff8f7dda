//! `restore`: it is begun again after it was cut, it accepts what a cut backup left behind, and it
//! names what it cannot read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{
    Daemon, bytes,
    command::{command, refused, run, text},
    daemon::BINARY,
    eventually,
    harm::unreadable,
};

/// A directory, a backup in it, and the daemon of that backup, which holds one large and one small
/// file of `u`.
pub fn backed_up() -> (tempfile::TempDir, PathBuf, Daemon) {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    user.store("large", "a", &bytes(1, 100_000));
    user.store("small", "a", b"content");
    let place = tempfile::tempdir().unwrap();
    let backup = place.path().join("backup");
    assert!(command(&daemon.dir(), &["backup", text(&backup)]).status.success());
    (place, backup, daemon)
}

/// Leaves a backup as if the next one had been killed between its two renames.
pub fn kill_between_renames(backup: &Path) {
    fs::create_dir(backup.join("incoming")).unwrap();
    fs::rename(backup.join("journal"), backup.join("incoming/old")).unwrap();
}

/// A directory below the `blobs` of a backup that holds a blob as a file.
fn shelf(backup: &Path) -> PathBuf {
    let shelves = fs::read_dir(backup.join("blobs")).unwrap().map(|shelf| shelf.unwrap().path());
    let mut shelves = shelves.filter(|shelf| !shelf.ends_with("packs"));
    shelves.find(|shelf| fs::read_dir(shelf).unwrap().next().is_some()).unwrap()
}

/// Restores, and checks that the result holds what was stored.
fn restored(backup: &Path, data: &Path) {
    let output = command(data, &["restore", text(backup)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(run(data, &["user", "show", "u"])["files"], 2);
    assert!(data.join("FORMAT").exists() && !data.join("RESTORING").exists());
}

#[test]
fn one_that_was_cut_is_no_data_directory_and_is_begun_again() {
    let (place, backup, _daemon) = backed_up();
    let data = place.path().join("data");
    // A new file system at a mount point has this directory.
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let pipe = shelf(&backup).join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut cut = Command::new(BINARY)
        .args(["restore", text(&backup), "--data-dir", text(&data)])
        .env_clear()
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The restore is at the blobs. It waits at the pipe, or will soon.
    eventually(|| data.join("blobs").exists());
    assert!(refused(&data, 1, &["restore", text(&backup)]).contains("in use"));
    cut.kill().unwrap();
    cut.wait().unwrap();
    fs::remove_file(&pipe).unwrap();
    for command in [&["serve"][..], &["user", "list"], &["token", "create", "x"]] {
        let said = refused(&data, 1, command);
        assert!(said.contains("run the restore again"), "{command:?}: {said}");
    }
    restored(&backup, &data);
    assert!(refused(&data, 1, &["restore", text(&backup)]).contains("is a data directory already"));
    // There was no index before, so none was set aside.
    let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
    let kept = names.filter(|name| name.to_str().unwrap().starts_with("meta.")).count();
    assert_eq!(kept, 0);
}

#[test]
fn what_a_backup_left_that_was_killed_is_passed_over_and_put_right() {
    let (place, backup, daemon) = backed_up();
    let data = place.path().join("data");
    let half = shelf(&backup).join("half.tmp");
    fs::write(&half, b"half").unwrap();
    kill_between_renames(&backup);
    restored(&backup, &data);
    assert!(!data.join(half.strip_prefix(&backup).unwrap()).exists());
    assert!(command(&daemon.dir(), &["backup", text(&backup)]).status.success());
    assert!(!half.exists() && backup.join("journal").exists());
    fs::rename(backup.join("journal"), place.path().join("journal")).unwrap();
    let other = place.path().join("other");
    let said = refused(&other, 1, &["restore", text(&backup)]);
    assert!(said.contains("has no journal") && !other.exists(), "{said}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let (place, backup, _daemon) = backed_up();
    let path = shelf(&backup).join("unreadable");
    unreadable(&path);
    let said = refused(&place.path().join("data"), 1, &["restore", text(&backup)]);
    assert!(said.contains(text(&path)), "{said}");
}
