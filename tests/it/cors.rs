//! Requests from pages of other origins in a browser (CORS).

use rustix::process::Signal;

use crate::support::{Client, Daemon, client::Answer};

const APP: &str = "https://app.example";

/// The value of a header; empty if the answer does not have it.
fn told<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn from(client: &Client, origin: &str) -> Client {
    client.header("origin", origin)
}

/// The preflight request that a browser sends before it lets a page upload.
fn preflight(daemon: &Daemon, origin: &str) -> Answer {
    from(&daemon.anyone(), origin)
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "authorization,upload-offset")
        .send("OPTIONS", "/v1/tus/0123", "")
}

#[test]
fn pages_of_allowed_origins_may_ask_and_no_others() {
    let daemon = Daemon::with(&[("allowed_origins", "http://localhost:3000, https://app.example")]);
    let user = daemon.user("u");
    let allowed = preflight(&daemon, APP);
    assert_eq!(allowed.status, 204);
    assert_eq!(told(&allowed, "access-control-allow-origin"), APP);
    assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(told(&allowed, "access-control-allow-headers"), "authorization,upload-offset");
    let stored = from(&user, APP).put("/v1/files/content?filename=f", "x");
    assert_eq!((stored.status, told(&stored, "access-control-allow-origin")), (201, APP));
    assert_eq!(told(&stored, "access-control-expose-headers"), "*");
    assert_eq!(told(&stored, "vary"), "Origin");
    // A page may read a refusal, too. No answer allows the browser's own credentials.
    let refused = from(&daemon.anyone(), APP).get("/v1/files/all");
    refused.refused(401, "unauthenticated");
    assert_eq!(told(&refused, "access-control-allow-origin"), APP);
    for answer in [&allowed, &stored, &refused] {
        assert_eq!(told(answer, "access-control-allow-credentials"), "");
    }
    // A cache must not serve one origin the answer that it stored for another.
    assert_eq!(told(&user.get("/v1/files/all"), "vary"), "Origin");
    for other in ["https://app.example.evil", "https://app.example:8443", "null", "*"] {
        preflight(&daemon, other).refused(401, "unauthenticated");
        let answer = from(&user, other).get("/v1/files/all");
        assert_eq!(told(&answer, "access-control-allow-origin"), "", "{other}");
    }
}

#[test]
fn nobody_is_allowed_or_everybody_as_it_is_set() {
    for (setting, allowed) in [("", ""), ("*", "*")] {
        let mut daemon = Daemon::with(&[("allowed_origins", setting)]);
        daemon.restart(Signal::TERM);
        let status = preflight(&daemon, APP).status;
        assert_eq!(status, if allowed.is_empty() { 401 } else { 204 });
        let answer = from(&daemon.user("u"), APP).get("/v1/files/all");
        assert_eq!(told(&answer, "access-control-allow-origin"), allowed);
        let of_no_page = daemon.user("u").get("/v1/files/all");
        assert_eq!(told(&of_no_page, "access-control-allow-origin"), allowed);
        assert_eq!(told(&answer, "vary"), "");
    }
}
