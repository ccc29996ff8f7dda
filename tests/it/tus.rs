//! tus 1.0, rule by rule, over raw requests.

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::{HeaderMap, body::Frame, header::HeaderName};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, Daemon, base64, bytes, client::Answer, connect, daemon::TOKEN, eventually, is_received,
    sha256,
};

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

    /// Creates an upload of a file `f` and answers its path.
    fn create(&self, size: usize) -> String {
        let named = self.with("upload-metadata", &format!("filename {}", base64(b"f")));
        let created = named.with("upload-length", &size.to_string()).0.send("POST", "/v1/tus", "");
        assert_eq!(created.status, 201, "{created:?}");
        path(&created)
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

    /// Appends and answers where the upload ends then.
    fn append(&self, path: &str, offset: usize, body: &[u8]) -> usize {
        let answer = self.patch(path, offset, body);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("tus-resumable"), "1.0.0");
        answer.header("upload-offset").parse().unwrap()
    }
}

/// Requests to append that came to their end.
fn patched(daemon: &Daemon) -> usize {
    daemon.log().matches(r#""method":"PATCH""#).count()
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

/// Begins a PATCH of `size` bytes and sends only some, once the daemon waits for them.
fn begin_patch(daemon: &Daemon, path: &str, offset: usize, size: usize, some: &[u8]) -> TcpStream {
    let mut socket = connect(daemon);
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\ntus-resumable: 1.0.0\r\n\
         content-type: {OFFSET_TYPE}\r\nupload-offset: {offset}\r\ncontent-length: {size}\r\n\
         expect: 100-continue\r\n\r\n",
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    socket.write_all(some).unwrap();
    socket
}

fn status_of(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// Sends a PATCH over HTTP/2 with a line of trailers behind its body and answers the status.
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
fn options_say_what_is_spoken() {
    let daemon = Daemon::with(&[("file_bytes_max", "1234567")]);
    for path in ["/v1/tus", "/v1/tus/", "/v1/tus/00000000000000000000000000000000"] {
        let options = daemon.user("u").send("OPTIONS", path, "");
        assert_eq!((options.status, options.header("tus-version")), (204, "1.0.0"));
        assert_eq!(options.header("tus-max-size"), "1234567");
        assert_eq!(options.header("tus-checksum-algorithm"), "sha1,sha256");
        assert_eq!(
            options.header("tus-extension"),
            "creation,creation-with-upload,creation-defer-length,expiration,checksum,\
             checksum-trailer,termination,concatenation,concatenation-unfinished",
        );
    }
    daemon.anyone().send("OPTIONS", "/v1/tus", "").refused(401, "unauthenticated");
}

#[test]
fn an_upload_goes_on_where_it_stands_and_becomes_a_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(1, 300_000);
    let metadata = format!(
        "filename {},filetype {},folder {},camera {},empty",
        base64("ü b.png".as_bytes()),
        base64(b"image/png"),
        base64(b"a/b"),
        base64(b"x100"),
    );
    let described = tus.with("upload-metadata", &metadata).with("upload-length", "300000");
    let created = described.0.send("POST", "/v1/tus", "");
    assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
    let path = path(&created);
    assert_eq!(created.header("location"), format!("{}{path}", daemon.url()));
    let head = tus.head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("0", "300000"));
    assert_eq!((head.header("cache-control"), head.header("tus-resumable")), ("no-store", "1.0.0"));
    let mut told: Vec<&str> = head.header("upload-metadata").split(',').collect();
    let mut said: Vec<&str> = metadata.split(',').collect();
    told.sort_unstable();
    said.sort_unstable();
    assert_eq!(told, said);
    assert_eq!(tus.append(&path, 0, &content_[..100_000]), 100_000);
    tus.patch(&path, 0, b"x").refused(409, "offset_mismatch");
    tus.patch(&path, 100_001, b"x").refused(409, "offset_mismatch");
    assert_eq!(tus.offset(&path), 100_000);
    assert_eq!(tus.append(&path, 100_000, b""), 100_000);
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let last = tus.patch(&path, 100_000, &content_[100_000..]);
    assert_eq!((last.status, last.header("upload-offset")), (204, "300000"));
    assert_eq!(content(&user, &last), content_);
    let head = tus.head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("300000", "300000"));
    assert_eq!(head.header("upload-key"), last.header("upload-key"));
    let list = user.get("/v1/files/all?folder=a").ok();
    assert_eq!(
        (&list["total_count"], &list["files"][0]["filename"]),
        (&json!(1), &json!("ü b.png"))
    );
    let key = format!("/v1/files/metadata/{}", last.header("upload-key"));
    let file = user.get(&key).ok();
    assert_eq!((&file["mime"], &file["sha256"]), (&json!("image/png"), &json!(sha256(&content_))));
    assert_eq!(file["meta"], json!({"camera": "x100", "empty": ""}));
    // What is done is told again, and takes nothing more.
    assert_eq!(tus.append(&path, 300_000, b""), 300_000);
    tus.patch(&path, 300_000, b"x").refused(413, "too_large");
    tus.patch(&path, 0, b"x").refused(409, "offset_mismatch");
    user.delete(&format!("/v1/files/{}", last.header("upload-key"))).ok();
    assert_eq!(tus.head(&path).status, 410);
}

