//! Large parts, sent in order, in windows and backwards, are written at their final offsets as they
//! arrive.

use std::{fs, io::Write, os::unix::fs::MetadataExt, thread};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, Daemon, bytes,
    harm::blob,
    raw::{answer_of, begin_awaited},
    staged_files,
};

const FULL: usize = 8 << 20;
const SIZE: usize = 2 * FULL + 100_000;

fn init(user: &Client) -> String {
    let init = json!({"mode": "chunked", "files": [{"name": "x", "size": SIZE}]});
    let opened = user.post("/v1/files/init", init).ok();
    assert_eq!((&opened["partSize"], &opened["parts"]), (&json!(FULL), &json!(3)));
    opened["uploadId"].as_str().unwrap().to_owned()
}

/// Sends part `number` of the content, counted from 1.
fn part(user: &Client, id: &str, number: usize, content: &[u8]) {
    let piece = content.chunks(FULL).nth(number - 1).unwrap();
    user.put(&format!("/v1/files/{id}/parts/{number}"), piece).ok();
}

/// Completes the upload and checks that the one file in which all its parts lie becomes the blob.
fn complete(daemon: &Daemon, user: &Client, id: &str, content: &[u8]) {
    let staged = staged_files(daemon);
    assert_eq!(staged.len(), 1, "{staged:?}");
    let inode = fs::metadata(&staged[0]).unwrap().ino();
    let file = user.complete(id).ok();
    assert!(user.content(file["key"].as_str().unwrap()).body == content);
    assert_eq!(fs::metadata(blob(&daemon.dir(), &file)).unwrap().ino(), inode);
    assert!(staged_files(daemon).is_empty());
    user.delete_file(&file).ok();
}

#[test]
fn parts_of_the_suggested_size_need_no_copy_in_any_order() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    // Also counted from 0. There the last part comes first, and its size shows how the parts are
    // counted.
    for (seed, order) in (0..).zip([[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 0], [2, 0, 1]]) {
        let content = bytes(seed, SIZE);
        let id = init(&user);
        for number in order {
            let first = usize::from(!order.contains(&0));
            let piece = content.chunks(FULL).nth(number - first).unwrap();
            user.put(&format!("/v1/files/{id}/parts/{number}"), piece).ok();
        }
        complete(&daemon, &user, &id, &content);
    }
    let content = bytes(4, SIZE);
    let id = init(&user);
    thread::scope(|scope| {
        for number in 1..=3 {
            let (user, id, content) = (daemon.user("u"), &id, &content);
            scope.spawn(move || part(&user, id, number, content));
        }
    });
    complete(&daemon, &user, &id, &content);
}

/// When part 1 begins, nothing shows yet that the parts are counted from 0: part 0 begins after it,
/// and all three arrive at the same time.
#[test]
fn parts_counted_from_0_need_no_copy_when_another_begins_first() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(7, SIZE);
    let id = init(&user);
    let pieces: Vec<_> = content.chunks(FULL).collect();
    let mut begun = Vec::new();
    for number in [1, 0, 2] {
        let put = format!("PUT /v1/files/{id}/parts/{number}");
        let length = pieces[number].len();
        let lines = format!("content-length: {length}\r\nconnection: close\r\n");
        begun.push((number, begin_awaited(&daemon, &put, &lines)));
    }
    for (number, mut socket) in begun {
        socket.write_all(pieces[number]).unwrap();
        let answer = answer_of(socket);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    complete(&daemon, &user, &id, &content);
}

#[test]
fn an_upload_that_is_given_up_leaves_nothing() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(1, SIZE);
    let id = init(&user);
    part(&user, &id, 2, &content);
    assert_eq!(staged_files(&daemon).len(), 1);
    user.delete(&format!("/v1/files/{id}")).ok();
    assert!(staged_files(&daemon).is_empty());
}

#[test]
fn what_was_acknowledged_stays_when_it_is_sent_again_and_over_a_kill() {
    let mut daemon = Daemon::start();
    let content = bytes(5, SIZE);
    let wrong = bytes(6, SIZE);
    let user = daemon.user("u");
    let id = init(&user);
    part(&user, &id, 1, &wrong);
    part(&user, &id, 2, &content);
    part(&user, &id, 1, &content);
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    part(&user, &id, 3, &wrong);
    part(&user, &id, 3, &content);
    let file = user.complete(&id).ok();
    assert!(user.content(file["key"].as_str().unwrap()).body == content);
    assert!(staged_files(&daemon).is_empty());
}
