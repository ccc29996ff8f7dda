//! A real daemon on a temporary data directory, and a client for it.

pub mod client;
pub mod daemon;
pub mod tls;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

pub use client::Client;
pub use daemon::Daemon;

/// No test waits longer than this for one thing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the daemon whose reads and writes time out.
pub fn connect(daemon: &Daemon) -> TcpStream {
    let socket = TcpStream::connect(daemon.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Begins a PUT of five bytes, none of which is sent yet. The daemon's handler waits for them.
pub fn begin_put(daemon: &Daemon) -> TcpStream {
    let mut socket = connect(daemon);
    let head = format!(
        "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
         x-service-token: {}\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
        daemon::TOKEN,
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    socket
}

/// Bytes that look random and are the same in every run.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    streamlined::model::digest::hex(digest.as_ref())
}

/// Waits until the condition holds.
pub fn eventually(mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the first collection and the first scrub of a new store are over, so that their
/// commits do not interfere with the test.
pub fn settle(daemon: &Daemon) {
    assert!(daemon.operator("POST", "/gc").starts_with("HTTP/1.1 200"));
    eventually(|| !daemon.anyone().get("/healthz").json()["scrub"]["last_completed"].is_null());
}

/// Waits until bytes of an upload beyond `offset` are on their way to the disk: in a file of their
/// own, or in the assembly at their final offset.
pub fn is_received(daemon: &Daemon, offset: u64) {
    let staging = daemon.dir().join("staging");
    let longer = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let is_assembly = path.extension().is_some_and(|it| it == "assembly");
        is_assembly && fs::metadata(path).is_ok_and(|file| file.len() > offset)
    };
    eventually(|| {
        fs::read_dir(staging.join("tmp")).unwrap().count() > 0
            || fs::read_dir(&staging).unwrap().any(longer)
    });
}