#[test]
fn another_version_is_refused() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let path = Tus::of(&user).create(5);
    let other = Tus(user.header("tus-resumable", "0.2.2"));
    for tus in [&other, &Tus(user.clone())] {
        for (method, path) in [("POST", "/v1/tus"), ("PATCH", &*path), ("DELETE", &*path)] {
            let answer = tus.with("upload-length", "5").0.send(method, path, "");
            answer.refused(412, "tus_version_unsupported");
            assert_eq!(answer.header("tus-version"), "1.0.0");
            assert_eq!(answer.header("tus-resumable"), "1.0.0");
        }
        assert_eq!(tus.head(&path).status, 412);
    }
    assert_eq!(Tus::of(&user).offset(&path), 0);
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let daemon = Daemon::with(&[("file_bytes_max", "1000")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let create = |headers: &[(&str, &str)]| {
        let with = |tus: Tus, (name, value): &(&str, &str)| tus.with(name, value);
        headers.iter().fold(Tus(tus.0.clone()), with).0.send("POST", "/v1/tus", "")
    };
    create(&[]).refused(400, "invalid_upload_length");
    for bad in ["-1", "x", "1.5", "", "99999999999999999999"] {
        create(&[("upload-length", bad)]).refused(400, "invalid_upload_length");
    }
    create(&[("upload-defer-length", "2")]).refused(400, "invalid_upload_length");
    let both = [("upload-length", "1"), ("upload-defer-length", "1")];
    create(&both).refused(400, "invalid_upload_length");
    create(&[("upload-length", "1001")]).refused(413, "too_large");
    let described =
        |metadata: &str| create(&[("upload-length", "1"), ("upload-metadata", metadata)]);
    for bad in ["filename !", "a YQ==,a YQ==", "a YQ==,,b YQ==", "a /w=="] {
        described(bad).refused(400, "invalid_upload_metadata");
    }
    let pair = |key: &str, value: &str| described(&format!("{key} {}", base64(value.as_bytes())));
    pair("filename", "../x").refused(400, "invalid_filename");
    described("filename").refused(400, "invalid_filename");
    pair("folder", "a/../b").refused(400, "invalid_folder");
    pair("filetype", "nonsense").refused(400, "invalid_mime");
    pair("a", &"x".repeat(5000)).refused(400, "meta_too_large");
    assert_eq!(user.get("/v1/files/uploads").ok(), json!({"uploads": []}));

    let path = tus.create(5);
    let typed = tus.with("content-type", "application/octet-stream").with("upload-offset", "0");
    typed.0.send("PATCH", &path, "x").refused(415, "media_type_unsupported");
    let typed = tus.with("content-type", OFFSET_TYPE);
    typed.0.send("PATCH", &path, "x").refused(400, "invalid_upload_offset");
    let negative = typed.with("upload-offset", "-1");
    negative.0.send("PATCH", &path, "x").refused(400, "invalid_upload_offset");
    tus.with("upload-length", "6").patch(&path, 0, b"x").refused(400, "inconsistent_upload_length");
    tus.patch(&path, 0, b"sixsix").refused(413, "too_large");
    let chunked = tus.with("transfer-encoding", "chunked");
    chunked.patch(&path, 0, b"sixsix").refused(413, "too_large");
    assert_eq!(tus.offset(&path), 0);
    tus.0.get(&path).refused(405, "method_not_allowed");
    tus.0.put("/v1/tus", "").refused(405, "method_not_allowed");
    tus.patch("/v1/tus/nothing", 0, b"x").refused(404, "upload_not_found");
}

#[test]
fn an_upload_of_another_user_is_not_there_and_a_viewer_may_not_upload() {
    let daemon = Daemon::start();
    let (user, other) = (Tus::of(&daemon.user("u")), Tus::of(&daemon.user("v")));
    let path = user.create(5);
    other.patch(&path, 0, b"hello").refused(404, "upload_not_found");
    other.0.delete(&path).refused(404, "upload_not_found");
    assert_eq!(other.head(&path).status, 404);
    let nobody = Tus::of(&daemon.anyone());
    let refused = nobody.patch(&path, 0, b"hello");
    refused.refused(401, "unauthenticated");
    assert_eq!(refused.header("tus-resumable"), "1.0.0");
    // A service says for whom, in the metadata or the query.
    let service = Tus::of(&daemon.service()).with("upload-length", "0");
    service.0.send("POST", "/v1/tus", "").refused(400, "user_required");
    let named = service.with("upload-metadata", &format!("user_id {}", base64(b"u")));
    let created = named.0.send("POST", "/v1/tus", "");
    assert!(created.header("upload-key").starts_with("storage/u/"));
    let created = service.0.send("POST", "/v1/tus?user_id=v", "");
    assert!(created.header("upload-key").starts_with("storage/v/"));
    // What a user says does not count.
    let named = user.with("upload-metadata", &format!("user_id {}", base64(b"v")));
    let created = named.with("upload-length", "0").0.send("POST", "/v1/tus", "");
    assert!(created.header("upload-key").starts_with("storage/u/"));
}

#[test]
fn an_empty_file_is_there_at_once() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let created = tus.with("upload-length", "0").0.send("POST", "/v1/tus", "");
    assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
    assert_eq!(content(&user, &created), b"");
    assert_eq!(tus.offset(&path(&created)), 0);
}

