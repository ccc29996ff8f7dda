//! HTTP/1 as attackers write it: requests whose length two readers could understand differently,
//! odd targets and hosts, endless heads, values with line breaks.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read, Write},
};

use serde_json::json;

use crate::support::{
    Client, Daemon, base64, client::query, connect, daemon::TOKEN, raw::exchange,
};

/// The status codes in what came back.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let heads = text.split("HTTP/1.").skip(1);
    heads.map(|head| head[2..5].parse().unwrap()).collect()
}

const CHUNKED: &str = "transfer-encoding: chunked\r\n";
const HELLO: &str = "5\r\nhello\r\n0\r\n\r\n";

/// How the daemon treats a request, and the one behind it on the same connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    /// Its length is clear: both are answered.
    Clear,
    /// It is answered, and then the connection ends.
    Last,
    Refused,
}
use Taken::{Clear, Last, Refused};

const LENGTHS: &[(&str, &str, Taken)] = &[
    ("content-length: 5\r\n", "hello", Clear),
    ("content-length: 05\r\n", "hello", Clear),
    ("content-length:\t5 \r\n", "hello", Clear),
    ("content-length: 5\r\ncontent-length: 5\r\n", "hello", Clear),
    ("content-length: 5\r\ncontent-length: 6\r\n", "hello", Refused),
    ("content-length: 6\r\ncontent-length: 5\r\n", "hello", Refused),
    ("content-length: 5, 5\r\n", "hello", Refused),
    ("content-length: +5\r\n", "hello", Refused),
    ("content-length: -5\r\n", "hello", Refused),
    ("content-length: 0x5\r\n", "hello", Refused),
    ("content-length: 5.0\r\n", "hello", Refused),
    ("content-length: 5 5\r\n", "hello", Refused),
    ("content-length: 5;\r\n", "hello", Refused),
    ("content-length: ٥\r\n", "hello", Refused),
    ("content-length:\r\n", "hello", Refused),
    ("content-length : 5\r\n", "hello", Refused),
    ("content-length\t: 5\r\n", "hello", Refused),
    (" content-length: 5\r\n", "hello", Refused),
    ("content-length:\r\n 5\r\n", "hello", Refused),
    ("content-length: 18446744073709551615\r\n", "hello", Refused),
    ("content-length: 18446744073709551616\r\n", "hello", Refused),
    ("content-length: 18446744073709551621\r\n", "hello", Refused),
    ("content-length: 9223372036854775808\r\n", "hello", Refused),
    // Chunked counts, the length is dropped, and the connection ends (RFC 9112 section 6.1).
    ("content-length: 5\r\ntransfer-encoding: chunked\r\n", HELLO, Last),
    ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", HELLO, Last),
    ("content-length: 5\r\ntransfer-encoding : chunked\r\n", "hello", Refused),
    ("content-length: 5\r\ntransfer-encoding: identity\r\n", "hello", Refused),
    ("content-length: 5\r\ntransfer-encoding:\r\n", "hello", Refused),
    ("content-length: 5\r\ntransfer-encoding: xchunked\r\n", "hello", Refused),
    // A similar name is a different header.
    ("content-length: 5\r\ntransfer_encoding: chunked\r\n", "hello", Clear),
    ("content-length: 5\r\nx-transfer-encoding: chunked\r\n", "hello", Clear),
    ("content-length: 5\r\nx: a\r\ttransfer-encoding: chunked\r\n", "hello", Refused),
    ("content-length: 5\r\nx: a\0b\r\n", "hello", Refused),
    ("content-length: 5\r\nx\0: a\r\n", "hello", Refused),
    ("content-length: 5\r\nx y: a\r\n", "hello", Refused),
    ("content-length: 5\r\n: a\r\n", "hello", Refused),
    ("content-length: 5\r\nx\r\n", "hello", Refused),
];

