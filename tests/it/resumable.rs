//! The IETF draft on resumable uploads, rule by rule.

use std::{io::Write, net::TcpStream};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, Daemon, bytes,
    client::Answer,
    digest_field, eventually,
    harm::damage,
    is_received, patched,
    raw::{answer_of, begin_awaited},
    sha256,
};

const PIECE_TYPE: &str = "application/partial-upload";
const PUT: &str = "/v1/files/content?filename=f&folder=a";

/// A client that speaks the draft.
struct Draft(Client);

impl Draft {
    fn of(client: &Client) -> Self {
        Self(client.header("upload-draft-interop-version", "8"))
    }

    fn with(&self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    /// Begins an upload with some bytes and returns the path of its resource.
    fn begin(&self, size: Option<usize>, bytes: &[u8]) -> String {
        let begun = self.with("upload-complete", "?0");
        let begun = match size {
            Some(size) => begun.with("upload-length", &size.to_string()),
            None => begun,
        };
        let created = begun.0.put(PUT, bytes);
        assert_eq!(created.status, 201, "{created:?}");
        assert_eq!(created.header("upload-complete"), "?0");
        assert_eq!(created.header("upload-offset"), bytes.len().to_string());
        path(&created)
    }

    fn head(&self, path: &str) -> Answer {
        self.0.send("HEAD", path, "")
    }

    /// What a HEAD tells: offset, completeness, length.
    fn state(&self, path: &str) -> (usize, String, Option<usize>) {
        let head = self.head(path);
        assert_eq!((head.status, head.header("cache-control")), (204, "no-store"));
        assert!(head.headers.get("content-length").is_none());
        let length = head.headers.get("upload-length");
        (
            head.header("upload-offset").parse().unwrap(),
            head.header("upload-complete").to_owned(),
            length.map(|length| length.to_str().unwrap().parse().unwrap()),
        )
    }

    fn patch(&self, path: &str, offset: usize, complete: &str, body: &[u8]) -> Answer {
        let typed = self.with("content-type", PIECE_TYPE).with("upload-complete", complete);
        typed.with("upload-offset", &offset.to_string()).0.send("PATCH", path, body)
    }

    /// Appends a piece that is not the last.
    fn append(&self, path: &str, offset: usize, body: &[u8]) {
        let answer = self.patch(path, offset, "?0", body);
        assert_eq!((answer.status, answer.header("upload-complete")), (204, "?0"), "{answer:?}");
        assert_eq!(answer.header("upload-offset"), (offset + body.len()).to_string());
    }
}

/// The path of a new upload resource.
fn path(created: &Answer) -> String {
    let location = created.header("location");
    location[location.find("/v1/uploads/").unwrap()..].to_owned()
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// Begins a PATCH with the last `size` bytes and sends only some of them.
fn begin_patch(daemon: &Daemon, path: &str, offset: usize, size: usize, some: &[u8]) -> TcpStream {
    let lines = format!(
        "content-type: {PIECE_TYPE}\r\nupload-offset: {offset}\r\nupload-complete: ?1\r\n\
         content-length: {size}\r\n",
    );
    let mut socket = begin_awaited(daemon, &format!("PATCH {path}"), &lines);
    socket.write_all(some).unwrap();
    socket
}

fn nothing_is_open(client: &Client) {
    assert_eq!(client.get("/v1/files/uploads").ok(), json!({"uploads": []}));
}

#[test]
fn options_say_what_is_taken() {
    let settings = [("file_bytes_max", "9000"), ("part_bytes_max", "500"), ("upload_ttl", "1h")];
    let daemon = Daemon::with(&settings);
    let limit = "max-size=9000, max-append-size=500, max-age=3600";
    for (path, allow) in [
        ("/v1/files/content", "OPTIONS, PUT"),
        ("/v1/uploads/00000000000000000000000000000000", "OPTIONS, HEAD, PATCH, DELETE"),
    ] {
        let options = daemon.user("u").send("OPTIONS", path, "");
        assert_eq!((options.status, options.header("accept-patch")), (204, PIECE_TYPE));
        assert_eq!((options.header("upload-limit"), options.header("allow")), (limit, allow));
        daemon.anyone().send("OPTIONS", path, "").refused(401, "unauthenticated");
        daemon.user("u").post(path, "").refused(405, "method_not_allowed");
    }
    // The refusal of a body that is too large names the limits.
    let draft = Draft::of(&daemon.user("u"));
    let refused = draft.with("upload-complete", "?1").0.put(PUT, vec![0; 9001]);
    refused.refused(413, "too_large");
    assert_eq!(refused.header("upload-limit"), limit);
    let path = draft.begin(None, b"x");
    let refused = draft.patch(&path, 1, "?0", &[0; 501]);
    refused.refused(413, "too_large");
    assert_eq!(refused.header("upload-limit"), limit);
    assert_eq!(draft.state(&path).0, 1);
}

#[test]
fn a_whole_file_in_one_request_is_a_request_like_any_other() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let whole = Draft::of(&user).with("upload-complete", "?1");
    for said in [&whole, &whole.with("upload-length", "5")] {
        let stored = said.0.put(PUT, "hello");
        assert_eq!((stored.status, stored.header("upload-complete")), (201, "?1"));
        assert_eq!(stored.header("upload-key"), stored.json()["key"].as_str().unwrap());
        assert_eq!(stored.header("repr-digest"), digest_field(b"hello"));
        assert_eq!(user.content(stored.json()["key"].as_str().unwrap()).body, b"hello");
    }
    let empty = whole.0.put(PUT, "");
    assert_eq!((empty.status, empty.header("upload-complete")), (201, "?1"));
    whole.with("upload-length", "4").0.put(PUT, "hello").refused(400, "inconsistent_upload_length");
    let chunked = whole.with("upload-length", "4").with("transfer-encoding", "chunked");
    chunked.0.put(PUT, "hello").refused(400, "inconsistent_upload_length");
    whole
        .with("repr-digest", &digest_field(b"x"))
        .0
        .put(PUT, "hello")
        .refused(400, "digest_mismatch");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 3);
    nothing_is_open(&user);
    // There is no file yet that `If-Match` could match.
    user.header("if-match", "*").put(PUT, "hello").refused(412, "precondition_failed");
    assert_eq!(user.header("if-none-match", "*").put(PUT, "hello").status, 201);
    // Without a well-formed `Upload-Complete`, the request is a plain upload, as it always was.
    for (name, value) in [
        ("upload-length", "4"),
        ("upload-offset", "7"),
        ("upload-complete", "0"),
        ("upload-complete", "?0, ?0"),
        ("upload-complete", "\"?0\""),
    ] {
        let stored = user.header(name, value).put(PUT, "hello");
        assert_eq!(stored.status, 201);
        assert!(stored.headers.keys().all(|name| !name.as_str().starts_with("upload-")));
        assert_eq!(stored.json()["size"], 5);
    }
}