#[test]
fn bytes_may_come_with_the_creation() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user).with("content-type", OFFSET_TYPE);
    let create =
        |size: &str, body: &str| tus.with("upload-length", size).0.send("POST", "/v1/tus", body);
    let whole = create("5", "hello");
    assert_eq!((whole.status, whole.header("upload-offset")), (201, "5"));
    assert_eq!(content(&user, &whole), b"hello");
    let begun = create("8", "hello");
    assert_eq!((begun.status, begun.header("upload-offset")), (201, "5"));
    let tus = Tus::of(&user);
    assert_eq!(content(&user, &tus.patch(&path(&begun), 5, b"you")), b"helloyou");
    create("4", "hello").refused(413, "too_large");
    let wrong = format!("sha256 {}", base64(&[0; 32]));
    let summed = Tus(tus.0.clone()).with("content-type", OFFSET_TYPE).with("upload-length", "9");
    let refused = summed.with("upload-checksum", &wrong).0.send("POST", "/v1/tus", "hello");
    refused.refused(460, "checksum_mismatch");
    assert_eq!(user.get("/v1/files/uploads").ok(), json!({"uploads": []}));
}

#[test]
fn a_length_may_come_later_and_the_quota_grows_with_the_bytes() {
    let daemon = Daemon::with(&[("quota_bytes", "1000"), ("file_bytes_max", "900")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let deferred = tus.with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    assert_eq!(deferred.status, 201);
    let path = path(&deferred);
    let head = tus.head(&path);
    assert_eq!(head.header("upload-defer-length"), "1");
    assert!(head.headers.get("upload-length").is_none());
    assert_eq!(tus.append(&path, 0, &[1; 300]), 300);
    let status = format!("/v1/files/{}", id(&path));
    assert_eq!(user.get(&status).ok()["size"], json!(null));
    // 300 of 1000 are taken: 700 more fit, 701 do not.
    let store = |size| user.put("/v1/files/content?filename=f", vec![0; size]);
    store(701).refused(413, "quota_exceeded");
    assert_eq!(store(500).status, 201);
    tus.patch(&path, 300, &[1; 201]).refused(413, "quota_exceeded");
    tus.with("transfer-encoding", "chunked")
        .patch(&path, 300, &[1; 201])
        .refused(413, "quota_exceeded");
    let length = |size: &str, offset, body: &[u8]| {
        tus.with("upload-length", size).patch(&path, offset, body)
    };
    length("299", 300, b"").refused(400, "inconsistent_upload_length");
    length("901", 300, b"").refused(413, "too_large");
    length("501", 300, b"").refused(413, "quota_exceeded");
    assert_eq!(tus.head(&path).header("upload-defer-length"), "1");
    assert_eq!(length("500", 300, &[1; 100]).header("upload-offset"), "400");
    assert_eq!(tus.head(&path).header("upload-length"), "500");
    length("450", 400, b"").refused(400, "inconsistent_upload_length");
    let last = length("500", 400, &[1; 100]);
    assert_eq!(content(&user, &last), [1; 500]);
    // One whose length turns out to be what is there.
    let small = daemon.user("v");
    let deferred = Tus::of(&small).with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    let path = self::path(&deferred);
    Tus::of(&small).append(&path, 0, b"abc");
    let ended = Tus::of(&small).with("upload-length", "3").patch(&path, 3, b"");
    assert_eq!(content(&small, &ended), b"abc");
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
        for bad in ["md5 AAAAAAAAAAAAAAAAAAAAAA==", "sha1", "sha1 !", "sha256 AAAA"] {
            let refused = tus.with("upload-checksum", bad).patch(&path, at, piece);
            refused.refused(400, "invalid_checksum");
        }
        assert_eq!(tus.offset(&path), at);
        let right = tus.with("upload-checksum", &sum(algorithm, piece)).patch(&path, at, piece);
        assert_eq!(right.status, 204);
    }
    assert_eq!(content(&user, &tus.head(&path)), content_);
    // Half of a piece cannot be checked, so it is not kept.
    let path = tus.create(1000);
    let mut socket = connect(&daemon);
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\ntus-resumable: 1.0.0\r\n\
         content-type: {OFFSET_TYPE}\r\nupload-offset: 0\r\ncontent-length: 1000\r\n\
         upload-checksum: {}\r\n\r\nhalf",
        sum("sha1", b"half"),
    );
    socket.write_all(head.as_bytes()).unwrap();
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
    let sum = |bytes: &[u8]| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        format!("upload-checksum: sha256 {}\r\n", base64(digest.as_ref()))
    };
    // Over HTTP/1.1, in chunks.
    let patch = |offset: usize, body: &str, trailer: &str| {
        let mut socket = connect(&daemon);
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\
             tus-resumable: 1.0.0\r\ncontent-type: {OFFSET_TYPE}\r\nconnection: close\r\n\
             upload-offset: {offset}\r\ntransfer-encoding: chunked\r\n\
             trailer: x-other, Upload-Checksum\r\n\r\n{:x}\r\n{body}\r\n0\r\n{trailer}\r\n",
            body.len(),
        );
        socket.write_all(head.as_bytes()).unwrap();
        status_of(socket)
    };
    assert!(patch(0, "hell", &sum(b"hello")).starts_with("HTTP/1.1 460"));
    assert!(patch(0, "hell", "").starts_with("HTTP/1.1 400"));
    assert!(patch(0, "hell", "upload-checksum: md5 AA==\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(tus.offset(&path), 0);
    assert!(patch(0, "hell", &sum(b"hell")).starts_with("HTTP/1.1 204"));
    // A piece that is cut before its digest is not kept.
    let mut socket = connect(&daemon);
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\ntus-resumable: 1.0.0\r\n\
         content-type: {OFFSET_TYPE}\r\nupload-offset: 4\r\ntransfer-encoding: chunked\r\n\
         trailer: upload-checksum\r\n\r\n2\r\no!\r\n",
    );
    socket.write_all(head.as_bytes()).unwrap();
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

#[test]
fn an_upload_tells_when_it_expires_and_then_is_gone() {
    let daemon = Daemon::with(&[("upload_ttl", "5s")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let created = tus.with("upload-length", "5").0.send("POST", "/v1/tus", "");
    let path = path(&created);
    let patched = tus.patch(&path, 0, b"he");
    for answer in [&created, &patched, &tus.head(&path)] {
        let expires = httpdate::parse_http_date(answer.header("upload-expires")).unwrap();
        let left = expires.duration_since(std::time::SystemTime::now()).unwrap_or_default();
        assert!(left <= std::time::Duration::from_secs(5), "{left:?}");
        assert!(answer.header("upload-expires").ends_with(" GMT"));
    }
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
    let staged = || std::fs::read_dir(daemon.dir().join("staging")).unwrap().count();
    assert_eq!(staged(), 2);
    let terminated = tus.0.delete(&path);
    assert_eq!((terminated.status, terminated.header("tus-resumable")), (204, "1.0.0"));
    assert_eq!(staged(), 1);
    assert_eq!(tus.head(&path).status, 404);
    let done = tus.create(2);
    tus.append(&done, 0, b"ok");
    tus.0.delete(&done).refused(409, "upload_completed");
    // By way of a POST, and with one that writes at that time.
    let path = tus.create(10);
    let socket = begin_patch(&daemon, &path, 0, 10, b"abc");
    let over = tus.with("x-http-method-override", "DELETE");
    assert_eq!(over.0.send("POST", &path, "").status, 204);
    assert!(status_of(socket).starts_with("HTTP/1.1 409"));
    assert_eq!(tus.head(&path).status, 404);
}

#[test]
fn another_method_may_be_named_in_a_header() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let path = tus.create(5);
    let over = tus.with("x-http-method-override", "PATCH").with("content-type", OFFSET_TYPE);
    let answer = over.with("upload-offset", "0").0.send("POST", &path, "hello");
    assert_eq!(answer.status, 204);
    assert_eq!(content(&user, &answer), b"hello");
}

#[test]
fn what_a_vanished_client_sent_is_kept() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(5, 1_000_000);
    let path = tus.create(content_.len());
    // The socket is cut in the middle of a PATCH; a large and a small piece.
    for (begin, end) in [(0, 400_000), (400_000, 400_100)] {
        let ended = patched(&daemon) + 1;
        drop(begin_patch(&daemon, &path, begin, content_.len() - begin, &content_[begin..end]));
        eventually(|| patched(&daemon) == ended);
        assert_eq!(tus.offset(&path), end);
    }
    // One that stops sending is told so, and what came is kept too.
    let rest = content_.len() - 400_100;
    let socket = begin_patch(&daemon, &path, 400_100, rest, &content_[400_100..500_000]);
    assert!(status_of(socket).starts_with("HTTP/1.1 408"));
    assert_eq!(tus.offset(&path), 500_000);
    let last = tus.patch(&path, 500_000, &content_[500_000..]);
    assert_eq!(content(&user, &last), content_);
}

#[test]
fn what_came_over_http_2_is_kept_when_the_client_is_killed() {
    let daemon = Daemon::start();
    let tus = Tus::of(&daemon.user("u"));
    let path = tus.create(4_000_000);
    let content = daemon.dir().join("content");
    std::fs::write(&content, bytes(10, 4_000_000)).unwrap();
    let mut curl = Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "--limit-rate", "200k", "-X", "PATCH", "-T"])
        .arg(&content)
        .args(["-H", "tus-resumable: 1.0.0", "-H", "upload-offset: 0"])
        .args(["-H", &format!("content-type: {OFFSET_TYPE}")])
        .args(["-H", &format!("x-service-token: {TOKEN}")])
        .arg(format!("{}{path}", daemon.url()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    is_received(&daemon, 0);
    curl.kill().unwrap();
    curl.wait().unwrap();
    eventually(|| tus.offset(&path) > 0);
    assert!(tus.offset(&path) < 4_000_000);
}

#[test]
fn a_newer_request_makes_a_hanging_one_let_go() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(6, 300_000);
    let path = tus.create(content_.len());
    let hanging = begin_patch(&daemon, &path, 0, content_.len(), &content_[..100_000]);
    is_received(&daemon, 0);
    // Its client is alive, only slow; a HEAD learns of what came.
    let at = tus.offset(&path);
    assert!((1..=100_000).contains(&at), "{at}");
    assert!(status_of(hanging).starts_with("HTTP/1.1 409"));
    // A PATCH takes over from one that sent nothing yet.
    let hanging = begin_patch(&daemon, &path, at, content_.len() - at, b"");
    let last = tus.patch(&path, at, &content_[at..]);
    assert_eq!(content(&user, &last), content_);
    assert!(status_of(hanging).starts_with("HTTP/1.1 409"));
}

