//! Requests that no well-behaved client sends.

use std::io::Write;

use serde_json::json;

use crate::support::{
    Daemon, connect,
    daemon::TOKEN,
    eventually,
    raw::{answer_of, exchange},
};

fn raw(daemon: &Daemon, request: &[u8]) -> String {
    String::from_utf8_lossy(&exchange(daemon, request)).into_owned()
}

#[test]
fn unknown_paths_and_methods() {
    let daemon = Daemon::start();
    let service = daemon.service();
    for path in ["/", "/v1", "/nothing", "/v1/files/x/y/z"] {
        service.get(path).refused(404, "no_route");
    }
    service.get("/v1/files/storage/u/00000000_f").refused(405, "method_not_allowed");
    let answer = service.send("PATCH", "/v1/files/init", "");
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    service.get("/v1/files/metadata/%zz").refused(400, "invalid_path");
    service.get("/v1/files/metadata/%ff").refused(400, "invalid_path");
    // With lossy decoding, two names in Latin-1 would become one.
    service.get("/v1/files/all?user_id=m%FCller").refused(400, "invalid_query");
    let many: Vec<String> = (0..40).map(|n| format!("p{n}=")).collect();
    service.get(&format!("/v1/files/all?{}", many.join("&"))).refused(400, "invalid_query");
}

#[test]
fn bodies_that_are_not_what_they_should_be() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for body in ["", "{", "null", "[]", "\u{feff}{}", "{\"mode\":\"single\"}"] {
        for path in
            ["/v1/files/init", "/v1/files/part", "/v1/files/complete", "/v1/files/signed-url"]
        {
            user.post(path, body).refused(400, "invalid_json");
        }
    }
    for (file, code) in [
        (json!({"name": "f"}), "invalid_json"),
        (json!({"name": "f", "size": -1}), "invalid_json"),
        (json!({"name": "f", "size": 1.5}), "invalid_json"),
        (json!({"name": "f", "size": "1"}), "invalid_json"),
        (json!({"name": "", "size": 1}), "invalid_filename"),
        (json!({"name": "..", "size": 1}), "invalid_filename"),
        (json!({"name": "a/b", "size": 1}), "invalid_filename"),
        (json!({"name": "a\\b", "size": 1}), "invalid_filename"),
        (json!({"name": "a\nb", "size": 1}), "invalid_filename"),
        (json!({"name": "x".repeat(256), "size": 1}), "invalid_filename"),
    ] {
        let init = json!({"mode": "single", "files": [file]});
        user.post("/v1/files/init", init).refused(400, code);
    }
    let file = json!({"name": "f", "size": 1});
    for (member, value, code) in [
        ("mode", json!("double"), "invalid_json"),
        ("files", json!([]), "invalid_files"),
        ("files", json!([file, file]), "invalid_files"),
        ("folder", json!("a/../b"), "invalid_folder"),
        ("folder", json!(vec!["d"; 33].join("/")), "invalid_folder"),
        ("meta", json!([]), "invalid_json"),
        ("meta", json!({"x": "y".repeat(5000)}), "meta_too_large"),
    ] {
        let mut init = json!({"mode": "single", "files": [file]});
        init[member] = value;
        user.post("/v1/files/init", init).refused(400, code);
    }
    // An array of the members' values is not accepted in place of the object.
    let id = user.init("a", 0);
    for (path, body) in [
        ("/v1/files/part", json!([id, 1, "QUJD"])),
        ("/v1/files/complete", json!([id, null, null, null])),
        ("/v1/files/complete", json!({"uploadId": id, "parts": [["QUJD"]]})),
        ("/v1/files/init", json!(["single", [["a", 3, null]]])),
        ("/v1/files/init", json!({"mode": "single", "files": [["a", 3, null]]})),
        ("/v1/files/signed-url", json!(["storage/u/x", 60])),
    ] {
        user.post(path, body).refused(400, "invalid_json");
    }
    user.delete(&format!("/v1/files/{id}")).ok();
    let twice = r#"{"mode":"single","mode":"batch","files":[{"name":"f","size":1}]}"#;
    user.post("/v1/files/init", twice).refused(400, "invalid_json");
    assert_eq!(user.get("/v1/files/uploads").ok(), json!({"uploads": []}));
    // From a user, the user id in `meta` is ignored, however malformed it is. From a service it
    // counts, so it must be valid.
    for (meta, code) in [
        (json!({"user_id": -7}), "invalid_meta"),
        (json!({"user_id": 1.5}), "invalid_meta"),
        (json!({"user_id": 1, "user_email": 1.5}), "invalid_meta"),
        (json!({"user_id": "a/b"}), "invalid_user_id"),
        (json!({"user_email": ""}), "invalid_user_id"),
    ] {
        let init = json!({"mode": "single", "files": [file], "meta": meta});
        user.post("/v1/files/init?user_id=%2F", &init).ok();
        daemon.service().post("/v1/files/init", &init).refused(400, code);
    }
}

