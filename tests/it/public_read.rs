//! `/storage/…` with and without public read.

use crate::support::{Daemon, client::encode};

#[test]
fn storage_needs_a_credential_unless_public_read_is_on() {
    let daemon = Daemon::start();
    let file = daemon.user("u").store("a b.txt", "d", b"hello");
    let path = format!("/{}", encode(file["key"].as_str().unwrap()));
    daemon.anyone().get(&path).refused(401, "unauthenticated");
    daemon.user("v").get(&path).refused(404, "file_not_found");
    let answer = daemon.user("u").get(&path);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(daemon.service().get(&path).status, 200);
}

#[test]
fn public_read_opens_storage_and_nothing_else() {
    let daemon = Daemon::with(&[("public_read", "true")]);
    let file = daemon.user("u").store("a b.txt", "d", b"hello");
    let key = encode(file["key"].as_str().unwrap());
    let anyone = daemon.anyone();
    let answer = anyone.get(&format!("/{key}"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(anyone.send("HEAD", &format!("/{key}"), "").header("content-length"), "5");
    anyone
        .header("x-service-token", "wrong")
        .get(&format!("/{key}"))
        .refused(401, "unauthenticated");
    for path in [
        "/v1/files/all?user_id=u",
        &format!("/v1/files/metadata/{key}"),
        &format!("/v1/files/content/{key}"),
    ] {
        anyone.get(path).refused(401, "unauthenticated");
    }
    anyone.get("/storage/u/nothing").refused(404, "file_not_found");
    anyone.get("/storage/u/").refused(404, "file_not_found");
}