#[test]
fn an_upload_goes_on_where_it_stands_and_becomes_a_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    let content = bytes(1, 300_000);
    let typed = draft.with("content-type", "image/png");
    let path = typed.begin(Some(content.len()), &content[..100_000]);
    assert_eq!(draft.state(&path), (100_000, "?0".into(), Some(300_000)));
    let head = draft.head(&path);
    assert_eq!(head.header("upload-draft-interop-version"), "8");
    let escaped = user.send("HEAD", &path.replace("uploads", "upload%73"), "");
    assert_eq!(escaped.header("upload-draft-interop-version"), "8");
    let limits: Vec<_> = head.header("upload-limit").split(", ").collect();
    let left: u64 = limits[2].strip_prefix("max-age=").unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&left), "{left}");
    draft.append(&path, 100_000, &content[100_000..200_000]);
    draft.append(&path, 200_000, b"");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let last = draft.patch(&path, 200_000, "?1", &content[200_000..]);
    assert_eq!((last.status, last.header("upload-complete")), (201, "?1"));
    assert_eq!(last.header("repr-digest"), digest_field(&content));
    let file = last.json();
    assert_eq!((&file["sha256"], &file["folder"]), (&json!(sha256(&content)), &json!("a")));
    assert_eq!(file["mime"], "image/png");
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
    // A client that lost this answer learns the same from the upload resource.
    assert_eq!(draft.state(&path), (300_000, "?1".into(), Some(300_000)));
    let head = draft.head(&path);
    assert_eq!(head.header("upload-key"), file["key"].as_str().unwrap());
    assert_eq!(head.header("repr-digest"), digest_field(&content));
    // A completed upload takes nothing more.
    let more = draft.patch(&path, 300_000, "?1", b"");
    let problem = more.refused(400, "upload_completed");
    let registered = "https://iana.org/assignments/http-problem-types#completed-upload";
    assert_eq!(problem["type"], registered);
    draft.patch(&path, 300_000, "?0", b"x").refused(400, "inconsistent_upload_length");
    let chunked = draft.with("transfer-encoding", "chunked");
    chunked.patch(&path, 300_000, "?1", b"").refused(400, "upload_completed");
    chunked.patch(&path, 300_000, "?1", b"x").refused(400, "inconsistent_upload_length");
    draft.0.delete(&path).refused(409, "upload_completed");
    user.delete_file(&file).ok();
    assert_eq!(draft.head(&path).status, 410);
}