#[test]
fn small_pieces_share_parts() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(7, 200_000);
    let path = tus.create(content_.len());
    for (at, piece) in content_.chunks(1000).enumerate() {
        tus.append(&path, at * 1000, piece);
        if at == 150 {
            let status = user.get(&format!("/v1/files/{}", id(&path))).ok();
            assert!(status["received"].as_array().unwrap().len() <= 3, "{status}");
            assert_eq!(status["bytesReceived"], 151_000);
        }
    }
    assert_eq!(content(&user, &tus.head(&path)), content_);
}

#[test]
fn two_dialects_speak_of_one_session() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    // Begun in tus, gone on with as parts, completed in words.
    let path = tus.create(10);
    tus.append(&path, 0, b"abc");
    let status = user.get(&format!("/v1/files/{}", id(&path))).ok();
    let part = json!([{"partNumber": 1, "size": 3}]);
    assert_eq!((&status["received"], &status["size"]), (&part, &json!(10)));
    user.part(id(&path), 2, b"defg").ok();
    assert_eq!(tus.offset(&path), 7);
    user.part(id(&path), 4, b"j").ok();
    tus.patch(&path, 7, b"hi").refused(409, "parts_missing");
    user.part(id(&path), 3, b"hi").ok();
    let file = user.complete(id(&path)).ok();
    let head = tus.head(&path);
    assert_eq!(head.header("upload-key"), file["key"].as_str().unwrap());
    assert_eq!(content(&user, &head), b"abcdefghij");
    // Begun with init, part 0 first, ended in tus.
    let id_ = user.init("x", 6);
    user.part(&id_, 0, b"abc").ok();
    let path = format!("/v1/tus/{id_}");
    assert_eq!(tus.offset(&path), 3);
    assert_eq!(content(&user, &tus.patch(&path, 3, b"def")), b"abcdef");
    assert_eq!(user.get(&format!("/v1/files/{id_}")).ok()["state"], "completed");
    // All bytes are there and nobody completed it, as after a crash: the next HEAD does, but only
    // where the upload was begun in tus.
    let path = tus.create(3);
    user.part(id(&path), 1, b"abc").ok();
    assert_eq!(content(&user, &tus.head(&path)), b"abc");
    let id_ = user.init("x", 3);
    user.part(&id_, 1, b"abc").ok();
    let path = format!("/v1/tus/{id_}");
    assert_eq!(tus.offset(&path), 3);
    assert_eq!(user.get(&format!("/v1/files/{id_}")).ok()["state"], "open");
    // Aborted as every upload is.
    let path = tus.create(9);
    tus.append(&path, 0, b"x");
    user.delete(&format!("/v1/files/{}", id(&path))).ok();
    assert_eq!(tus.head(&path).status, 404);
    // Of no declared length, completed as what it is.
    let deferred = tus.with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    let path = self::path(&deferred);
    tus.append(&path, 0, b"all of it");
    assert_eq!(user.complete(id(&path)).ok()["sha256"], sha256(b"all of it"));
}

