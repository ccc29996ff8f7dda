//! The audit log: what it records, that it is complete, and that edits are detected.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Daemon,
    command::{command, refused, run},
    daemon::TOKEN,
    eventually,
};

/// The lines of the audit log so far.
pub fn lines(data: &Path) -> Vec<Value> {
    let mut files: Vec<_> =
        fs::read_dir(data.join("audit")).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    let text: String = files
        .iter()
        .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
        .collect();
    // The last line may be written in part.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn every_event_has_a_line_and_no_line_a_secret() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let user = daemon.user("u");
    let file = user.store("f", "", b"x");
    let key = file["key"].as_str().unwrap();
    let id = user.init("f", 1);
    user.part(&id, 1, b"y").ok();
    user.complete(&id).ok();
    user.content(key);
    let link = user.get(&format!("/v1/files/signed-url?key={key}")).ok();
    daemon.anyone().get(link["url"].as_str().unwrap());
    user.delete(&format!("/v1/files/{key}")).ok();
    let made = run(&dir, &["token", "create", "s"]);
    let secret = made["token"].as_str().unwrap().to_owned();
    daemon.anyone().header("x-service-token", &secret).post("/v1/files/init", "{}");
    daemon.anyone().header("x-service-token", "wrong-secret").get("/v1/files/all?user_id=u");
    user.post("/v1/files/generate-token?user_id=u", "").refused(403, "forbidden");
    run(&dir, &["token", "revoke", "s"]);
    // An operator passes the token itself where its id belongs.
    refused(&dir, 1, &["token", "revoke", &secret]);
    daemon.user("admin").get(&format!("/v1/admin/tokens/{secret}")).refused(403, "forbidden");
    daemon.anyone().get("/v1/files/batch%2Ddownload/wrong-secret").refused(403, "link_invalid");
    for nowhere in
        ["//v1/files/batch-download", "/base/v1/files//batch-download/", "/v1//admin/tokens"]
    {
        daemon.anyone().get(&format!("{nowhere}/wrong-secret")).refused(401, "unauthenticated");
    }
    assert!(!daemon.log().contains(&secret) && !daemon.log().contains("wrong-secret"));
    run(&dir, &["user", "set", "u", "--disabled"]);
    run(&dir, &["user", "delete", "u"]);
    run(&dir, &["key", "rotate", "--after", "1h"]);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    daemon.stop();
    run(&dir, &["token", "revoke", "--service", "s"]);

    let named = format!("{} service:s", made["id"].as_str().unwrap());
    let lines = lines(&dir);
    let find = |event: &str, status: u16| {
        let mut found = lines.iter().filter(|l| l["event"] == event && l["status"] == status);
        found.next().unwrap_or_else(|| panic!("no {event} {status}: {lines:#?}"))
    };
    for (event, status, who, target) in [
        ("user_token_issued", 200, "service:configured", json!("u")),
        ("user_token_issued", 403, "user:u", Value::Null),
        ("upload", 201, "user:u", json!(key)),
        ("upload_begun", 200, "user:u", Value::Null),
        ("upload_begun", 400, "service:s", Value::Null),
        ("download", 200, "user:u", json!(key)),
        ("link_signed", 200, "user:u", json!(key)),
        ("delete", 200, "user:u", json!(key)),
        ("request", 401, "anyone", Value::Null),
        ("user_changed", 200, "operator:0", json!("u")),
        ("user_deleted", 200, "operator:0", json!("u")),
        ("token_created", 201, "operator:0", json!(named)),
        ("token_revoked", 200, "operator:0", json!(named)),
        ("token_revoked", 404, "operator:0", Value::Null),
        ("tokens_revoked", 200, "operator:0", json!("service:s")),
        ("key_rotated", 201, "operator:0", Value::Null),
    ] {
        let line = find(event, status);
        let own = rustix::process::getuid().as_raw();
        let who = who.replace("operator:0", &format!("operator:{own}"));
        assert_eq!((&line["who"], &line["target"]), (&json!(who), &target), "{line}");
        assert_eq!(line["from"], "127.0.0.1");
        assert_eq!(line["request_id"].as_str().unwrap().len(), 16);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }
    let whys: Vec<_> = lines.iter().filter(|l| l["status"] == 401).map(|l| &l["why"]).collect();
    let nothing = json!("no credential was sent");
    assert_eq!(
        whys,
        [
            &json!("unknown service token"),
            &nothing,
            &nothing,
            &nothing,
            &json!("the user was logged out"),
        ]
    );
    let text = format!("{lines:?}");
    for secret in [TOKEN, &secret, "wrong-secret", "sig=", "eyJ"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let verified = command(&dir, &["audit", "verify"]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(said.contains(&format!("{} lines, 1 to {}", lines.len(), lines.len())), "{said}");
}

#[test]
fn what_an_operator_does_by_the_socket_has_its_line() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let target = tempfile::tempdir().unwrap();
    let to = target.path().join("backup");
    let to = to.to_str().unwrap();
    for asked in [&["gc"][..], &["scrub"], &["fsck"], &["backup", to], &["log", "info"], &["log"]] {
        assert!(command(&dir, asked).status.success(), "{asked:?}");
    }
    for (method, path, status) in [
        ("POST", "/backup?dir=relative", "400"),
        ("POST", "/log?filter=a%3Db%3Dc", "400"),
        ("POST", "/log?filter=%ff", "400"),
        ("POST", "/nothing", "404"),
        ("GET", "/gc", "404"),
        ("GET", "/metrics", "200"),
    ] {
        let answer = daemon.operator(method, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    daemon.stop();
    assert!(command(&dir, &["gc"]).status.success());

    let lines = lines(&dir);
    let told: Vec<_> =
        lines.iter().map(|line| (&line["event"], &line["target"], &line["status"])).collect();
    let wanted = [
        ("gc", Value::Null, 200),
        ("scrub", Value::Null, 200),
        ("fsck", Value::Null, 200),
        ("backup", json!(to), 200),
        ("log_changed", json!("info"), 200),
        ("backup", Value::Null, 400),
        ("log_changed", Value::Null, 400),
        ("gc", Value::Null, 200),
    ];
    let wanted = wanted.map(|(event, target, status)| (json!(event), target, json!(status)));
    assert_eq!(told, wanted.each_ref().map(|(event, target, status)| (event, target, status)));
    let own = format!("operator:{}", rustix::process::getuid().as_raw());
    assert!(lines.iter().all(|line| line["who"] == *own && line["from"] == "127.0.0.1"));
}

#[test]
fn an_edit_is_found_beside_a_daemon_and_the_log_survives_a_kill() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    daemon.user("u").store("f", "", b"x");
    eventually(|| lines(&dir).len() == 2);
    daemon.restart(Signal::KILL);
    daemon.user("v");
    eventually(|| lines(&dir).len() == 3);
    assert!(command(&dir, &["audit", "verify"]).status.success());
    let path = fs::read_dir(dir.join("audit")).unwrap().map(|file| file.unwrap().path());
    let path = path.into_iter().find(|p| p.extension().is_some_and(|e| e == "jsonl")).unwrap();
    let edited = fs::read_to_string(&path).unwrap().replacen("user:u", "user:w", 1);
    fs::write(&path, edited).unwrap();
    let said = refused(&dir, 1, &["audit", "verify"]);
    assert!(said.contains(".jsonl:3: the line before it was changed"), "{said}");
    // Damage by the disk must not prevent a start.
    let mut damaged = fs::read(&path).unwrap();
    damaged[20] = 0xff;
    fs::write(&path, damaged).unwrap();
    daemon.restart(Signal::KILL);
    daemon.user("w");
    eventually(|| lines(&dir).iter().any(|line| line["target"] == "w"));
    assert!(refused(&dir, 1, &["audit", "verify"]).contains("not text"));
}

#[test]
fn a_client_behind_a_trusted_proxy_is_told_by_its_own_address() {
    let daemon = Daemon::with(&[("trusted_proxies", "127.0.0.1, ::1")]);
    let dir = daemon.dir();
    let far = daemon.service().header("x-forwarded-for", "203.0.113.9, 198.51.100.7");
    far.post("/v1/files/generate-token?user_id=u", "").ok();
    eventually(|| lines(&dir).len() == 1);
    assert_eq!(lines(&dir)[0]["from"], "198.51.100.7");
    let unclear = far.header("forwarded", "for=127.0.0.1");
    unclear.get("/v1/files/all?user_id=u").refused(400, "unclear_client");
    let made = run(&dir, &["token", "create", "s", "--allow-ip", "198.51.100.0/24"]);
    let holder = daemon.anyone().header("x-service-token", made["token"].as_str().unwrap());
    let list = "/v1/files/all?user_id=u";
    holder.header("x-forwarded-for", "198.51.100.7").get(list).ok();
    holder
        .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
        .get(list)
        .refused(401, "unauthenticated");
    holder.get(list).refused(401, "unauthenticated");
    // A proxy copies the requested host into `Forwarded`, and the client chooses that text.
    holder
        .header("forwarded", r#"for=203.0.113.9;host="a,for=198.51.100.7;x=""#)
        .get(list)
        .refused(401, "unauthenticated");
    // Without a trusted proxy, no forwarding header counts.
    let daemon = Daemon::start();
    let made = run(&daemon.dir(), &["token", "create", "s", "--allow-ip", "198.51.100.0/24"]);
    let holder = daemon.anyone().header("x-service-token", made["token"].as_str().unwrap());
    holder.header("x-forwarded-for", "198.51.100.7").get(list).refused(401, "unauthenticated");
}

#[test]
fn who_guesses_waits_and_who_has_a_good_token_does_not() {
    let daemon = Daemon::start();
    let list = "/v1/files/all?user_id=u";
    let time = |client: &crate::support::Client, path: &str, status: u16| {
        let began = std::time::Instant::now();
        assert_eq!(client.get(path).status, status);
        began.elapsed()
    };
    let key = daemon.user("u").store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    let link = daemon.user("u").get(&format!("/v1/files/signed-url?key={key}")).ok();
    let link = link["url"].as_str().unwrap();
    let guess = daemon.anyone().header("x-service-token", "guess");
    let mut slowest = std::time::Duration::ZERO;
    for n in 0..26 {
        // Guesses at the signature of a link count, too.
        slowest = slowest.max(match n % 2 {
            0 => time(&guess, list, 401),
            _ => time(&daemon.anyone(), &format!("{link}0"), 403),
        });
    }
    assert!(slowest >= std::time::Duration::from_millis(1400), "{slowest:?}");
    let good = (0..5).map(|_| time(&daemon.service(), list, 200)).min().unwrap();
    assert!(good < slowest / 4, "{good:?}");
    let linked = (0..5).map(|_| time(&daemon.anyone(), link, 200)).min().unwrap();
    assert!(linked < slowest / 4, "{linked:?}");
}

/// A request for a link needs no credential, so it must write little to the audit log.
#[test]
fn what_nobody_asks_for_fills_no_log() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let folders = vec!["f".repeat(255); 32].join("/");
    let key = format!("storage/u/{folders}/0123abcd_{}", "x".repeat(200));
    let encoded = URL_SAFE_NO_PAD.encode(&key);
    daemon.anyone().get(&format!("/get/{encoded}?exp=1&sig=00")).refused(403, "link_invalid");
    // A query that cannot be parsed is refused and leaves no line in the audit log.
    daemon.anyone().get("/get/c3RvcmFnZS91L2E?exp=%ff").refused(400, "invalid_query");
    daemon.user("u");
    // The line of the token comes last, so the others are there with it.
    eventually(|| lines(&dir).iter().any(|line| line["event"] == "user_token_issued"));
    let lines = lines(&dir);
    assert!(lines.iter().all(|line| line["status"] != 400), "{lines:?}");
    let line = lines.iter().find(|line| line["status"] == 403).unwrap();
    let target = line["target"].as_str().unwrap();
    assert!(target.len() <= 1024 && target.contains('…'), "{} bytes", target.len());
    let (begin, end) = target.split_once('…').unwrap();
    assert!(key.starts_with(begin) && key.ends_with(end) && end.contains("0123abcd_"));
    assert!(command(&dir, &["audit", "verify"]).status.success());
}