#[test]
fn all_bytes_are_not_the_end_before_the_client_says_so() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    let known = draft.begin(Some(5), b"hello");
    let unknown = draft.begin(None, b"");
    draft.with("upload-length", "5").append(&unknown, 0, b"hello");
    for path in [known, unknown] {
        assert_eq!(draft.state(&path), (5, "?0".into(), Some(5)));
        let last = draft.patch(&path, 5, "?1", b"");
        assert_eq!(last.status, 201, "{last:?}");
        assert_eq!(user.content(last.json()["key"].as_str().unwrap()).body, b"hello");
    }
    // If no length was declared, it is the length of what was received.
    let path = draft.begin(None, b"hello");
    assert_eq!(draft.state(&path), (5, "?0".into(), None));
    let last = draft.with("transfer-encoding", "chunked").patch(&path, 5, "?1", b" you");
    assert_eq!(user.content(last.json()["key"].as_str().unwrap()).body, b"hello you");
    assert_eq!(draft.state(&path), (9, "?1".into(), Some(9)));
    let empty = draft.begin(Some(0), b"");
    assert_eq!(draft.state(&empty), (0, "?0".into(), Some(0)));
    assert_eq!(draft.patch(&empty, 0, "?1", b"").json()["size"], 0);
}

/// The length of the last piece determines the length of the whole, but only if the piece is kept.
#[test]
fn a_last_piece_that_is_refused_says_nothing_of_the_length() {
    let daemon = Daemon::start();
    let draft = Draft::of(&daemon.user("u"));
    let path = draft.begin(None, b"abc");
    let last = draft.with("upload-complete", "?1");
    let wrong = last.with("content-digest", &digest_field(b"other"));
    let piece = |draft: &Draft, bytes: &[u8]| {
        let typed = draft.with("content-type", PIECE_TYPE).with("upload-offset", "3");
        typed.0.send("PATCH", &path, bytes)
    };
    piece(&wrong, b"defgh").refused(400, "digest_mismatch");
    let chunked = last.with("transfer-encoding", "chunked").with("upload-length", "99");
    piece(&chunked, b"def").refused(400, "inconsistent_upload_length");
    assert_eq!(draft.state(&path), (3, "?0".to_owned(), None));
    assert_eq!(piece(&last, b"def").json()["size"], 6);
}

