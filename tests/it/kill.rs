//! What was acknowledged is there after `kill -9`.

use std::{
    fs,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Daemon, begin_put, bytes, eventually, settle, sha256};

#[test]
fn acknowledged_files_parts_and_deletions_survive() {
    let mut daemon = Daemon::start();
    let user = daemon.user("u");
    let mut files = Vec::new();
    for size in [0, 1, 5000, 200_000] {
        let content = bytes(size as u64, size);
        files.push((user.store("f", "a/b", &content), content));
    }
    let deleted = user.store("gone", "a", b"x");
    user.delete_file(&deleted).ok();
    let content = bytes(9, 300_000);
    let id = user.init("parts", content.len());
    user.part(&id, 1, &content[..100]).ok();
    user.part(&id, 2, &content[100..250_000]).ok();
    let done = user.init("done", 2);
    user.part(&done, 1, b"ok").ok();
    let completed = user.complete(&done).ok();

    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        daemon.restart(signal);
        let user = daemon.user("u");
        let list = user.get("/v1/files/all").ok();
        assert_eq!(list["total_count"], 5);
        assert_eq!(list["total_size"], 205_003);
        assert_eq!(user.get("/v1/files/all?folder=a").ok()["total_count"], 4);
        for (file, content) in &files {
            let key = file["key"].as_str().unwrap();
            assert_eq!(user.content(key).body, *content);
            let mut metadata = user.get(&format!("/v1/files/metadata/{key}")).ok();
            metadata.as_object_mut().unwrap().remove("meta");
            assert_eq!(metadata, *file);
        }
        let received = user.get(&format!("/v1/files/{id}")).ok()["received"].clone();
        let sizes = json!([{"partNumber": 1, "size": 100}, {"partNumber": 2, "size": 249_900}]);
        assert_eq!(received, sizes);
        assert_eq!(user.complete(&done).ok(), completed);
    }
    let user = daemon.user("u");
    user.part(&id, 3, &content[250_000..]).ok();
    let file = user.complete(&id).ok();
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
}

#[test]
fn a_commit_is_seen_when_it_is_durable_and_not_before() {
    let place = tempfile::tempdir().unwrap();
    let armed = place.path().join("armed");
    let environment = [
        ("SLT_HANG_POINT", "commit: journal durable 1"),
        ("SLT_FAULT_AFTER", armed.to_str().unwrap()),
    ];
    let mut daemon = Daemon::under(&[], &environment);
    let user = daemon.user("u");
    user.store("before", "", b"x");
    settle(&daemon);
    fs::write(&armed, "").unwrap();
    let mut hanging = begin_put(&daemon);
    hanging.write_all(b"hello").unwrap();
    eventually(|| daemon.log().contains("hangs at a fault point"));
    assert_eq!(user.names(""), ["before"]);
    fs::remove_file(&armed).unwrap();
    daemon.restart(Signal::KILL);
    assert_eq!(user.moved(&daemon).names(""), ["f", "before"]);
}

#[test]
fn nothing_is_lost_or_halved_under_load() {
    let mut daemon = Daemon::start();
    let mut stored: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..6 {
        let acknowledged = AtomicUsize::new(0);
        let news: Vec<(String, Vec<u8>)> = std::thread::scope(|scope| {
            let (daemon, acknowledged) = (&daemon, &acknowledged);
            let threads: Vec<_> = (0..4)
                .map(|worker: u64| {
                    scope.spawn(move || {
                        let client = daemon.service();
                        let mut stored = Vec::new();
                        for n in 0.. {
                            let size = if n % 5 == 4 { 150_000 } else { 3000 };
                            let content = bytes((round as u64) << 32 | worker << 16 | n, size);
                            let path = "/v1/files/content?user_id=u&filename=f";
                            let Some(key) = client.try_put(path, &content) else { break };
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                            stored.push((key, content));
                        }
                        stored
                    })
                })
                .collect();
            eventually(|| acknowledged.load(Ordering::SeqCst) >= 20 + 7 * round);
            daemon.signal(Signal::KILL);
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        stored.extend(news);
        daemon.restart(Signal::KILL);
        let service = daemon.service();
        for (key, content) in &stored {
            assert_eq!(service.content(key).body, *content);
        }
        let list = service.get("/v1/files/all?user_id=u").ok();
        let files = list["files"].as_array().unwrap();
        let size: u64 = files.iter().map(|file| file["size"].as_u64().unwrap()).sum();
        assert_eq!(list["total_count"], files.len());
        assert_eq!(list["total_size"], size);
        // What was not acknowledged is there as a whole or not at all.
        for file in files {
            let key = file["key"].as_str().unwrap();
            let content = service.content(key).body;
            assert!(matches!(content.len(), 3_000 | 150_000), "{file}");
            let known = service.get(&format!("/v1/files/metadata/{key}")).ok();
            assert_eq!(known["sha256"], sha256(&content));
        }
    }
}
