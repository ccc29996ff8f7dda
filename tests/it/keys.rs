//! Signing keys: rotated, imported, retired.

use std::{fs, path::Path, process::Command};

use serde_json::json;
use streamlined::{
    auth::{jwt, keyring::KeyRing},
    model::time::UnixMillis,
    sys::clock::{Clock, SystemClock},
};

use crate::support::{
    Client, Daemon,
    command::{refused, run},
    daemon::BINARY,
    eventually,
};

fn published(daemon: &Daemon) -> usize {
    let keys = daemon.anyone().get("/.well-known/jwks.json").ok();
    keys["keys"].as_array().unwrap().len()
}

/// The id of the key that signed a user's new token.
fn signer(daemon: &Daemon) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let answer = daemon.service().post("/v1/files/generate-token?user_id=u", "").ok();
    let header = answer["token"].as_str().unwrap().split('.').next().unwrap().to_owned();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

fn is_good(user: &Client, daemon: &Daemon) -> bool {
    user.moved(daemon).get("/v1/files/all").status == 200
}

#[test]
fn a_rotation_publishes_first_signs_later_and_breaks_no_token() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let (old, user) = (signer(&daemon), daemon.user("u"));
    let later = run(&dir, &["key", "rotate", "--after", "1h"]);
    assert_eq!((published(&daemon), signer(&daemon)), (2, old.clone()));
    let now = run(&dir, &["key", "rotate", "--after", "0"]);
    let now = now["kid"].as_str().unwrap().to_owned();
    assert_eq!((published(&daemon), signer(&daemon)), (3, now.clone()), "before the one planned");
    assert!(is_good(&user, &daemon));
    let listed = run(&dir, &["key", "list"]);
    let kids: Vec<_> = listed.as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(kids, [&later["kid"], &json!(now), &json!(old)]);
    daemon.stop();
    assert_eq!(run(&dir, &["key", "list"]), listed);
    daemon.resume();
    assert_eq!((published(&daemon), signer(&daemon)), (3, now));
    assert!(is_good(&user, &daemon));
    // Removing the file of a leaked key ends every token that the key signed.
    fs::remove_file(dir.join(format!("keys/{old}.pem"))).unwrap();
    run(&dir, &["key", "list"]);
    assert!(!is_good(&user, &daemon));
    assert!(is_good(&daemon.user("u"), &daemon));
}

#[test]
fn a_new_key_signs_when_its_time_has_come_without_a_restart() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let before = SystemClock.now();
    let made = run(&daemon.dir(), &["key", "rotate", "--after", "2s"]);
    eventually(|| signer(&daemon) == made["kid"].as_str().unwrap());
    // The times of keys are in whole seconds.
    assert!(SystemClock.now().seconds() >= before.seconds() + 2, "it signed before its time");
    assert!(is_good(&user, &daemon));
}

#[test]
fn tokens_of_an_older_server_are_good_once_its_key_is_imported() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let elsewhere = tempfile::tempdir().unwrap();
    let ring = KeyRing::open(elsewhere.path()).unwrap();
    let now = SystemClock.now();
    // As older servers issue tokens: without `jti` and without issuer.
    let claims = json!({"sub": "old", "roles": "service", "iat": now.seconds() - 9,
        "exp": now.seconds() + 999});
    let token = jwt::sign(&claims, &ring, UnixMillis(now.0), now.seconds() + 999).unwrap();
    let old = daemon.bearer(&token);
    old.get("/v1/files/all?user_id=u").refused(401, "unauthenticated");
    let pem = fs::read_dir(elsewhere.path()).unwrap().map(|file| file.unwrap().path());
    let pem = pem.into_iter().find(|path| path.extension().is_some_and(|e| e == "pem")).unwrap();
    let before = signer(&daemon);
    let imported = run(&dir, &["key", "import", pem.to_str().unwrap()]);
    old.get("/v1/files/all?user_id=u").ok();
    assert_eq!(signer(&daemon), before, "it signs nothing new");
    assert!(run(&dir, &["key", "list"]).to_string().contains(imported["kid"].as_str().unwrap()));
    let again = refused(&dir, 1, &["key", "import", pem.to_str().unwrap()]);
    assert!(again.contains("already in the key ring"));
    // Nor is a key imported that an operator put there under another file name.
    let keys = dir.join("keys");
    let kid = imported["kid"].as_str().unwrap();
    fs::rename(keys.join(format!("{kid}.pem")), keys.join("older-server.pem")).unwrap();
    let again = refused(&dir, 1, &["key", "import", pem.to_str().unwrap()]);
    assert!(again.contains("already in the key ring"));
    let other = elsewhere.path().join("schedule.json");
    assert!(refused(&dir, 1, &["key", "import", other.to_str().unwrap()]).contains("PEM"));
    assert!(refused(&dir, 1, &["key", "import", "/nonexistent"]).contains("/nonexistent"));
    // Revoking the tokens of the service ends these tokens, too, although they have no `jti`.
    run(&dir, &["token", "revoke", "--service", "old"]);
    old.get("/v1/files/all?user_id=u").refused(401, "unauthenticated");
}

