//! Uploads that are cut leave nothing behind but what their protocol keeps.

use std::{
    fs::DirEntry,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::json;

use crate::support::{
    Client, Daemon, begin_put, bytes,
    command::run,
    connect, eventually,
    raw::{answer_of, begin},
};

const WORKERS: usize = 8;
/// The bytes sent of a body: of a small one, and of one that gets a file of its own on the disk.
const SENT: [usize; 2] = [10, 70_000];

/// The request lines, and the headers that follow them, of the requests that will be cut.
fn requests(user: &Client) -> Vec<String> {
    let part = user.init("parts", 1_000_000);
    let tus = user.init("tus", 2_000_000_000);
    let draft = user.init("draft", 2_000_000_000);
    let of_tus = "tus-resumable: 1.0.0\r\ncontent-type: application/offset+octet-stream";
    let checked = "upload-checksum: sha256 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let of_draft = "content-type: application/partial-upload\r\nupload-complete: ?0";
    let digest = "content-digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    vec![
        "PUT /v1/files/content?filename=f HTTP/1.1".into(),
        "PUT /v1/files/content?filename=f HTTP/1.1\r\nupload-complete: ?0".into(),
        format!("PUT /v1/files/{part}/parts/1 HTTP/1.1"),
        format!("POST /v1/tus HTTP/1.1\r\n{of_tus}\r\nupload-length: 500000"),
        format!("PATCH /v1/tus/{tus} HTTP/1.1\r\n{of_tus}\r\nupload-offset: 0\r\n{checked}"),
        format!("PATCH /v1/uploads/{draft} HTTP/1.1\r\n{of_draft}\r\nupload-offset: 0\r\n{digest}"),
    ]
}

/// Cuts `count` uploads and checks what is left of them.
fn break_off(count: usize) {
    let daemon = Daemon::with(&[("requests_max", "250"), ("requests_per_principal_max", "250")]);
    let user = daemon.user("u");
    let requests = requests(&user);
    let token = daemon.service().post("/v1/files/generate-token?user_id=u", "").ok();
    let token = token["token"].as_str().unwrap();
    let content = bytes(1, SENT[1]);
    let staged = || {
        let staging = daemon.dir().join("staging");
        let temporary = std::fs::read_dir(staging.join("tmp")).unwrap().count();
        // The assembly of an open upload stays as long as the upload, as an empty file.
        let holds_bytes = |entry: &DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            !name.ends_with(".assembly") || entry.metadata().unwrap().blocks() > 0
        };
        let entries = std::fs::read_dir(staging).unwrap().map(Result::unwrap);
        entries.filter(holds_bytes).count() - 1 + temporary
    };
    let reserved = || run(&daemon.dir(), &["user", "show", "u"])["reserved"].clone();
    let listed = || {
        let uploads = user.get("/v1/files/uploads").ok()["uploads"].as_array().unwrap().clone();
        uploads.iter().map(|upload| upload["bytesReceived"].clone()).collect::<Vec<_>>()
    };
    let (files, owed) = (daemon.open_files(), reserved());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    let mut socket = connect(&daemon);
                    let head = &requests[number % requests.len()];
                    let sent = &content[..SENT[number / requests.len() % SENT.len()]];
                    write!(
                        socket,
                        "{head}\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
                         content-length: 500000\r\nexpect: 100-continue\r\n\r\n",
                    )
                    .unwrap();
                    // A request that a newer one took over while it waited for its turn is refused
                    // at once.
                    let mut interim = [0; 12];
                    socket.read_exact(&mut interim).unwrap();
                    assert!([*b"HTTP/1.1 100", *b"HTTP/1.1 409"].contains(&interim), "{head}");
                    // From a request that was taken over since then, the daemon need not read any
                    // more.
                    let _ = socket.write_all(sent);
                }
            });
        }
    });
    eventually(|| staged() == 0 && daemon.open_files() <= files + 2);
    eventually(|| listed() == [0, 0, 0] && reserved() == owed);
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    // Every request permit is free again.
    let hanging: Vec<_> = (0..250).map(|_| begin_put(&daemon)).collect();
    drop(hanging);
}

#[test]
fn broken_uploads_leak_nothing() {
    break_off(600);
}

/// `cargo nextest run --test it --run-ignored all ten_thousand_broken --no-capture`
#[test]
#[ignore = "takes a minute or more"]
fn ten_thousand_broken_uploads_leak_nothing() {
    break_off(10_000);
}

#[test]
fn a_body_that_makes_no_progress_is_dropped() {
    let daemon = Daemon::with(&[("body_idle_timeout", "300ms")]);
    let user = daemon.user("u");
    let id = user.init("f", 500_000);
    let part = format!("PUT /v1/files/{id}/parts/1");
    for request in ["PUT /v1/files/content?filename=f&user_id=u", &part] {
        // One request sends no byte of its body, the other stops after the first 70,000.
        for sent in [0, 70_000] {
            let mut socket = begin(&daemon, request, "content-length: 500000\r\n");
            socket.write_all(&bytes(1, sent)).unwrap();
            let answer = answer_of(socket);
            let is_told = answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout");
            assert!(is_told, "{request}: {answer}");
        }
    }
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["received"], json!([]));
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let tmp = daemon.dir().join("staging/tmp");
    eventually(|| std::fs::read_dir(&tmp).unwrap().count() == 0);
}
