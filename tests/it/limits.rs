//! Limits and what happens past them; memory use for a body of any size.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Daemon, begin_put, bytes, connect, eventually,
    raw::{answer_of, begin, status},
    stored,
};

#[test]
fn a_file_past_its_limit_is_refused_wherever_it_is_noticed() {
    let daemon = Daemon::with(&[("file_bytes_max", "100KiB")]);
    let user = daemon.user("u");
    let limit = 100 << 10;
    let init = |size: u64| {
        let init = json!({"mode": "single", "files": [{"name": "f", "size": size}]});
        user.post("/v1/files/init", init)
    };
    init(limit).ok();
    assert_eq!(init(limit + 1).refused(413, "too_large")["limit"], limit);
    init(u64::MAX).refused(413, "too_large");
    let path = "/v1/files/content?filename=f";
    assert_eq!(user.put(path, vec![0; 100 << 10]).status, 201);
    user.put(path, vec![0; (100 << 10) + 1]).refused(413, "too_large");
    user.put(path, vec![0; 5 << 20]).refused(413, "too_large");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 1);
}

/// If the size of an upload was never declared, only its completion can check the limit.
#[test]
fn parts_make_no_file_past_its_limit_of_whatever_size() {
    let daemon = Daemon::with(&[("file_bytes_max", "100KiB")]);
    let user = daemon.user("u").header("tus-resumable", "1.0.0");
    let created = user.header("upload-defer-length", "1").send("POST", "/v1/tus", "");
    let id = created.header("location").rsplit('/').next().unwrap().to_owned();
    for number in [1, 2] {
        user.part(&id, number, &bytes(number, 60_000)).ok();
    }
    user.complete(&id).refused(413, "too_large");
    user.part(&id, 2, &bytes(3, 40_000)).ok();
    assert_eq!(user.complete(&id).ok()["size"], 100_000);
}

