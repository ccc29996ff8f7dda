//! Large parts, sent in order, in windows and backwards, are written at their final offsets as they
//! arrive.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    thread,
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Daemon, bytes, connect, daemon::TOKEN};

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

fn assemblies(daemon: &Daemon) -> Vec<PathBuf> {
    let staged = fs::read_dir(daemon.dir().join("staging")).unwrap();
    staged.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Completes the upload and checks that the one file in which all its parts lie becomes the blob.
fn complete(daemon: &Daemon, user: &Client, id: &str, content: &[u8]) {
    let [assembly] = &assemblies(daemon)[..] else { panic!("{:?}", assemblies(daemon)) };
    let inode = fs::metadata(assembly).unwrap().ino();
    let file = user.complete(id).ok();
    assert!(user.content(file["key"].as_str().unwrap()).body == content);
    let hash = file["blake3"].as_str().unwrap();
    let mut blobs = fs::read_dir(daemon.dir().join("blobs").join(&hash[..2])).unwrap();
    let blob = blobs.next().unwrap().unwrap();
    assert!(blobs.next().is_none());
    assert_eq!(blob.metadata().unwrap().ino(), inode);
    assert_eq!(assemblies(daemon), [] as [PathBuf; 0]);
    user.delete(&format!("/v1/files/{}", file["key"].as_str().unwrap())).ok();
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

/// Begins a part and sends none of its bytes yet; the daemon's handler waits for them.
fn begin(daemon: &Daemon, id: &str, number: usize, bytes: usize) -> TcpStream {
    let mut socket = connect(daemon);
    let head = format!(
        "PUT /v1/files/{id}/parts/{number} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\
         content-length: {bytes}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    socket
}

fn end(mut socket: TcpStream, rest: &[u8]) {
    socket.write_all(rest).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
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
        let socket = begin(&daemon, &id, number, pieces[number].len());
        begun.push((number, socket));
    }
    for (number, socket) in begun {
        end(socket, pieces[number]);
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
    assert_eq!(assemblies(&daemon).len(), 1);
    user.delete(&format!("/v1/files/{id}")).ok();
    assert_eq!(assemblies(&daemon), [] as [PathBuf; 0]);
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
    assert_eq!(assemblies(&daemon), [] as [PathBuf; 0]);
}
