//! A real daemon on a temporary data directory, and a client for it.

pub mod client;
pub mod command;
pub mod daemon;
pub mod harm;
pub mod raw;
pub mod tls;

use std::{fs, path::PathBuf, time::Duration};

pub use client::Client;
pub use daemon::Daemon;
pub use raw::{begin_put, connect};

/// No test waits longer than this for one thing.
pub const PATIENCE: Duration = Duration::from_secs(30);

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

pub fn sha256_in_base64(bytes: &[u8]) -> String {
    base64(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

/// The value of `Content-Digest` or `Repr-Digest` for these bytes.
pub fn digest_field(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", sha256_in_base64(bytes))
}

/// Stores bytes for the user `u` and returns the path of the content.
pub fn stored(daemon: &Daemon, size: usize) -> String {
    let file = daemon.user("u").store("f", "", &bytes(1, size));
    format!("/v1/files/content/{}", file["key"].as_str().unwrap())
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

/// The files in `staging`: parts of open uploads, and files in which parts are assembled.
pub fn staged_files(daemon: &Daemon) -> Vec<PathBuf> {
    let staged = fs::read_dir(daemon.dir().join("staging")).unwrap();
    staged.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// How many requests to append have ended.
pub fn patched(daemon: &Daemon) -> usize {
    daemon.log().matches(r#""method":"PATCH""#).count()
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
