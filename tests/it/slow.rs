//! Clients that make progress, but too little.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use crate::support::{Daemon, PATIENCE, bytes, connect, eventually, raw::begin, stored};

/// The pause after each piece, well below the silence that is allowed.
const PACE: Duration = Duration::from_millis(20);
const SILENCE: (&str, &str) = ("body_idle_timeout", "1s");

/// Sends the head of a request whose body is still to come.
fn begin_body(daemon: &Daemon, request: &str, lines: &str, length: usize) -> TcpStream {
    begin(daemon, request, &format!("{lines}content-length: {length}\r\nconnection: close\r\n"))
}

/// Sends the body in pieces and waits [`PACE`] for an answer after each. Returns the answer and how
/// many bytes were sent.
fn trickle(mut socket: TcpStream, body: &[u8], piece: usize) -> (String, usize) {
    socket.set_read_timeout(Some(PACE)).unwrap();
    let mut answer = vec![0; 1];
    let mut sent = 0;
    for piece in body.chunks(piece) {
        socket.write_all(piece).unwrap();
        sent += piece.len();
        match socket.read_exact(&mut answer) {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.read_to_end(&mut answer).unwrap();
    (String::from_utf8(answer).unwrap().trim_start_matches('\0').into(), sent)
}

#[test]
fn a_body_of_a_byte_now_and_then_is_ended() {
    let settings = [SILENCE, ("body_bytes_per_second_min", "1KiB"), ("requests_max", "1")];
    let daemon = Daemon::with(&settings);
    let put = "PUT /v1/files/content?filename=f&user_id=u";
    let socket = begin_body(&daemon, put, "", 5000);
    let (answer, sent) = trickle(socket, &[b'x'; 5000], 1);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    assert!(sent < 500, "{sent} bytes");
    // The only permit for a request is free again.
    eventually(|| daemon.anyone().get("/healthz").status == 200);
    assert!(daemon.has_hit("body_rate") && !daemon.has_hit("body_idle"));
    assert_eq!(daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"], 0);
    // JSON bodies are held to the same rate.
    let socket = begin_body(&daemon, "POST /v1/files/init", "", 5000);
    let (answer, _) = trickle(socket, &[b' '; 5000], 1);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn what_came_slowly_into_a_session_is_kept() {
    let daemon = Daemon::with(&[SILENCE, ("body_bytes_per_second_min", "100KiB")]);
    let user = daemon.user("u");
    let content = bytes(1, 300_000);
    let tus = user.header("tus-resumable", "1.0.0");
    let created = tus.header("upload-length", "300000").send("POST", "/v1/tus", "");
    let path = created.header("location").to_owned();
    let path = path.strip_prefix(daemon.url()).unwrap_or(&path);
    let offset = |offset: &str| {
        let type_ = "content-type: application/offset+octet-stream";
        format!("tus-resumable: 1.0.0\r\n{type_}\r\nupload-offset: {offset}\r\n")
    };
    let socket = begin_body(&daemon, &format!("PATCH {path}"), &offset("0"), 300_000);
    let (answer, sent) = trickle(socket, &content, 100);
    assert!(answer.starts_with("HTTP/1.1 408") && sent < 100_000, "{sent}: {answer}");
    let head = tus.send("HEAD", path, "");
    let kept: usize = head.header("upload-offset").parse().unwrap();
    assert!((100..=sent).contains(&kept), "{kept} of {sent}");
    let socket = begin_body(
        &daemon,
        &format!("PATCH {path}"),
        &offset(&kept.to_string()),
        content.len() - kept,
    );
    let (answer, _) = trickle(socket, &content[kept..], 20_000);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let files = user.get("/v1/files/all").ok();
    assert_eq!(files["total_size"], json!(300_000));
    assert!(daemon.has_hit("body_rate"));
}

#[test]
fn who_is_fast_enough_or_held_to_nothing_takes_as_long_as_it_needs() {
    // Takes three times the silence that is allowed.
    let slow = [b'x'; 150];
    for (least, piece) in [("0", 1), ("100", 10)] {
        let daemon = Daemon::with(&[SILENCE, ("body_bytes_per_second_min", least)]);
        let body: Vec<u8> = slow.repeat(piece);
        let put = "PUT /v1/files/content?filename=f&user_id=u";
        let (answer, _) = trickle(begin_body(&daemon, put, "", body.len()), &body, piece);
        assert!(answer.starts_with("HTTP/1.1 201"), "{least}: {answer}");
        assert!(!daemon.has_hit("body_rate"));
    }
}

#[test]
fn an_answer_that_is_taken_too_slowly_is_cut() {
    const SIZE: usize = 64 << 20;
    let settings = [("body_idle_timeout", "2s"), ("body_bytes_per_second_min", "1GiB")];
    let daemon = Daemon::with(&settings);
    let get = format!("GET {}", stored(&daemon, SIZE));
    let mut socket = begin_body(&daemon, &get, "", 0);
    let (mut taken, mut chunk) = (0, vec![0; 256 << 10]);
    // Reading from this idle connection takes `PACE`, which limits the download to some 12 MiB a
    // second.
    let paced = connect(&daemon);
    paced.set_read_timeout(Some(PACE)).unwrap();
    while let Ok(read @ 1..) = socket.read(&mut chunk) {
        taken += read;
        let _ = (&paced).read(&mut [0]);
    }
    assert!(taken > 1 << 20 && taken < SIZE, "{taken}");
    eventually(|| daemon.has_hit("answer_rate"));
    assert!(!daemon.has_hit("answer_not_taken"));
    assert!(daemon.log().lines().any(|line| line.contains("\"cut\":true")));
}
