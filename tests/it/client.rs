//! The client in the binary: `put`, `ls`, `share`, `rm`. `get` has tests of its own.

use std::{fs, os::unix::net::UnixListener, path::Path, process::Command};

use serde_json::json;

use crate::support::{
    Daemon, bytes,
    daemon::{BINARY, TOKEN},
    sha256,
};

/// A command of the client in a directory.
pub fn command(place: &Path, server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(place).env_clear();
    command.env("STREAMLINED_TOKEN", TOKEN).env("STREAMLINED_SERVER", server);
    command
}

/// Runs a command, which must succeed, and returns what it printed.
fn run(daemon: &Daemon, place: &Path, arguments: &[&str]) -> String {
    let mut command = command(place, daemon.url(), arguments);
    let output = command.args(["--user", "u"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn files_go_there_and_back() {
    let daemon = Daemon::start();
    let place = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| run(&daemon, place.path(), arguments);
    let (small, large) = (bytes(1, 5000), bytes(2, 20 << 20));
    fs::write(place.path().join("ü #1.txt"), &small).unwrap();
    fs::write(place.path().join("large.bin"), &large).unwrap();
    fs::write(place.path().join("empty"), b"").unwrap();
    let keys = [
        run(&["put", "ü #1.txt", "--folder", "a/b"]),
        run(&["put", "large.bin", "--folder", "a", "--name", "renamed", "--mime", "image/png"]),
        run(&["put", "empty"]),
    ];
    assert!(keys[0].starts_with("storage/u/a/b/") && keys[0].ends_with("_ü _1.txt"), "{keys:?}");
    let user = daemon.user("u");
    assert_eq!(user.content(&keys[0]).body, small);
    assert_eq!(user.content(&keys[0]).header("content-type"), "text/plain");
    assert_eq!(user.content(&keys[1]).body, large);
    assert_eq!(user.content(&keys[1]).header("content-type"), "image/png");
    assert_eq!(user.content(&keys[2]).body, b"");
    let listed = run(&["ls", "a"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains(&keys[0]) && listed.contains("20971520"), "{listed}");
    assert_eq!(run(&["ls", "--json"]).lines().count(), 3);
    let link = run(&["share", &keys[1], "--ttl", "60s", "--attachment"]);
    let shared = daemon.anyone().get(&link);
    assert!(shared.body == large && shared.header("content-disposition").starts_with("attachment"));
    assert_eq!(run(&["rm", &keys[0], &keys[2]]).lines().count(), 2);
    assert_eq!(run(&["ls"]).lines().count(), 1);
    // `rm` refuses the id of an upload, because a DELETE of that path would abort the upload.
    let open = user.init("f", 1);
    let refused = |command: &mut Command| {
        let output = command.args(["--user", "u"]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        told
    };
    let told = refused(&mut command(place.path(), daemon.url(), &["rm", &open]));
    assert!(told.contains("is not a key: keys begin with storage/"), "{told}");
    user.get(&format!("/v1/files/{open}")).ok();
    // A server URL without a scheme, a server that does not answer and an output that cannot be
    // written are each reported.
    let told = refused(&mut command(place.path(), "127.0.0.1:1", &["ls"]));
    assert!(told.contains("a URL begins with http://"), "{told}");
    let told = refused(&mut command(place.path(), "http://127.0.0.1:1", &["ls"]));
    assert!(told.contains("no answer from http://127.0.0.1:1/v1/files/all"), "{told}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    refused(command(place.path(), daemon.url(), &["share", &keys[1]]).stdout(full));
    // These folder names also occur in the paths of signed URLs, to which the client sends no
    // token.
    for folder in ["get", "a/batch-download/b"] {
        let key = run(&["put", "ü #1.txt", "--folder", folder]);
        run(&["get", &key, "-o", "back"]);
        assert_eq!(fs::read(place.path().join("back")).unwrap(), small);
        run(&["rm", &key]);
        fs::remove_file(place.path().join("back")).unwrap();
    }
}

#[test]
fn what_is_wrong_is_told_in_words_of_the_command_line() {
    let daemon = Daemon::start();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("f"), b"x").unwrap();
    fs::write(place.path().join("all"), format!("Service Name: s\nToken:\n{TOKEN}\n")).unwrap();
    UnixListener::bind(place.path().join("socket")).unwrap();
    let told = |status: i32, arguments: &[&str]| {
        let output = command(place.path(), daemon.url(), arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    };
    for (status, arguments, wanted) in [
        (1, &["ls"][..], "name the user that it acts for with --user"),
        (1, &["put", "f"], "name the user that it acts for with --user"),
        (1, &["ls", "--token-file", "all"], "token file: all: must hold a token and nothing else"),
        (1, &["ls", "--token-file", "/no/such"], "token file: /no/such: "),
        (1, &["put", "."], ".: is a directory"),
        (1, &["put", "socket"], "socket: is not a regular file"),
        (1, &["put", "/no/such"], "/no/such: No such file"),
        (2, &["put", "f", "--mime", "a\nb"], "media type"),
        (1, &["put", "f", "--mime", "nonsense", "--user", "u"], "media type"),
    ] {
        let said = told(status, arguments);
        assert!(said.contains(wanted) && !said.contains("valid URL"), "{arguments:?}: {said}");
    }
}

#[test]
fn an_upload_that_broke_goes_on_and_one_of_another_file_stays_its_own() {
    let daemon = Daemon::start();
    let place = tempfile::tempdir().unwrap();
    let content = bytes(3, 20 << 20);
    fs::write(place.path().join("f.bin"), &content).unwrap();
    let user = daemon.user("u");
    for is_same in [true, false] {
        let mut theirs = content.clone();
        theirs[7] ^= u8::from(!is_same);
        let init = json!({"mode": "chunked", "folder": "d", "files": [
            {"name": "f.bin", "size": theirs.len(), "sha256": sha256(&theirs)}]});
        let opened = user.post("/v1/files/init", init).ok();
        let id = opened["uploadId"].as_str().unwrap();
        let size = usize::try_from(opened["partSize"].as_u64().unwrap()).unwrap();
        let send = |number: u64| {
            let part = theirs.chunks(size).nth(usize::try_from(number).unwrap() - 1).unwrap();
            user.part(id, number, part).ok();
        };
        send(2);
        let key = run(&daemon, place.path(), &["put", "f.bin", "--folder", "d"]);
        assert_eq!(user.content(&key).body, content);
        let sent = format!("/v1/files/{id}/parts/");
        let here = daemon.log().matches(&sent).count();
        assert_eq!(here, if is_same { 2 } else { 0 }, "what was there was sent again");
        if !is_same {
            // The client that began the other upload can still continue it.
            send(1);
            send(3);
            let file = user.complete(id).ok();
            assert_eq!(file["sha256"], sha256(&theirs));
        }
        assert_eq!(user.get("/v1/files/uploads").ok()["uploads"], json!([]));
        user.delete(&format!("/v1/files/{key}")).ok();
    }
}

#[test]
fn what_its_user_has_is_not_sent_again() {
    let daemon = Daemon::start();
    let place = tempfile::tempdir().unwrap();
    let content = bytes(3, 9 << 20);
    fs::write(place.path().join("f.bin"), &content).unwrap();
    run(&daemon, place.path(), &["put", "f.bin"]);
    let sent = || daemon.log().matches("/parts/{partNumber}").count();
    assert_eq!(sent(), 2);
    let key = run(&daemon, place.path(), &["put", "f.bin", "--name", "again"]);
    assert_eq!(sent(), 2);
    assert!(daemon.user("u").content(&key).body == content);
}
