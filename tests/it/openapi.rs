//! The description of the surface, as clients are given it.

use crate::support::Daemon;

#[test]
fn the_description_and_its_page_are_open_and_cacheable() {
    let daemon = Daemon::start();
    for (path, media) in
        [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")]
    {
        // What is sent along is not looked at.
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