#[test]
fn what_does_not_fit_together_changes_nothing() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    let begin = |name: &str, value: &str, size: &str| {
        draft.with("upload-complete", "?0").with("upload-length", size).with(name, value)
    };
    begin("x-a", "b", "4").0.put(PUT, "hello").refused(400, "inconsistent_upload_length");
    let chunked = begin("transfer-encoding", "chunked", "4");
    chunked.0.put(PUT, "hello").refused(413, "too_large");
    begin("content-encoding", "gzip", "9").0.put(PUT, "hello").refused(400, "encoded_content");
    begin("content-digest", &digest_field(b"x"), "9")
        .0
        .put(PUT, "hello")
        .refused(400, "digest_mismatch");
    let unnamed = draft.with("upload-complete", "?0").0.put("/v1/files/content", "x");
    unnamed.refused(400, "missing_parameter");
    nothing_is_open(&user);

    let path = draft.begin(Some(10), b"abc");
    let typed = draft.with("content-type", PIECE_TYPE);
    typed
        .with("upload-complete", "?0")
        .0
        .send("PATCH", &path, "x")
        .refused(400, "invalid_upload_offset");
    typed
        .with("upload-offset", "3")
        .0
        .send("PATCH", &path, "x")
        .refused(400, "invalid_upload_complete");
    let other = draft.with("content-type", "application/offset+octet-stream");
    let other = other.with("upload-offset", "3").with("upload-complete", "?0");
    let other = other.0.send("PATCH", &path, "x");
    other.refused(415, "media_type_unsupported");
    assert_eq!(other.header("accept-patch"), PIECE_TYPE);
    let elsewhere = draft.patch(&path, 5, "?0", b"x");
    let problem = elsewhere.refused(409, "offset_mismatch");
    assert_eq!((&problem["expected-offset"], &problem["provided-offset"]), (&json!(3), &json!(5)));
    let registered = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
    assert_eq!(problem["type"], registered);
    assert_eq!(elsewhere.header("upload-offset"), "3");
    // A header or the last piece declares the length, and a second declaration must not differ.
    let inconsistent = |answer: Answer| {
        let problem = answer.refused(400, "inconsistent_upload_length");
        let registered =
            "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";
        assert_eq!(problem["type"], registered);
    };
    inconsistent(draft.patch(&path, 3, "?1", b"short"));
    inconsistent(draft.with("transfer-encoding", "chunked").patch(&path, 3, "?1", b"short"));
    inconsistent(draft.with("upload-length", "11").patch(&path, 3, "?0", b"x"));
    inconsistent(draft.with("upload-length", "10").patch(&path, 3, "?1", b"x"));
    draft.patch(&path, 3, "?0", b"eight by").refused(413, "too_large");
    let wrong = draft.with("content-digest", &digest_field(b"x"));
    wrong.patch(&path, 3, "?0", b"defg").refused(400, "digest_mismatch");
    draft
        .with("content-digest", "sha-256=x")
        .patch(&path, 3, "?0", b"")
        .refused(400, "invalid_digest");
    assert_eq!(draft.state(&path), (3, "?0".into(), Some(10)));
    draft.with("content-digest", &digest_field(b"defg")).append(&path, 3, b"defg");
    // The digest of the whole is checked when the upload ends. If it is wrong, the received bytes
    // stay.
    let wrong = draft.with("repr-digest", &digest_field(b"x"));
    wrong.patch(&path, 7, "?1", b"hij").refused(400, "sha256_mismatch");
    assert_eq!(draft.state(&path), (10, "?0".into(), Some(10)));
    let right = draft.with("repr-digest", &digest_field(b"abcdefghij"));
    assert_eq!(right.patch(&path, 10, "?1", b"").status, 201);
    // A digest that was given at the beginning is kept, and is checked at the end, whichever way
    // the upload is ended.
    let path = draft.with("repr-digest", &digest_field(b"hello")).begin(None, b"hel");
    draft.patch(&path, 3, "?1", b"p!").refused(400, "sha256_mismatch");
    user.complete(id(&path)).refused(400, "sha256_mismatch");
    let path = draft.with("repr-digest", &digest_field(b"hello")).begin(None, b"hel");
    assert_eq!(draft.patch(&path, 3, "?1", b"lo").status, 201);
    let unreadable = draft.with("repr-digest", "sha-256=?").with("upload-complete", "?0");
    unreadable.0.put(PUT, "x").refused(400, "invalid_digest");
    // The length that a cut piece declared is kept.
    let path = draft.begin(None, b"");
    let hanging = begin_patch(&daemon, &path, 0, 300_000, &bytes(7, 200_000));
    is_received(&daemon, 0);
    let (at, _, length) = draft.state(&path);
    assert!((1..=200_000).contains(&at), "{at}");
    assert_eq!(length, Some(300_000));
    assert!(answer_of(hanging).starts_with("HTTP/1.1 409"));
    inconsistent(draft.patch(&path, at, "?1", b"short"));
}

