//! `/storage/…` with and without public read.

use crate::support::{Daemon, client::encode, command::run};

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

#[test]
fn a_private_user_is_passed_by() {
    let daemon = Daemon::with(&[("public_read", "true")]);
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let path = |file: &serde_json::Value| format!("/{}", encode(file["key"].as_str().unwrap()));
    let (mine, theirs) = (path(&user.store("a", "", b"a")), path(&other.store("b", "", b"b")));
    let set = |private: &str| run(&daemon.dir(), &["user", "set", "u", private]);
    assert_eq!(set("--private")["private"], true);
    daemon.anyone().get(&mine).refused(404, "file_not_found");
    other.get(&mine).refused(404, "file_not_found");
    let own = user.get(&mine);
    assert_eq!((own.status, own.header("cache-control")), (200, "private, no-cache"));
    assert_eq!(daemon.anyone().get(&theirs).status, 200);
    assert_eq!(set("--private=false")["private"], false);
    assert_eq!(daemon.anyone().get(&mine).status, 200);
}