#[test]
fn a_client_that_leaves_mid_body_leaves_nothing() {
    let daemon = Daemon::start();
    let head = format!(
        "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
         x-service-token: {TOKEN}\r\ncontent-length: 1000000\r\n\r\n"
    );
    let answer = raw(&daemon, &[head.as_bytes(), &vec![7; 500_000]].concat());
    // The client closed only its sending side, so it can still read the answer.
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains(r#""code":"body_aborted""#), "{answer}");
    let tmp = daemon.dir().join("staging/tmp");
    eventually(|| std::fs::read_dir(&tmp).unwrap().count() == 0);
    assert_eq!(daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"], 0);
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let daemon = Daemon::start();
    let mut socket = connect(&daemon);
    let head = "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
                content-length: 30000000\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    // Some clients read no answer before they have sent everything.
    let piece = vec![7; 1 << 20];
    for _ in 0..30 {
        if socket.write_all(&piece).is_err() {
            break;
        }
    }
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\r\nconnection: close\r\n"));
}

#[test]
fn raw_targets_reach_the_same_key() {
    let daemon = Daemon::start();
    let file = daemon.user("u").store("naïve.txt", "ü", b"hello");
    let key = file["key"].as_str().unwrap();
    let request = format!(
        "GET /v1/files/metadata/{key} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\r\n"
    );
    assert!(raw(&daemon, request.as_bytes()).contains("\"naïve.txt\""));
    for request in ["GET /healthz HTTP/9.9\r\n\r\n", "nonsense\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let answer = raw(&daemon, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    let answer = raw(&daemon, long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    daemon.anyone().get("/healthz").ok();
}

/// In JSON Schema, and for the clients that print it, `1.0` is a whole number.
#[test]
fn whole_numbers_may_be_written_as_floats() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let init = |size| json!({"mode": "single", "files": [{"name": "f", "size": size}]});
    let upload = user.post("/v1/files/init", init(1.0)).ok()["uploadId"].clone();
    let part = json!({"uploadId": upload, "partNumber": 1.0, "chunkBase64": "eA=="});
    user.post("/v1/files/part", part).ok();
    let key = user.complete(upload.as_str().unwrap()).ok()["key"].clone();
    let form = json!({"file_key": key, "expires_in": 60.0});
    user.post("/v1/files/signed-url", form).ok();
    for size in [0.5, -1.0, 1e300] {
        user.post("/v1/files/init", init(size)).refused(400, "invalid_json");
    }
}

/// A second line of a header field counts as much as the first one (RFC 9110 section 5.3).
#[test]
fn a_second_line_about_the_body_is_not_passed_over() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("f", 5);
    let part = format!("/v1/files/{id}/parts/1");
    for path in ["/v1/files/content?filename=f", &part] {
        for codings in
            [&["identity", "gzip"][..], &["gzip", "identity"], &["identity, gzip"], &["", "br"]]
        {
            let coded = codings.iter().fold(user.clone(), |it, c| it.header("content-encoding", c));
            coded.put(path, "hello").refused(400, "encoded_content");
        }
    }
    let typed = user.header("content-type", "image/png");
    let twice = typed.header("content-type", "multipart/form-data; boundary=x");
    twice.put("/v1/files/content?filename=f", "hello").refused(400, "invalid_header");
    let tus = user.header("tus-resumable", "1.0.0").header("upload-offset", "0");
    let typed = tus.header("content-type", "application/offset+octet-stream");
    let twice = typed.header("content-type", "text/plain");
    let patched = twice.send("PATCH", &format!("/v1/tus/{id}"), "hello");
    patched.refused(415, "media_type_unsupported");
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["bytesReceived"], 0);
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let plain = user.header("content-encoding", "identity").header("content-encoding", "");
    plain.put(&part, "hello").ok();
}

/// Of two members with one name, two readers could take different ones, and one of those readers
/// checks who owns the file.
#[test]
fn meta_names_each_member_once() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let init = |meta: &str| {
        format!(r#"{{"mode":"single","files":[{{"name":"f","size":0}}],"meta":{meta}}}"#)
    };
    for twice in [
        r#"{"user_id":"u","user_id":"v"}"#,
        r#"{"user_id":"u","user\u005fid":"v"}"#,
        r#"{"user_id":"u","own":1,"own":1}"#,
    ] {
        service.post("/v1/files/init", init(twice)).refused(400, "invalid_json");
    }
    let opened = service.post("/v1/files/init", init(r#"{"user_id":"u","own":1}"#)).ok();
    let complete = |meta: &str| format!(r#"{{"uploadId":{},"meta":{meta}}}"#, opened["uploadId"]);
    let twice = complete(r#"{"filename":"a","filename":"b"}"#);
    service.post("/v1/files/complete", twice).refused(400, "invalid_json");
    let file = service.post("/v1/files/complete", complete("null")).ok();
    assert_eq!(file["filename"], "f");
    let path = format!("/v1/files/metadata/{}", file["key"].as_str().unwrap());
    assert_eq!(service.get(&path).ok()["meta"], json!({"own": 1}));
}

/// Invalid UTF-8 is refused even in members that nobody reads (RFC 8259 section 8.1).
#[test]
fn json_that_is_not_utf_8_is_none() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("f", 1);
    let broken =
        |body: String| body.into_bytes().into_iter().map(|b| if b == b'~' { 0xff } else { b });
    for (path, body) in [
        (
            "/v1/files/init",
            r#"{"mode":"single","files":[{"name":"f","size":0}],"x":"~"}"#.to_owned(),
        ),
        ("/v1/files/init", r#"{"mode":"single","files":[{"name":"f","size":0}],"~":1}"#.to_owned()),
        (
            "/v1/files/part",
            format!(r#"{{"x":"~","uploadId":"{id}","partNumber":1,"chunkBase64":"eA=="}}"#),
        ),
        (
            "/v1/files/part",
            format!(r#"{{"uploadId":"{id}","partNumber":1,"chunkBase64":"eA==","x":["~"]}}"#),
        ),
        ("/v1/files/complete", format!(r#"{{"uploadId":"{id}","x":{{"~":0}}}}"#)),
    ] {
        let body: Vec<u8> = broken(body).collect();
        user.send("POST", path, body).refused(400, "invalid_json");
    }
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["received"], json!([]));
}