#[test]
fn an_upload_of_another_user_is_not_there_and_a_cancelled_one_is_gone() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let (draft, other) = (Draft::of(&user), Draft::of(&daemon.user("v")));
    let path = draft.begin(Some(5), b"he");
    other.patch(&path, 2, "?1", b"llo").refused(404, "upload_not_found");
    other.0.delete(&path).refused(404, "upload_not_found");
    assert_eq!(other.head(&path).status, 404);
    let hanging = begin_patch(&daemon, &path, 2, 3, b"l");
    assert_eq!(draft.0.delete(&path).status, 204);
    assert!(answer_of(hanging).starts_with("HTTP/1.1 409"));
    assert_eq!(draft.head(&path).status, 404);
    draft.patch(&path, 2, "?1", b"llo").refused(404, "upload_not_found");
    nothing_is_open(&user);
    // A service must name the user.
    let service = Draft::of(&daemon.service()).with("upload-complete", "?0");
    service.0.put(PUT, "x").refused(400, "user_required");
    let begun = service.0.put(&format!("{PUT}&user_id=v"), "x");
    let last = other.patch(&self::path(&begun), 1, "?1", b"y");
    assert!(last.json()["key"].as_str().unwrap().starts_with("storage/v/a/"));
}

#[test]
fn what_a_vanished_client_sent_is_kept_and_a_newer_request_takes_over() {
    let daemon = Daemon::with(&[("body_idle_timeout", "1s")]);
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    let content = bytes(5, 1_000_000);
    let path = draft.begin(Some(content.len()), b"");
    for (begin, end) in [(0, 400_000), (400_000, 400_100)] {
        let ended = patched(&daemon) + 1;
        drop(begin_patch(&daemon, &path, begin, content.len() - begin, &content[begin..end]));
        eventually(|| patched(&daemon) == ended);
        assert_eq!(draft.state(&path), (end, "?0".into(), Some(content.len())));
    }
    // A client that stops sending is told so.
    let left = content.len() - 400_100;
    let idle = begin_patch(&daemon, &path, 400_100, left, &content[400_100..500_000]);
    assert!(answer_of(idle).starts_with("HTTP/1.1 408"));
    assert_eq!(draft.state(&path).0, 500_000);
    // A request whose client is only slow gives way to a newer one.
    let hanging = begin_patch(&daemon, &path, 500_000, 500_000, b"");
    let last = draft.patch(&path, 500_000, "?1", &content[500_000..]);
    assert_eq!(user.content(last.json()["key"].as_str().unwrap()).body, content);
    assert!(answer_of(hanging).starts_with("HTTP/1.1 409"));
}

#[test]
fn three_dialects_speak_of_one_session() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    let tus = user.header("tus-resumable", "1.0.0");
    let tus_patch = |path: &str, offset: &str, body: &str| {
        let typed = tus.header("content-type", "application/offset+octet-stream");
        typed.header("upload-offset", offset).send("PATCH", path, body)
    };
    // Begun in the draft, continued in tus and with parts, ended in the draft.
    let path = draft.begin(Some(12), b"abc");
    let in_tus = format!("/v1/tus/{}", id(&path));
    assert_eq!(tus_patch(&in_tus, "3", "def").header("upload-offset"), "6");
    user.part(id(&path), 2, b"ghi").ok();
    assert_eq!(draft.state(&path), (9, "?0".into(), Some(12)));
    user.part(id(&path), 4, b"l").ok();
    draft.patch(&path, 9, "?0", b"jk").refused(409, "parts_missing");
    user.part(id(&path), 3, b"jk").ok();
    let status = user.get(&format!("/v1/files/{}", id(&path))).ok();
    assert_eq!((&status["bytesReceived"], &status["state"]), (&json!(12), &json!("open")));
    let last = draft.patch(&path, 12, "?1", b"").json();
    assert_eq!(user.content(last["key"].as_str().unwrap()).body, b"abcdefghijkl");
    assert_eq!(tus.send("HEAD", &in_tus, "").header("upload-key"), last["key"].as_str().unwrap());
    assert_eq!(user.complete(id(&path)).ok(), last);
    // Begun in tus, where the last byte ends the upload, even when the draft carries it.
    let created = tus.header("upload-length", "6").send("POST", "/v1/tus", "");
    let id_ = created.header("location").rsplit('/').next().unwrap().to_owned();
    let path = format!("/v1/uploads/{id_}");
    draft.append(&path, 0, b"abc");
    let last = draft.patch(&path, 3, "?0", b"def");
    assert_eq!((last.status, last.header("upload-complete")), (201, "?1"));
    // Begun with init and ended in the draft; then begun in the draft and ended with complete.
    let id_ = user.init("x", 6);
    user.part(&id_, 0, b"abc").ok();
    let last = draft.patch(&format!("/v1/uploads/{id_}"), 3, "?1", b"def").json();
    assert_eq!(user.content(last["key"].as_str().unwrap()).body, b"abcdef");
    let path = draft.begin(None, b"all of it");
    assert_eq!(user.complete(id(&path)).ok()["sha256"], sha256(b"all of it"));
    assert_eq!(draft.state(&path), (9, "?1".into(), Some(9)));
    // Begun in the draft, with the last byte sent by tus.
    let path = draft.begin(Some(4), b"abc");
    assert!(
        tus_patch(&format!("/v1/tus/{}", id(&path)), "3", "d")
            .header("upload-key")
            .starts_with("storage/u/a/")
    );
    assert_eq!(draft.state(&path), (4, "?1".into(), Some(4)));
    // Aborted like every other upload.
    let path = draft.begin(None, b"x");
    user.delete(&format!("/v1/files/{}", id(&path))).ok();
    assert_eq!(draft.head(&path).status, 404);
}

