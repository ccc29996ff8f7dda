//! tus 1.0, rule by rule, over raw requests.

mod checksum;
mod concat;
mod core;
mod creation;
mod ending;
mod interrupted;

use std::{io::Write, net::TcpStream};

use crate::support::{Client, Daemon, base64, client::Answer, raw::begin_awaited};

const OFFSET_TYPE: &str = "application/offset+octet-stream";

/// A client that speaks the protocol.
struct Tus(Client);

impl Tus {
    fn of(client: &Client) -> Self {
        Self(client.header("tus-resumable", "1.0.0"))
    }

    fn with(&self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// Creates an upload of a file `f` and returns its path.
    fn create(&self, size: usize) -> String {
        let named = self.with("upload-metadata", &format!("filename {}", base64(b"f")));
        let created = named.with("upload-length", &size.to_string()).0.send("POST", "/v1/tus", "");
        assert_eq!(created.status, 201, "{created:?}");
        path(&created)
    }

    fn post(&self) -> Answer {
        self.0.send("POST", "/v1/tus", "")
    }

    fn head(&self, path: &str) -> Answer {
        self.0.send("HEAD", path, "")
    }

    fn offset(&self, path: &str) -> usize {
        let answer = self.head(path);
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        answer.header("upload-offset").parse().unwrap()
    }

    fn patch(&self, path: &str, offset: usize, body: &[u8]) -> Answer {
        let typed = self.with("content-type", OFFSET_TYPE);
        typed.with("upload-offset", &offset.to_string()).0.send("PATCH", path, body)
    }

    /// Appends and returns the new offset.
    fn append(&self, path: &str, offset: usize, body: &[u8]) -> usize {
        let answer = self.patch(path, offset, body);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("tus-resumable"), "1.0.0");
        answer.header("upload-offset").parse().unwrap()
    }
}

/// The path of a new upload's URL.
fn path(created: &Answer) -> String {
    let location = created.header("location");
    location[location.find("/v1/tus/").unwrap()..].to_owned()
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The content of the file that an upload became, by the key that a header names.
fn content(client: &Client, answer: &Answer) -> Vec<u8> {
    let got = client.get(&format!("/v1/files/content/{}", answer.header("upload-key")));
    assert_eq!(got.status, 200);
    got.body
}

/// The header lines of a piece.
fn piece_at(offset: usize) -> String {
    format!("tus-resumable: 1.0.0\r\ncontent-type: {OFFSET_TYPE}\r\nupload-offset: {offset}\r\n")
}

/// Begins a PATCH of `size` bytes and sends only some, once the daemon waits for them.
fn begin_patch(daemon: &Daemon, path: &str, offset: usize, size: usize, some: &[u8]) -> TcpStream {
    let lines = format!("{}content-length: {size}\r\n", piece_at(offset));
    let mut socket = begin_awaited(daemon, &format!("PATCH {path}"), &lines);
    socket.write_all(some).unwrap();
    socket
}

/// Whether this is the answer to a request from which a newer one has taken over the upload.
fn is_taken_over(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 409 ") && answer.contains(r#""code":"upload_taken_over""#)
}