#[test]
fn locations_stand_behind_the_public_url() {
    let daemon = Daemon::with(&[("public_url", "https://files.example.com/store/")]);
    let created =
        Tus::of(&daemon.user("u")).with("upload-length", "1").0.send("POST", "/v1/tus/", "");
    let location = created.header("location");
    let id = location.strip_prefix("https://files.example.com/store/v1/tus/").unwrap();
    assert_eq!(id.len(), 32);
}

#[test]
fn acknowledged_bytes_survive_a_kill_and_the_upload_goes_on() {
    let mut daemon = Daemon::start();
    let content_ = bytes(8, 600_000);
    let path = {
        let tus = Tus::of(&daemon.user("u"));
        let path = tus.create(content_.len());
        tus.append(&path, 0, &content_[..100]);
        tus.append(&path, 100, &content_[100..300_000]);
        path
    };
    let hanging = begin_patch(&daemon, &path, 300_000, 300_000, &content_[300_000..500_000]);
    is_received(&daemon, 300_000);
    daemon.restart(Signal::KILL);
    drop(hanging);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    assert_eq!(tus.offset(&path), 300_000);
    let last = tus.patch(&path, 300_000, &content_[300_000..]);
    let key = last.header("upload-key").to_owned();
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    let head = Tus::of(&user).head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-key")), ("600000", &*key));
    assert_eq!(content(&user, &head), content_);
}

#[test]
fn a_stop_keeps_what_came() {
    let mut daemon = Daemon::with(&[("drain_timeout", "1s")]);
    daemon.expect_trouble("did not finish in time and were cut");
    let path = Tus::of(&daemon.user("u")).create(600_000);
    let hanging = begin_patch(&daemon, &path, 0, 600_000, &bytes(9, 200_000));
    is_received(&daemon, 0);
    daemon.restart(Signal::TERM);
    drop(hanging);
    let offset = Tus::of(&daemon.user("u")).offset(&path);
    assert!((1..=200_000).contains(&offset), "{offset}");
}