#[test]
fn locations_stand_behind_the_public_url() {
    let daemon = Daemon::with(&[("public_url", "https://files.example.com/store/")]);
    let begun = Draft::of(&daemon.user("u")).with("upload-complete", "?0").0.put(PUT, "x");
    let location = begun.header("location");
    let id = location.strip_prefix("https://files.example.com/store/v1/uploads/").unwrap();
    assert_eq!(id.len(), 32);
}

#[test]
fn acknowledged_bytes_survive_a_kill_and_the_upload_goes_on() {
    let mut daemon = Daemon::start();
    let content = bytes(8, 600_000);
    let path = {
        let draft = Draft::of(&daemon.user("u"));
        let path = draft.begin(Some(content.len()), &content[..100]);
        draft.append(&path, 100, &content[100..300_000]);
        path
    };
    let hanging = begin_patch(&daemon, &path, 300_000, 300_000, &content[300_000..500_000]);
    is_received(&daemon, 300_000);
    daemon.restart(Signal::KILL);
    drop(hanging);
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    assert_eq!(draft.state(&path), (300_000, "?0".into(), Some(600_000)));
    let file = draft.patch(&path, 300_000, "?1", &content[300_000..]).json();
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    assert_eq!(Draft::of(&user).state(&path), (600_000, "?1".into(), Some(600_000)));
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
}

/// Bytes behind a damaged piece are of no use to a client that sends in order.
#[test]
fn an_upload_goes_on_where_damage_begins() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged parts");
    let content = bytes(11, 600_000);
    let path = {
        let draft = Draft::of(&daemon.user("u"));
        let path = draft.begin(Some(content.len()), &content[..100_000]);
        draft.append(&path, 100_000, &content[100_000..200_000]);
        draft.append(&path, 200_000, &content[200_000..400_000]);
        path
    };
    damage(&daemon.dir().join("staging"), &content[100_000..200_000]);
    // Bytes that were hashed on arrival are not read again, unless their hash was forgotten, as in
    // a restart.
    daemon.restart(Signal::TERM);
    let user = daemon.user("u");
    let draft = Draft::of(&user);
    draft.patch(&path, 400_000, "?1", &content[400_000..]).refused(409, "parts_missing");
    assert_eq!(draft.state(&path), (100_000, "?0".into(), Some(content.len())));
    draft.append(&path, 100_000, &content[100_000..300_000]);
    let last = draft.patch(&path, 300_000, "?1", &content[300_000..]);
    assert_eq!(last.status, 201, "{last:?}");
    assert_eq!(user.content(last.json()["key"].as_str().unwrap()).body, content);
}