#[test]
fn the_quota_holds_under_parallel_uploads() {
    let daemon = Daemon::with(&[("quota_bytes", "1000B")]);
    let user = daemon.user("u");
    let opened: usize = std::thread::scope(|scope| {
        let init = || {
            let init = json!({"mode": "single", "files": [{"name": "f", "size": 100}]});
            usize::from(user.post("/v1/files/init", init).status == 200)
        };
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(move || init() + init() + init() + init())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(opened, 10);
    let refused = user.put("/v1/files/content?filename=f", "x").refused(413, "quota_exceeded");
    let figures = [&refused["quota"], &refused["used"], &refused["requested"]];
    assert_eq!(figures, [&json!(1000), &json!(1000), &json!(1)]);
    let uploads = user.get("/v1/files/uploads").ok()["uploads"].clone();
    let id = uploads[0]["uploadId"].as_str().unwrap().to_owned();
    // Bytes beyond the declared size need room in the quota, too.
    user.part(&id, 1, &[0; 101]).refused(413, "quota_exceeded");
    user.part(&id, 1, &[0; 100]).ok();
    user.complete(&id).ok();
    user.put("/v1/files/content?filename=f", "x").refused(413, "quota_exceeded");
    user.delete(&format!("/v1/files/{}", uploads[1]["uploadId"].as_str().unwrap())).ok();
    let file = user.store("f", "", &[1; 100]);
    user.put("/v1/files/content?filename=f", "x").refused(413, "quota_exceeded");
    user.delete_file(&file).ok();
    user.store("g", "", &[1; 100]);
    assert_eq!(daemon.user("v").store("f", "", &[1; 1000])["size"], 1000);
}

#[test]
fn json_bodies_are_bounded() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let wide = json!({"mode": "single", "x": "y".repeat(1 << 20), "files": []});
    user.post("/v1/files/init", &wide).refused(413, "too_large");
    user.post("/v1/files/part", &wide).refused(413, "too_large");
    user.post("/v1/files/part", "[".repeat(100)).refused(400, "json_too_deep");
    user.post("/v1/files/init", "[".repeat(1000)).refused(400, "json_too_deep");
    // Brackets in a string do not count as nesting; those in a member that is ignored do.
    let text = json!({"mode": "single", "files": [], "x": "[\\\"[".repeat(100)});
    user.post("/v1/files/init", text).refused(400, "invalid_files");
    let deep =
        format!("{{\"mode\":\"single\",\"files\":[],\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
    user.post("/v1/files/init", deep).refused(400, "json_too_deep");
    let meta = json!({"mode": "single", "files": [{"name": "f", "size": 0}],
        "meta": {"x": "y".repeat(16 << 10)}});
    user.post("/v1/files/init", meta).refused(400, "meta_too_large");
    // The limit is exact to the byte: `{"x":"…"}` adds eight bytes to the text.
    let meta = |length| {
        let meta = json!({"x": "y".repeat(length)});
        json!({"mode": "single", "files": [{"name": "f", "size": 0}], "meta": meta})
    };
    user.post("/v1/files/init", meta(4096 - 8)).ok();
    user.post("/v1/files/init", meta(4096 - 7)).refused(400, "meta_too_large");
}

#[test]
fn nobody_takes_all_requests_in_work() {
    let daemon = Daemon::with(&[("requests_per_principal_max", "1")]);
    let (service, user) = (daemon.service(), daemon.user("u"));
    let mut held = begin_put(&daemon);
    let refused = service.get("/v1/files/all?user_id=u");
    refused.refused(429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), "1");
    user.get("/v1/files/all").ok();
    daemon.anyone().get("/healthz").ok();
    held.write_all(b"12345").unwrap();
    eventually(|| service.get("/v1/files/all?user_id=u").status == 200);
}

#[test]
fn a_second_has_no_more_requests_than_it_may() {
    let daemon = Daemon::with(&[("requests_per_second_max", "3")]);
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let answers: Vec<_> = (0..20).map(|_| user.get("/v1/files/all")).collect();
    assert!(answers[..3].iter().all(|answer| answer.status == 200));
    let past = answers.iter().find(|answer| answer.status != 200).expect("one was too many");
    past.refused(429, "too_many_requests");
    other.get("/v1/files/all").ok();
    eventually(|| user.get("/v1/files/all").status == 200);
}

#[test]
fn past_the_request_limit_the_daemon_says_so() {
    let daemon = Daemon::with(&[("requests_max", "1")]);
    let mut held = begin_put(&daemon);
    let busy = daemon.anyone().get("/healthz");
    busy.refused(503, "busy");
    assert_eq!(busy.header("retry-after"), "1");
    held.write_all(b"hello").unwrap();
    assert_eq!(status(&mut held), "201");
    eventually(|| daemon.anyone().get("/healthz").status == 200);
}

#[test]
fn past_the_connection_limit_the_daemon_says_so() {
    let daemon = Daemon::with(&[("connections_max", "1")]);
    let held = connect(&daemon);
    eventually(|| {
        let mut refused = connect(&daemon);
        refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        refused.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = answer_of(refused);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{answer}");
        head.starts_with("HTTP/1.1 503 ") && body.contains(r#""code":"busy""#)
    });
    drop(held);
}

#[test]
fn a_silent_connection_is_let_go() {
    let daemon = Daemon::with(&[("header_timeout", "200ms")]);
    for begun in [&b""[..], b"PRI * HTTP", b"GET / HTTP/1.1\r\n"] {
        let mut socket = connect(&daemon);
        socket.write_all(begun).unwrap();
        // The daemon closes the connection, with or without an answer, before this test's own
        // timeout ends.
        let (mut rest, began) = (Vec::new(), Instant::now());
        let closed = socket.read_to_end(&mut rest);
        let gave_up = closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!gave_up, "the daemon waits for ever");
        // No other timeout closed it: none of them is shorter than half a minute.
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let daemon = Daemon::with(&[("body_idle_timeout", "3s"), ("requests_max", "1")]);
    let mut socket = begin(&daemon, &format!("GET {}", stored(&daemon, 32 << 20)), "");
    assert_eq!(status(&mut socket), "200");
    // The request holds the only permit until the daemon gives up on it.
    daemon.anyone().get("/healthz").refused(503, "busy");
    eventually(|| daemon.anyone().get("/healthz").status == 200);
}

/// 256 MiB in a base64 part, in a download and in one PUT. The figures at 2 GiB are in
/// `docs/DESIGN.md`.
#[test]
fn memory_does_not_grow_with_a_body() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let size = 256 << 20;
    let before = daemon.peak_memory_kib();
    let begin = |request: &str, length: usize| {
        let lines = format!("content-length: {length}\r\nconnection: close\r\n");
        begin(&daemon, request, &lines)
    };
    let id = user.init("f", size);
    let (open, close) = (r#"{"chunkBase64":""#, format!(r#"","uploadId":"{id}","partNumber":1}}"#));
    let encoded = (size.div_ceil(3)) * 4;
    let mut socket = begin("POST /v1/files/part", open.len() + encoded + close.len());
    socket.write_all(open.as_bytes()).unwrap();
    let piece = crate::support::base64(&bytes(1, 3 << 16));
    let mut left = encoded;
    while left > piece.len() {
        socket.write_all(piece.as_bytes()).unwrap();
        left -= piece.len();
    }
    // 256 MiB is one more than a multiple of three, so the text ends in two `=`.
    let mut end = piece.as_bytes()[..left].to_vec();
    end[left - 3..].copy_from_slice(b"A==");
    end[left - 4] = b'A';
    socket.write_all(&end).unwrap();
    socket.write_all(close.as_bytes()).unwrap();
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let key = user.complete(&id).ok()["key"].as_str().unwrap().to_owned();

    let mut socket = begin(&format!("GET /v1/files/content/{key}"), 0);
    let received = std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
    assert!(received > size as u64);

    let mut socket = begin("PUT /v1/files/content?filename=g&user_id=u", size);
    let piece = bytes(2, 1 << 20);
    for _ in 0..256 {
        socket.write_all(&piece).unwrap();
    }
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    let after = daemon.peak_memory_kib();
    assert!(after < 64 << 10, "{before} KiB before, {after} KiB at most");
}

#[test]
fn a_body_that_is_longer_than_it_was_said_to_be_is_not_taken_to_its_end() {
    let daemon = Daemon::start();
    let put = "PUT /v1/files/content?filename=f&user_id=u";
    let lines = "upload-complete: ?1\r\nupload-length: 4\r\ntransfer-encoding: chunked\r\n";
    let mut socket = begin(&daemon, put, lines);
    // The last chunk of the body is never sent.
    socket.write_all(b"5\r\nhello\r\n").unwrap();
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("inconsistent_upload_length"), "{answer}");
    assert_eq!(daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"], 0);
}