const CODINGS: &[(&str, Taken)] = &[
    ("transfer-encoding: chunked\r\n", Clear),
    ("Transfer-Encoding:\tCHUNKED \r\n", Clear),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Refused),
    ("transfer-encoding: chunked, chunked\r\n", Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding: gzip, chunked\r\n", Refused),
    ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n", Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding:\r\n", Refused),
    ("transfer-encoding: gzip, chunked\r\n", Refused),
    ("transfer-encoding: chunked, gzip\r\n", Refused),
    ("transfer-encoding: ,chunked\r\n", Refused),
    ("transfer-encoding: chunked,\r\n", Refused),
    ("transfer-encoding: identity\r\n", Refused),
    ("transfer-encoding: \"chunked\"\r\n", Refused),
    ("transfer-encoding: chunked;q=1\r\n", Refused),
    ("transfer-encoding: xchunked\r\n", Refused),
    ("transfer-encoding: \u{b}chunked\r\n", Refused),
    ("transfer-encoding: chunked\0\r\n", Refused),
    ("transfer-encoding: chun ked\r\n", Refused),
    ("transfer-encoding:\r\n", Refused),
    ("transfer-encoding : chunked\r\n", Refused),
    (" transfer-encoding: chunked\r\n", Refused),
    ("transfer-encoding:\r\n chunked\r\n", Refused),
    ("transfer-encoding: chunked\r\n , gzip\r\n", Refused),
];

const CHUNKS: &[(&str, Taken)] = &[
    ("5;name=value\r\nhello\r\n0\r\n\r\n", Clear),
    ("5;name=\"a;b\"\r\nhello\r\n0;last\r\n\r\n", Clear),
    ("5 \t\r\nhello\r\n0\r\n\r\n", Clear),
    ("0000000005\r\nhello\r\n000\r\n\r\n", Clear),
    ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Clear),
    ("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", Refused),
    ("5;a\nhello\r\n0\r\n\r\n", Refused),
    ("5\nhello\r\n0\r\n\r\n", Refused),
    ("5\rhello\r\n0\r\n\r\n", Refused),
    ("5\r\nhello\n0\r\n\r\n", Refused),
    ("5\r\nhello0\r\n\r\n", Refused),
    ("-5\r\nhello\r\n0\r\n\r\n", Refused),
    ("+5\r\nhello\r\n0\r\n\r\n", Refused),
    ("0x5\r\nhello\r\n0\r\n\r\n", Refused),
    (" 5\r\nhello\r\n0\r\n\r\n", Refused),
    ("5_0\r\nhello\r\n0\r\n\r\n", Refused),
    ("5 5\r\nhello\r\n0\r\n\r\n", Refused),
    ("\r\nhello\r\n0\r\n\r\n", Refused),
    (";a\r\nhello\r\n0\r\n\r\n", Refused),
    ("g\r\nhello\r\n0\r\n\r\n", Refused),
    ("٥\r\nhello\r\n0\r\n\r\n", Refused),
    ("10000000000000000\r\nhello\r\n0\r\n\r\n", Refused),
    ("10000000000000005\r\nhello\r\n0\r\n\r\n", Refused),
    ("ffffffffffffffff\r\nhello\r\n0\r\n\r\n", Refused),
    ("4\r\nhello\r\n0\r\n\r\n", Refused),
    ("6\r\nhello\r\n0\r\n\r\n", Refused),
    ("5\r\nhello\r\n0\n\r\n", Refused),
    // hyper takes what follows for trailers, and a connection ends after trailers.
    ("5\r\nhello\r\n0\r\n\n", Last),
    ("5\r\nhello\r\n0\r\nx: y\r\n\r\n", Last),
    ("5\r\nhello\r\n0\r\ncontent-length: 9\r\nx-service-token: none\r\n\r\n", Last),
    ("5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n", Refused),
    ("5\r\nhello\r\n0\r\nnonsense\r\n\r\n", Refused),
];

