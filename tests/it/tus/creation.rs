//! How uploads begin: with or without a length, with or without bytes, and at which URL.

use std::io::Write;

use serde_json::json;

use super::{OFFSET_TYPE, Tus, content, id, path, piece_at};
use crate::support::{Daemon, base64, eventually, raw::begin_awaited};

#[test]
fn an_empty_file_is_there_at_once() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let created = tus.with("upload-length", "0").0.send("POST", "/v1/tus", "");
    assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
    assert_eq!(content(&user, &created), b"");
    assert_eq!(tus.offset(&path(&created)), 0);
}

#[test]
fn bytes_may_come_with_the_creation() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user).with("content-type", OFFSET_TYPE);
    let create =
        |size: &str, body: &str| tus.with("upload-length", size).0.send("POST", "/v1/tus", body);
    let whole = create("5", "hello");
    assert_eq!((whole.status, whole.header("upload-offset")), (201, "5"));
    assert_eq!(content(&user, &whole), b"hello");
    let begun = create("8", "hello");
    assert_eq!((begun.status, begun.header("upload-offset")), (201, "5"));
    let tus = Tus::of(&user);
    assert_eq!(content(&user, &tus.patch(&path(&begun), 5, b"you")), b"helloyou");
    create("4", "hello").refused(413, "too_large");
    // With a length that comes later; then with a body of another type, which is ignored.
    let deferred =
        Tus::of(&user).with("content-type", OFFSET_TYPE).with("upload-defer-length", "1");
    let begun = deferred.0.send("POST", "/v1/tus", "hello");
    assert_eq!((begun.status, begun.header("upload-offset")), (201, "5"));
    let last = Tus::of(&user).with("upload-length", "6").patch(&path(&begun), 5, b"!");
    assert_eq!(content(&user, &last), b"hello!");
    let other = Tus::of(&user).with("content-type", "text/plain").with("upload-length", "5");
    let created = other.0.send("POST", "/v1/tus", "hello");
    assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
    let tus = Tus::of(&user);
    assert_eq!(tus.0.delete(&path(&created)).status, 204);
    let wrong = format!("sha256 {}", base64(&[0; 32]));
    let summed = Tus(tus.0.clone()).with("content-type", OFFSET_TYPE).with("upload-length", "9");
    let refused = summed.with("upload-checksum", &wrong).0.send("POST", "/v1/tus", "hello");
    refused.refused(460, "checksum_mismatch");
    assert_eq!(user.get("/v1/files/uploads").ok(), json!({"uploads": []}));
}

#[test]
fn a_length_may_come_later_and_the_quota_grows_with_the_bytes() {
    let daemon = Daemon::with(&[("quota_bytes", "1000"), ("file_bytes_max", "900")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let deferred = tus.with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    assert_eq!(deferred.status, 201);
    let path = path(&deferred);
    let head = tus.head(&path);
    assert_eq!(head.header("upload-defer-length"), "1");
    assert!(head.headers.get("upload-length").is_none());
    assert_eq!(tus.append(&path, 0, &[1; 300]), 300);
    let status = format!("/v1/files/{}", id(&path));
    assert_eq!(user.get(&status).ok()["size"], json!(null));
    // 300 of 1000 are taken: 700 more fit, 701 do not.
    let store = |size| user.put("/v1/files/content?filename=f", vec![0; size]);
    store(701).refused(413, "quota_exceeded");
    assert_eq!(store(500).status, 201);
    tus.patch(&path, 300, &[1; 201]).refused(413, "quota_exceeded");
    tus.with("transfer-encoding", "chunked")
        .patch(&path, 300, &[1; 201])
        .refused(413, "quota_exceeded");
    let length = |size: &str, offset, body: &[u8]| {
        tus.with("upload-length", size).patch(&path, offset, body)
    };
    length("299", 300, b"").refused(400, "inconsistent_upload_length");
    length("901", 300, b"").refused(413, "too_large");
    length("501", 300, b"").refused(413, "quota_exceeded");
    length("x", 300, b"").refused(400, "invalid_upload_length");
    assert_eq!(tus.head(&path).header("upload-defer-length"), "1");
    assert_eq!(length("500", 300, &[1; 100]).header("upload-offset"), "400");
    assert_eq!(tus.head(&path).header("upload-length"), "500");
    length("450", 400, b"").refused(400, "inconsistent_upload_length");
    let last = length("500", 400, &[1; 100]);
    assert_eq!(content(&user, &last), [1; 500]);
    // An upload whose length turns out to be that of the bytes that are there.
    let small = daemon.user("v");
    let deferred = Tus::of(&small).with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    let path = self::path(&deferred);
    Tus::of(&small).append(&path, 0, b"abc");
    let ended = Tus::of(&small).with("upload-length", "3").patch(&path, 3, b"");
    assert_eq!(content(&small, &ended), b"abc");
}

/// A refused request declares no length. A request that is cut does, even when none of its bytes
/// came.
#[test]
fn a_length_counts_when_the_bytes_that_it_comes_with_do() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let create = || path(&tus.with("upload-defer-length", "1").0.send("POST", "/v1/tus", ""));
    let is_open = |path: &str| {
        let head = tus.head(path);
        assert_eq!(head.header("upload-offset"), "0");
        assert_eq!(head.header("upload-defer-length"), "1");
    };
    let refused = create();
    let wrong = format!("sha256 {}", base64(&[0; 32]));
    let summed = tus.with("upload-length", "3").with("upload-checksum", &wrong);
    summed.patch(&refused, 0, b"abc").refused(460, "checksum_mismatch");
    is_open(&refused);
    let chunked = tus.with("transfer-encoding", "chunked");
    chunked.with("upload-length", "3").patch(&refused, 0, b"abcde").refused(413, "too_large");
    is_open(&refused);
    let last = tus.with("upload-length", "5").patch(&refused, 0, b"abcde");
    assert_eq!(content(&user, &last), b"abcde");

    for some in [&b""[..], b"ab"] {
        let path = create();
        let lines = format!("{}upload-length: 5\r\ncontent-length: 5\r\n", piece_at(0));
        let mut socket = begin_awaited(&daemon, &format!("PATCH {path}"), &lines);
        socket.write_all(some).unwrap();
        drop(socket);
        eventually(|| {
            tus.head(&path).headers.get("upload-length").is_some_and(|length| length == "5")
        });
        let offset = tus.offset(&path);
        let last = tus.patch(&path, offset, &b"abcde"[offset..]);
        assert_eq!(content(&user, &last), b"abcde");
    }
}

#[test]
fn locations_stand_behind_the_public_url() {
    let daemon = Daemon::with(&[("public_url", "https://files.example.com/store/")]);
    let created =
        Tus::of(&daemon.user("u")).with("upload-length", "1").0.send("POST", "/v1/tus/", "");
    let location = created.header("location");
    let id = location.strip_prefix("https://files.example.com/store/v1/tus/").unwrap();
    assert_eq!(id.len(), 32);
}
