//! How uploads end: when they expire, and when their clients end them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Tus, begin_patch, content, is_taken_over, path};
use crate::{
    audit::lines,
    support::{
        Daemon, bytes, client::Answer, command::run, eventually, raw::answer_of, staged_files,
    },
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_upload_tells_when_it_expires_and_then_is_gone() {
    let daemon = Daemon::with(&[("upload_ttl", "5s")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    // The time is in whole seconds and counts from when the daemon took on the request.
    let told_within = |answer: &Answer, asked: SystemTime| {
        let told = answer.header("upload-expires");
        assert!(told.ends_with(" GMT"));
        let expires = httpdate::parse_http_date(told).unwrap();
        let (least, most) = (asked + 4 * SECOND, SystemTime::now() + 5 * SECOND);
        assert!((least..=most).contains(&expires), "{told}");
    };
    let asked = SystemTime::now();
    let created = tus.with("upload-length", "5").0.send("POST", "/v1/tus", "");
    told_within(&created, asked);
    let path = path(&created);
    let asked = SystemTime::now();
    let patched = tus.patch(&path, 0, b"he");
    told_within(&patched, asked);
    assert_eq!(tus.head(&path).header("upload-expires"), patched.header("upload-expires"));
    eventually(|| tus.head(&path).status == 404);
    tus.patch(&path, 2, b"llo").refused(404, "upload_not_found");
}

#[test]
fn a_terminated_upload_is_gone() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let path = tus.create(200_000);
    tus.append(&path, 0, &bytes(3, 100_000));
    assert_eq!(staged_files(&daemon).len(), 1);
    let terminated = tus.0.delete(&path);
    assert_eq!((terminated.status, terminated.header("tus-resumable")), (204, "1.0.0"));
    assert!(staged_files(&daemon).is_empty());
    assert_eq!(tus.head(&path).status, 404);
    tus.patch(&path, 0, b"x").refused(404, "upload_not_found");
    tus.0.delete(&path).refused(404, "upload_not_found");
    // Terminated by a POST that overrides its method, while another request writes.
    let path = tus.create(10);
    let socket = begin_patch(&daemon, &path, 0, 10, b"abc");
    let over = tus.with("x-http-method-override", "DELETE");
    assert_eq!(over.0.send("POST", &path, "").status, 204);
    assert!(is_taken_over(&answer_of(socket)));
    assert_eq!(tus.head(&path).status, 404);
}

#[test]
fn a_terminated_upload_that_is_whole_is_a_deleted_file() {
    let daemon = Daemon::start();
    let tus = Tus::of(&daemon.user("u"));
    let whole = || {
        let path = tus.create(2);
        let last = tus.patch(&path, 0, b"ok");
        assert!(!last.headers.contains_key("upload-expires"));
        (path, last)
    };
    let (path, last) = whole();
    // Only a caller who may delete the file can terminate its upload.
    run(&daemon.dir(), &["user", "set", "u", "--role", "analyst"]);
    tus.0.delete(&path).refused(403, "forbidden");
    run(&daemon.dir(), &["user", "set", "u", "--role", "researcher"]);
    let made = run(&daemon.dir(), &["token", "create", "s", "--scope", "upload"]);
    let uploads = daemon.anyone().header("x-service-token", made["token"].as_str().unwrap());
    Tus::of(&uploads).0.delete(&path).refused(403, "out_of_scope");
    Tus::of(&daemon.user("v")).0.delete(&path).refused(404, "upload_not_found");
    assert_eq!(content(&daemon.user("u"), &last), b"ok");
    assert_eq!(tus.0.delete(&path).status, 204);
    let list = daemon.user("u").get("/v1/files/all").ok();
    assert_eq!((&list["total_count"], tus.head(&path).status), (&json!(0), 410));
    tus.patch(&path, 2, b"").refused(410, "gone");
    tus.0.delete(&path).refused(410, "gone");
    // The audit log records the deletion of a file, not of an upload.
    let key = last.header("upload-key");
    let told = |line: &Value| line["event"] == "delete" && line["target"] == key;
    eventually(|| lines(&daemon.dir()).iter().any(told));
    assert_eq!(lines(&daemon.dir()).iter().filter(|line| told(line)).count(), 1);
}