#[test]
fn what_stands_behind_a_request_is_another_request_or_nothing() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let victim = daemon.user("v").store("victim", "", b"v")["key"].clone();
    let behind = format!(
        "DELETE /v1/files/{} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\r\n",
        victim.as_str().unwrap()
    );
    let coded = CODINGS.iter().map(|(lines, taken)| (*lines, HELLO, *taken));
    let chunked = CHUNKS.iter().map(|(body, taken)| (CHUNKED, *body, *taken));
    let mut stored = 0;
    for (lines, body, taken) in LENGTHS.iter().copied().chain(coded).chain(chunked) {
        let head = format!(
            "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
             x-service-token: {TOKEN}\r\n{lines}\r\n"
        );
        // Where both requests are answered, the second must not find the victim, so it names
        // another file.
        let behind =
            if taken == Clear { behind.replace("victim", "nobody") } else { behind.clone() };
        let found = statuses(&exchange(&daemon, format!("{head}{body}{behind}").as_bytes()));
        let wanted = match (taken, &found[..]) {
            (Clear, found) => found == [201, 404],
            (Last, found) => found == [201],
            (Refused, [status]) => (400..500).contains(status),
            (Refused, _) => false,
        };
        assert!(wanted, "{lines:?} {body:?} is not {taken:?}: {found:?}");
        stored += usize::from(taken != Refused);
    }
    let list = service.get("/v1/files/all?user_id=u").ok();
    assert_eq!((&list["total_count"], &list["total_size"]), (&json!(stored), &json!(stored * 5)));
    assert_eq!(service.content(victim.as_str().unwrap()).body, b"v");
    assert_eq!(service.get("/v1/files/all?user_id=v").ok()["total_count"], 1);
}

