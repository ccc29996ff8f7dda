//! The API description, as clients receive it.

use serde_json::Value;

use crate::support::{Daemon, sha256_in_base64};

#[test]
fn the_description_and_its_page_are_open_and_cacheable() {
    let daemon = Daemon::start();
    for (path, media) in
        [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")]
    {
        // A credential that is sent along is ignored.
        let anyone = daemon.anyone().header("authorization", "Bearer nonsense");
        let answer = anyone.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, media));
        let etag = answer.header("etag").to_owned();
        let again = anyone.header("if-none-match", &etag).get(path);
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(again.header("etag"), etag);
        let other = anyone.header("if-none-match", "\"other\"").get(path);
        assert_eq!(other.body, answer.body);
        let head = anyone.send("HEAD", path, "");
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
        anyone.post(path, "").refused(405, "method_not_allowed");
    }
    let document = daemon.anyone().get("/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"]["/v1/files/init"]["post"]["x-least-role"], "analyst");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let daemon = Daemon::start();
    let page = daemon.anyone().get("/docs");
    let html = String::from_utf8(page.body.clone()).unwrap();
    for outside in ["<script", "<img", "<link", "src=", "url(", "@import", "http://", "https://"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(html.contains("/v1/files/{uploadId}/parts/{partNumber}"));
}

/// Each header that is sent is described as a parameter. Each header of the upload protocols that
/// comes back is described for the status with which it came.
#[test]
fn the_headers_of_the_upload_protocols_are_described() {
    let daemon = Daemon::start();
    let document = daemon.anyone().get("/openapi.json").ok();
    let user = daemon.user("u");
    let ask = |method: &str, path: &str, sent: &[(&str, &str)], body: &str| {
        let client = sent.iter().fold(user.clone(), |user, (name, value)| user.header(name, value));
        let answer = client.send(method, path, body);
        let is_one = path.matches('/').count() > 2 && method != "PUT";
        let path = path.split('?').next().unwrap();
        let template = path.rsplit_once('/').filter(|_| is_one);
        let template = template.map_or(path.to_owned(), |(all, _)| format!("{all}/{{uploadId}}"));
        let operation = &document["paths"][&template][method.to_ascii_lowercase()];
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        // For a PUT, only the operation's text names these headers. If they were parameters,
        // schemathesis would send them and receive the answers of an upload.
        let is_told = |name: &str| name == "content-type" || method == "PUT";
        for (name, _) in sent.iter().filter(|(name, _)| !is_told(name)) {
            let is_known = |parameter: &Value| {
                parameter["in"] == "header"
                    && parameter["name"].as_str().unwrap().eq_ignore_ascii_case(name)
            };
            assert!(parameters.iter().any(is_known), "{method} {template} takes {name}");
        }
        let described = &operation["responses"][answer.status.to_string()]["headers"];
        let described: Vec<_> =
            described.as_object().unwrap().keys().map(|name| name.to_ascii_lowercase()).collect();
        for name in answer.headers.keys() {
            let name = name.as_str();
            let is_of_protocol = ["upload-", "tus-", "location", "accept-patch"].iter();
            if is_of_protocol.into_iter().any(|prefix| name.starts_with(prefix)) {
                assert!(
                    described.iter().any(|known| known == name),
                    "{method} {template} says {name}: {described:?}"
                );
            }
        }
        answer
    };
    let tus = ("tus-resumable", "1.0.0");
    let piece = ("content-type", "application/offset+octet-stream");
    let sent = [tus, ("upload-length", "6"), ("upload-metadata", "filename Zg==")];
    let created = ask("POST", "/v1/tus", &sent, "");
    assert_eq!(created.status, 201);
    let location = created.header("location").strip_prefix(daemon.url()).unwrap().to_owned();
    for (at, bytes) in [("0", "abc"), ("3", "def")] {
        let checksum = format!("sha256 {}", sha256_in_base64(bytes.as_bytes()));
        let sent = [tus, piece, ("upload-offset", at), ("upload-checksum", &checksum)];
        assert_eq!(ask("PATCH", &location, &sent, bytes).status, 204);
        assert_eq!(ask("HEAD", &location, &[tus], "").status, 200);
    }
    assert_eq!(ask("DELETE", &location, &[tus], "").status, 204);
    let part =
        ask("POST", "/v1/tus", &[tus, ("upload-length", "1"), ("upload-concat", "partial")], "");
    let part = part.header("location").to_owned();
    let whole = format!("final;{part}");
    let whole = ask("POST", "/v1/tus", &[tus, ("upload-concat", &whole)], "");
    let whole = whole.header("location").strip_prefix(daemon.url()).unwrap().to_owned();
    assert_eq!(ask("HEAD", &whole, &[tus], "").status, 200);
    assert_eq!(ask("OPTIONS", "/v1/tus", &[], "").status, 204);

    let sent = [("upload-complete", "?0"), ("upload-length", "6")];
    let begun = ask("PUT", "/v1/files/content?filename=f", &sent, "");
    let location = begun.header("location").strip_prefix(daemon.url()).unwrap().to_owned();
    let piece = ("content-type", "application/partial-upload");
    for (at, bytes, whole, status) in [("0", "abc", "?0", 204), ("3", "def", "?1", 201)] {
        let sent = [piece, ("upload-offset", at), ("upload-complete", whole)];
        assert_eq!(ask("PATCH", &location, &sent, bytes).status, status);
        assert_eq!(ask("HEAD", &location, &[], "").status, 204);
    }
    assert_eq!(ask("OPTIONS", &location, &[], "").status, 204);
    let begun = ask("PUT", "/v1/files/content?filename=f", &sent, "");
    let location = begun.header("location").strip_prefix(daemon.url()).unwrap().to_owned();
    assert_eq!(ask("DELETE", &location, &[], "").status, 204);
}
