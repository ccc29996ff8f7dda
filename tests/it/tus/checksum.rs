//! Checksums of pieces, in a header before the bytes or in a trailer behind them.

use std::{convert::Infallible, io::Write};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::{HeaderMap, body::Frame, header::HeaderName};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{OFFSET_TYPE, Tus, content, piece_at};
use crate::support::{
    Daemon, base64, bytes,
    daemon::TOKEN,
    eventually, patched,
    raw::{answer_of, begin},
    sha256_in_base64,
};

/// Sends a PATCH over HTTP/2 with a trailer behind its body and returns the status.
fn http2_with_trailer(daemon: &Daemon, path: &str, body: &'static str, line: &str) -> u16 {
    let (name, value) = line.trim_end().split_once(": ").unwrap();
    let trailers: HeaderMap =
        [(name.parse::<HeaderName>().unwrap(), value.parse().unwrap())].into_iter().collect();
    let frames = [Frame::data(Bytes::from_static(body.as_bytes())), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
    let request = hyper::Request::builder()
        .method("PATCH")
        .uri(format!("{}{path}", daemon.url()))
        .header("x-service-token", TOKEN)
        .header("tus-resumable", "1.0.0")
        .header("content-type", OFFSET_TYPE)
        .header("upload-offset", "4")
        .header("trailer", "upload-checksum")
        .body(StreamBody::new(frames))
        .unwrap();
    let address = daemon.address().to_owned();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let socket = TokioIo::new(socket);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap().status().as_u16()
    })
}

#[test]
fn a_wrong_checksum_drops_the_bytes() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(3, 200_000);
    let path = tus.create(content_.len());
    let sum = |algorithm, bytes: &[u8]| {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
        let of = if algorithm == "sha1" { &SHA1_FOR_LEGACY_USE_ONLY } else { &SHA256 };
        format!("{algorithm} {}", base64(digest(of, bytes).as_ref()))
    };
    for (at, algorithm) in [(0, "sha1"), (100_000, "sha256")] {
        let piece = &content_[at..at + 100_000];
        let wrong = tus.with("upload-checksum", &sum(algorithm, b"x")).patch(&path, at, piece);
        wrong.refused(460, "checksum_mismatch");
        // A checksum in capitals is refused, and so is one whose two words are reversed.
        let (capitals, right) = (sum(algorithm, piece).to_uppercase(), sum(algorithm, piece));
        let turned = right.split(' ').rev().collect::<Vec<_>>().join(" ");
        let unknown = ["md5 AAAAAAAAAAAAAAAAAAAAAA==", "crc32 AAAAAA=="];
        let malformed = ["sha1", "sha1 !", "sha256 AAAA", ""];
        for bad in [&unknown[..], &malformed[..], &[&capitals, &turned]].concat() {
            let refused = tus.with("upload-checksum", bad).patch(&path, at, piece);
            refused.refused(400, "invalid_checksum");
        }
        assert_eq!(tus.offset(&path), at);
        // The checksum of an empty piece is compared, too.
        let nothing = tus.with("upload-checksum", &right).patch(&path, at, b"");
        nothing.refused(460, "checksum_mismatch");
        let right = tus.with("upload-checksum", &right).patch(&path, at, piece);
        assert_eq!(right.status, 204);
    }
    assert_eq!(content(&user, &tus.head(&path)), content_);
    // Half of a piece cannot be checked, so it is not kept.
    let path = tus.create(1000);
    let checksum = sum("sha1", b"half");
    let lines = format!("content-length: 1000\r\nupload-checksum: {checksum}\r\n");
    let mut socket = begin(&daemon, &format!("PATCH {path}"), &(piece_at(0) + &lines));
    socket.write_all(b"half").unwrap();
    let ended = patched(&daemon) + 1;
    drop(socket);
    eventually(|| patched(&daemon) == ended);
    assert_eq!(tus.offset(&path), 0);
}

#[test]
fn a_checksum_may_come_behind_the_bytes() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let path = tus.create(8);
    let sum = |bytes: &[u8]| format!("upload-checksum: sha256 {}\r\n", sha256_in_base64(bytes));
    // Over HTTP/1.1, in chunks.
    let patch = |offset: usize, body: &str, trailer: &str| {
        let chunked = "connection: close\r\ntransfer-encoding: chunked\r\n\
            trailer: x-other, Upload-Checksum\r\n";
        let mut socket = begin(&daemon, &format!("PATCH {path}"), &(piece_at(offset) + chunked));
        write!(socket, "{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len()).unwrap();
        answer_of(socket)
    };
    assert!(patch(0, "hell", &sum(b"hello")).starts_with("HTTP/1.1 460"));
    assert!(patch(0, "hell", "").starts_with("HTTP/1.1 400"));
    assert!(patch(0, "hell", "upload-checksum: md5 AA==\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(tus.offset(&path), 0);
    assert!(patch(0, "hell", &sum(b"hell")).starts_with("HTTP/1.1 204"));
    // A piece that is cut before its digest is not kept.
    let chunked = "transfer-encoding: chunked\r\ntrailer: upload-checksum\r\n";
    let mut socket = begin(&daemon, &format!("PATCH {path}"), &(piece_at(4) + chunked));
    socket.write_all(b"2\r\no!\r\n").unwrap();
    let ended = patched(&daemon) + 1;
    drop(socket);
    eventually(|| patched(&daemon) == ended);
    assert_eq!(tus.offset(&path), 4);
    // Over HTTP/2.
    let sent = http2_with_trailer(&daemon, &path, "o!!!", &sum(b"o!!?"));
    assert_eq!(sent, 460);
    assert_eq!(tus.offset(&path), 4);
    assert_eq!(http2_with_trailer(&daemon, &path, "o!!!", &sum(b"o!!!")), 204);
    assert_eq!(content(&user, &tus.head(&path)), b"hello!!!");
}