#[test]
fn old_versions_and_bodies_nobody_asked_for_hide_nothing() {
    let daemon = Daemon::start();
    let behind = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = behind.len();
    for (head, body, wanted) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", "", &[200][..]),
        ("GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "", &[200, 200]),
        ("GET /healthz HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", "0\r\n\r\n", &[400]),
        // The body is not read as a request, and the connection ends with its bytes unread.
        (
            &format!("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"),
            "",
            &[200],
        ),
        (
            &format!("HEAD /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"),
            "",
            &[200],
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
            "0\r\n\r\n",
            &[200],
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
            "",
            &[200, 200],
        ),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nexpect: 200-ok\r\n\r\n", "", &[200, 200]),
        ("\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "", &[200, 200]),
        ("GET /healthz\r\n\r\n", "", &[400]),
        ("GET  /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "", &[400]),
        ("GET\t/healthz\tHTTP/1.1\r\nhost: x\r\n\r\n", "", &[400]),
        ("GET /healthz HTTP/1.1 \r\nhost: x\r\n\r\n", "", &[400]),
        ("GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n", "", &[400]),
        ("GET /healthz HTTP/1.10\r\nhost: x\r\n\r\n", "", &[400]),
        ("G(T /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "", &[400]),
    ] {
        let found = statuses(&exchange(&daemon, format!("{head}{body}{behind}").as_bytes()));
        assert_eq!(found, wanted, "{head:?}");
    }
}

#[test]
fn a_request_names_its_host_once() {
    let daemon = Daemon::start();
    let mut named = 0;
    for (request, wanted) in [
        ("GET /healthz HTTP/1.1\r\nhost: example.com:80", 200),
        ("GET /healthz HTTP/1.1\r\nhost: [::1]:80", 200),
        ("GET /healthz HTTP/1.1\r\nhost:", 200),
        ("GET /healthz HTTP/1.1\r\nx: y", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a/b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: u@a", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a, b", 400),
        ("GET /healthz HTTP/1.0\r\nhost: a\r\nhost: b", 400),
        // The host of an absolute target takes precedence over Host; the daemon accepts any host.
        ("GET http://other/healthz HTTP/1.1\r\nhost: x", 200),
        ("GET http://u@other/healthz HTTP/1.1\r\nhost: x", 400),
        ("GET http://other/healthz HTTP/1.1\r\nx: y", 400),
        ("GET ftp://other/healthz HTTP/1.1\r\nhost: x", 400),
        ("GET http://other HTTP/1.1\r\nhost: x", 401),
        ("GET http:///healthz HTTP/1.1\r\nhost: x", 400),
        // The daemon is no proxy and connects nobody to another host.
        ("CONNECT other:80 HTTP/1.1\r\nhost: x", 401),
        ("CONNECT /healthz HTTP/1.1\r\nhost: x", 405),
        ("GET other:80 HTTP/1.1\r\nhost: x", 401),
        ("OPTIONS * HTTP/1.1\r\nhost: x", 401),
        ("TRACE /healthz HTTP/1.1\r\nhost: x\r\ncookie: secret", 405),
        ("GET //other/healthz HTTP/1.1\r\nhost: x", 401),
        ("GET /../healthz HTTP/1.1\r\nhost: x", 401),
        ("GET /healthz/../healthz HTTP/1.1\r\nhost: x", 401),
    ] {
        let answer = exchange(&daemon, format!("{request}\r\n\r\n").as_bytes());
        assert_eq!(statuses(&answer), [wanted], "{request:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("secret"));
        // If hyper cannot parse a request, its refusal has no body.
        let told = wanted == 400 && answer.contains("content-type");
        assert_eq!(told, answer.contains(r#""code":"invalid_host""#), "{request:?}: {answer}");
        named += usize::from(told);
    }
    assert!(named >= 5, "{named}");
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let daemon = Daemon::start();
    let mut requests = String::new();
    for n in 0..40 {
        // A durable write takes longer than the requests that are sent behind it.
        write!(
            requests,
            "PUT /v1/files/content?filename=f{n}&user_id=u HTTP/1.1\r\nhost: x\r\n\
             x-service-token: {TOKEN}\r\ncontent-length: 5\r\n\r\nhello\
             GET /v1/files/metadata/storage/u/{n} HTTP/1.1\r\nhost: x\r\n\
             x-service-token: {TOKEN}\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        .unwrap();
    }
    let answer = exchange(&daemon, requests.as_bytes());
    assert_eq!(statuses(&answer), [201, 404, 200].repeat(40));
    let answer = String::from_utf8(answer).unwrap();
    let names: Vec<_> = answer.match_indices(r#""filename":""#).map(|(at, _)| at).collect();
    let in_order = (0..40).map(|n| answer.find(&format!(r#""filename":"f{n}""#)).unwrap());
    assert_eq!(names, in_order.collect::<Vec<_>>());
}

/// A head, a chunk's first line or trailers without an end.
#[test]
fn what_does_not_end_is_ended_with_little_of_it_held() {
    let daemon = Daemon::with(&[("header_timeout", "2s"), ("body_idle_timeout", "2s")]);
    let put = format!(
        "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
         x-service-token: {TOKEN}\r\n{CHUNKED}\r\n"
    );
    let endless_trailers = format!("{put}5\r\nhello\r\n0\r\nx: ");
    let before = daemon.peak_memory_kib();
    for (begin, piece, statuses_wanted) in [
        ("GET /", "x", &[414, 431][..]),
        ("G", "G", &[400, 414, 431]),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nx: ", "y", &[431]),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n", "y", &[431]),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n", "x: y\r\n", &[431]),
        ("", "\r\n", &[400, 431]),
        (&format!("{put}5;"), "x", &[400]),
        (&put, "0", &[400, 408]),
        (&format!("{put}5"), " ", &[400, 408]),
        (&endless_trailers, "y", &[400]),
        (&endless_trailers, "y\r\nx:", &[400]),
    ] {
        let mut socket = connect(&daemon);
        socket.write_all(begin.as_bytes()).unwrap();
        let pieces = piece.repeat((64 << 10) / piece.len());
        let mut sent = 0;
        while sent < 16 << 20 && socket.write_all(pieces.as_bytes()).is_ok() {
            sent += pieces.len();
        }
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let held = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!held, "{begin:?} {piece:?}: the daemon listens for ever");
        // The system keeps what came before the connection was reset.
        let found = statuses(&answer);
        let fits = found.iter().all(|status| statuses_wanted.contains(status));
        assert!(fits && found.len() == 1, "{begin:?} {piece:?}: {found:?}");
    }
    let grown = daemon.peak_memory_kib() - before;
    assert!(grown < 8 << 10, "{grown} KiB");
    assert_eq!(daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"], 0);
}

/// Covers every value that a client can choose and that comes back in a header.
#[test]
fn no_value_adds_a_header_or_an_answer() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let evil = "a\r\nset-cookie: x=y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    for line_break in ["\r\n", "\n", "\r", "\u{85}", "\0"] {
        let evil = query(&format!("a{line_break}set-cookie: x=y"));
        let key = format!("storage/u/{evil}");
        for (method, path, code) in [
            ("PUT", format!("/v1/files/content?user_id=u&filename={evil}"), "invalid_filename"),
            (
                "PUT",
                format!("/v1/files/content?user_id=u&filename=f&folder={evil}"),
                "invalid_folder",
            ),
            ("PUT", format!("/v1/files/content?user_id={evil}&filename=f"), "invalid_user_id"),
            ("POST", format!("/v1/files/generate-token?user_id={evil}"), "invalid_user_id"),
            ("GET", format!("/v1/files/all?user_id=u&folder={evil}"), "invalid_folder"),
            (
                "GET",
                format!("/v1/files/signed-url?key=storage/u/f&disposition={evil}"),
                "invalid_disposition",
            ),
        ] {
            service.send(method, &path, "x").refused(400, code);
        }
        for path in
            [format!("metadata/{key}"), format!("content/{key}"), format!("signed-url?key={key}")]
        {
            service.get(&format!("/v1/files/{path}")).refused(404, "file_not_found");
        }
    }
    let init = |file, meta| json!({"mode": "single", "files": [file], "meta": meta});
    let (path, file) = ("/v1/files/init?user_id=u", json!({"name": "f", "size": 1}));
    let mime = json!({"name": "f", "size": 1, "mime": format!("text/plain{evil}")});
    service.post(path, init(mime, json!({}))).refused(400, "invalid_mime");
    let named = json!({"filename": evil, "folder": "d"});
    let id = service.post(path, init(file, named)).ok()["uploadId"].clone();
    service.put(&format!("/v1/files/{}/parts/0", id.as_str().unwrap()), "x").ok();
    let complete = json!({"uploadId": id, "meta": {"filename": evil}});
    service.post("/v1/files/complete", complete).refused(400, "invalid_filename");

    // Metadata that is kept for the client comes back encoded.
    let tus = service.header("tus-resumable", "1.0.0").header("upload-length", "1");
    let with = |name: &str| {
        let pairs = format!("{name} {},other {}", base64(evil.as_bytes()), base64(evil.as_bytes()));
        tus.header("upload-metadata", &pairs).post("/v1/tus?user_id=u", "")
    };
    with("filename").refused(400, "invalid_filename");
    with("filetype").refused(400, "invalid_mime");
    let created = with("own");
    assert_eq!(created.status, 201);
    let location = created.header("location").to_owned();
    let path = location.split_once("/v1/").unwrap().1;
    let head = Client::send(&tus, "HEAD", &format!("/v1/{path}"), "");
    assert!(head.header("upload-metadata").contains(&base64(evil.as_bytes())));
    assert!(head.headers.get("set-cookie").is_none());
}

/// Every byte of the answer's head is printable ASCII, whatever the name of the file.
#[test]
fn names_stand_in_headers_as_ascii() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for name in [
        "\u{2028}x\u{2029}",
        "ü\u{202e}fdp.exe",
        "\"; x=\"",
        "a\u{feff}",
        "👍\u{200d}",
        "%0d%0a",
        "é",
    ] {
        let key = user.store(name, "", b"x")["key"].as_str().unwrap().to_owned();
        let url =
            user.get(&format!("/v1/files/signed-url?key={}&disposition=attachment", query(&key)));
        let url = url.ok()["url"].as_str().unwrap().to_owned();
        let target = url.split_once("/get/").unwrap().1;
        let request = format!("GET /get/{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(&daemon, request.as_bytes());
        let head = answer.split(|byte| *byte == b'\r').take_while(|line| *line != b"\n");
        let lines: Vec<_> = head.collect();
        let visible = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
        assert!(lines.iter().all(|line| line.iter().all(visible)), "{name:?}");
        let told =
            lines.iter().filter(|line| line.starts_with(b"\ncontent-disposition: attachment;"));
        assert_eq!((told.count(), statuses(&answer)), (1, vec![200]), "{name:?}");
    }
}
