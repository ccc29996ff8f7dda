//! What is kept when a client or the daemon goes away: acknowledged bytes, and those of cut pieces.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{OFFSET_TYPE, Tus, begin_patch, content, is_taken_over};
use crate::support::{
    Daemon, bytes, daemon::TOKEN, eventually, harm::damage, is_received, patched, raw::answer_of,
};

#[test]
fn what_a_vanished_client_sent_is_kept() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(5, 1_000_000);
    let path = tus.create(content_.len());
    // The socket is closed in the middle of a PATCH, once of a large and once of a small piece.
    for (begin, end) in [(0, 400_000), (400_000, 400_100)] {
        let ended = patched(&daemon) + 1;
        drop(begin_patch(&daemon, &path, begin, content_.len() - begin, &content_[begin..end]));
        eventually(|| patched(&daemon) == ended);
        assert_eq!(tus.offset(&path), end);
    }
    // A client that stops sending is told so, and what it sent is kept, too.
    let rest = content_.len() - 400_100;
    let socket = begin_patch(&daemon, &path, 400_100, rest, &content_[400_100..500_000]);
    assert!(answer_of(socket).starts_with("HTTP/1.1 408"));
    assert_eq!(tus.offset(&path), 500_000);
    let last = tus.patch(&path, 500_000, &content_[500_000..]);
    assert_eq!(content(&user, &last), content_);
}

#[test]
fn what_came_over_http_2_is_kept_when_the_client_is_killed() {
    let daemon = Daemon::start();
    let tus = Tus::of(&daemon.user("u"));
    let path = tus.create(4_000_000);
    let content = daemon.dir().join("content");
    std::fs::write(&content, bytes(10, 4_000_000)).unwrap();
    let mut curl = Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "--limit-rate", "200k", "-X", "PATCH", "-T"])
        .arg(&content)
        .args(["-H", "tus-resumable: 1.0.0", "-H", "upload-offset: 0"])
        .args(["-H", &format!("content-type: {OFFSET_TYPE}")])
        .args(["-H", &format!("x-service-token: {TOKEN}")])
        .arg(format!("{}{path}", daemon.url()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    is_received(&daemon, 0);
    curl.kill().unwrap();
    curl.wait().unwrap();
    eventually(|| tus.offset(&path) > 0);
    assert!(tus.offset(&path) < 4_000_000);
}

#[test]
fn a_newer_request_makes_a_hanging_one_let_go() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(6, 300_000);
    let path = tus.create(content_.len());
    let hanging = begin_patch(&daemon, &path, 0, content_.len(), &content_[..100_000]);
    is_received(&daemon, 0);
    // The client of that request is alive, only slow. A HEAD learns how much arrived.
    let at = tus.offset(&path);
    assert!((1..=100_000).contains(&at), "{at}");
    assert!(is_taken_over(&answer_of(hanging)));
    // A PATCH takes over from a request that has sent nothing yet.
    let hanging = begin_patch(&daemon, &path, at, content_.len() - at, b"");
    let last = tus.patch(&path, at, &content_[at..]);
    assert_eq!(content(&user, &last), content_);
    assert!(is_taken_over(&answer_of(hanging)));
}

#[test]
fn acknowledged_bytes_survive_a_kill_and_the_upload_goes_on() {
    let mut daemon = Daemon::start();
    let content_ = bytes(8, 600_000);
    let path = {
        let tus = Tus::of(&daemon.user("u"));
        let path = tus.create(content_.len());
        tus.append(&path, 0, &content_[..100]);
        tus.append(&path, 100, &content_[100..300_000]);
        path
    };
    let hanging = begin_patch(&daemon, &path, 300_000, 300_000, &content_[300_000..500_000]);
    is_received(&daemon, 300_000);
    daemon.restart(Signal::KILL);
    drop(hanging);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    assert_eq!(tus.offset(&path), 300_000);
    let last = tus.patch(&path, 300_000, &content_[300_000..]);
    let key = last.header("upload-key").to_owned();
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    let head = Tus::of(&user).head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-key")), ("600000", &*key));
    assert_eq!(content(&user, &head), content_);
}

#[test]
fn a_stop_keeps_what_came() {
    let mut daemon = Daemon::with(&[("drain_timeout", "1s")]);
    daemon.expect_trouble("did not finish in time and were cut");
    let path = Tus::of(&daemon.user("u")).create(600_000);
    let hanging = begin_patch(&daemon, &path, 0, 600_000, &bytes(9, 200_000));
    is_received(&daemon, 0);
    daemon.restart(Signal::TERM);
    drop(hanging);
    let offset = Tus::of(&daemon.user("u")).offset(&path);
    assert!((1..=200_000).contains(&offset), "{offset}");
}

/// Bytes behind a damaged piece are of no use to a client that sends in order.
#[test]
fn an_upload_goes_on_where_damage_begins() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged parts");
    let content_ = bytes(11, 600_000);
    for damaged in [0, 200_000] {
        let path = {
            let tus = Tus::of(&daemon.user("u"));
            let path = tus.create(content_.len());
            tus.append(&path, 0, &content_[..200_000]);
            tus.append(&path, 200_000, &content_[200_000..400_000]);
            path
        };
        damage(&daemon.dir().join("staging"), &content_[damaged..damaged + 200_000]);
        // Bytes that were hashed on arrival are not read again, unless their hash was forgotten, as
        // in a restart.
        daemon.restart(Signal::TERM);
        let user = daemon.user("u");
        let tus = Tus::of(&user);
        tus.patch(&path, 400_000, &content_[400_000..]).refused(409, "parts_missing");
        assert_eq!(tus.offset(&path), damaged);
        tus.append(&path, damaged, &content_[damaged..500_000]);
        let last = tus.patch(&path, 500_000, &content_[500_000..]);
        assert_eq!(content(&user, &last), content_);
        user.delete(&format!("/v1/files/{}", last.header("upload-key"))).ok();
    }
}