/// The command dies at each point of a rotation, as by `kill -9`. What is left is a key ring that
/// works and can be rotated again.
#[test]
fn a_rotation_that_dies_anywhere_leaves_a_ring_that_works() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let user = daemon.user("u");
    daemon.stop();
    let rotate = |point: &str| {
        let mut command = Command::new(BINARY);
        command.args(["key", "rotate", "--after", "0", "--data-dir"]).arg(&dir).env_clear();
        command.env("SLT_FAULT_POINT", point).output().unwrap().status
    };
    let pems = |dir: &Path| {
        let files = fs::read_dir(dir.join("keys")).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "pem")).count()
    };
    for (point, wanted) in
        [("keys: before the schedule 1", 1), ("keys: scheduled 1", 1), ("keys: published 1", 2)]
    {
        assert!(!rotate(point).success(), "{point} was passed");
        assert_eq!(pems(&dir), wanted, "{point}");
        daemon.resume();
        assert!(is_good(&user, &daemon), "{point}");
        signer(&daemon);
        daemon.stop();
    }
    let made = run(&dir, &["key", "rotate", "--after", "0"]);
    daemon.resume();
    eventually(|| signer(&daemon) == made["kid"].as_str().unwrap());
    assert!(is_good(&user, &daemon));
    assert_eq!(published(&daemon), 3);
}

/// The daemon dies after the key is removed and before its entry is; the next start goes on from
/// there.
#[test]
fn a_retirement_that_dies_half_way_is_finished_by_the_next() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let (old, before) = (signer(&daemon), daemon.user("u"));
    daemon.stop();
    run(&dir, &["key", "rotate", "--after", "0"]);
    let path = dir.join("keys/schedule.json");
    let mut schedule: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let entry = schedule["keys"].as_array_mut().unwrap().iter_mut();
    entry.into_iter().find(|entry| entry["kid"] == *old).unwrap()["last_expiry"] = json!(1);
    fs::write(&path, schedule.to_string()).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&dir).env_clear();
    let died = command.env("SLT_FAULT_POINT", "operator: key retired 1").output().unwrap();
    assert!(!died.status.success());
    assert!(!dir.join(format!("keys/{old}.pem")).exists());
    assert!(fs::read_to_string(&path).unwrap().contains(&old));
    daemon.resume();
    assert_ne!(signer(&daemon), old);
    assert!(!is_good(&before, &daemon), "its time was over");
    assert!(is_good(&daemon.user("u"), &daemon));
    run(&dir, &["key", "rotate", "--after", "0"]);
    assert_eq!(published(&daemon), 2);
}

#[test]
fn links_outlive_the_key_that_signed_them() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let file = daemon.user("u").store("f", "", b"linked");
    let sign = |daemon: &Daemon| {
        let path = format!("/v1/files/signed-url?key={}", file["key"].as_str().unwrap());
        let answer = daemon.service().get(&path).ok();
        answer["url"].as_str().unwrap().split_once("/get/").unwrap().1.to_owned()
    };
    let fetch = |daemon: &Daemon, link: &str| {
        daemon.anyone().get(&format!("/get/{link}")).body == b"linked"
    };
    let mut links = vec![sign(&daemon)];
    run(&dir, &["key", "rotate", "--links"]);
    links.push(sign(&daemon));
    daemon.stop();
    let mut command = Command::new(BINARY);
    command.args(["key", "rotate", "--links", "--data-dir"]).arg(&dir).env_clear();
    let died = command.env("SLT_FAULT_POINT", "operator: link key kept 1").output().unwrap();
    assert!(!died.status.success());
    run(&dir, &["key", "rotate", "--links"]);
    daemon.resume();
    links.push(sign(&daemon));
    for link in &links {
        assert!(fetch(&daemon, link), "{link}");
    }
}
