//! Receipts: what `complete` signs, and what a receipt cannot be used for.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::support::{Client, Daemon, bytes, daemon::BINARY};

fn store(user: &Client, content: &[u8]) -> (String, String) {
    let id = user.init("x", content.len());
    user.part(&id, 1, content).ok();
    let complete = json!({"uploadId": id, "receipt": true});
    let stored = user.post("/v1/files/complete", complete).ok();
    (id, stored["receipt"].as_str().unwrap().to_owned())
}

fn verify(dir: &Path, receipt: &str, jwks: &str, more: &[&str]) -> (bool, String) {
    fs::write(dir.join("receipt"), receipt).unwrap();
    let command = ["receipt", "verify", "receipt", "--jwks", jwks];
    let output = Command::new(BINARY).args(command).args(more).current_dir(dir).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn a_receipt_is_checked_without_the_daemon() {
    let mut daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(1, 70_000);
    let (id, receipt) = store(&user, &content);
    let again = user.post("/v1/files/complete", json!({"uploadId": id, "receipt": true})).ok();
    assert_eq!(again["receipt"], receipt);
    assert_eq!(user.complete(&id).ok().get("receipt"), None);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jwks.json"), user.get("/.well-known/jwks.json").body).unwrap();
    fs::write(dir.path().join("content"), &content).unwrap();
    fs::write(dir.path().join("other"), &content[1..]).unwrap();
    let url = format!("{}/.well-known/jwks.json", daemon.url());
    assert!(verify(dir.path(), &receipt, &url, &[]).0);
    daemon.stop();
    let (good, said) = verify(dir.path(), &receipt, "jwks.json", &["--file", "content"]);
    assert!(good, "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    for claim in ["key", "size", "sha256", "blake3"] {
        assert_eq!(said[claim], again[claim], "{claim}");
    }
    let (good, said) = verify(dir.path(), &receipt, "jwks.json", &["--file", "other"]);
    assert!(!good && said.contains("is not what the receipt certifies"), "{said}");
    let (good, said) = verify(dir.path(), &receipt.replace('.', ".A"), "jwks.json", &[]);
    assert!(!good && said.contains("not a receipt"), "{said}");
}

#[test]
fn a_receipt_opens_nothing_and_a_token_is_no_receipt() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let (_, receipt) = store(&user, b"abc");
    for header in ["authorization", "x-service-token"] {
        let scheme = if header == "authorization" { "Bearer " } else { "" };
        let value = format!("{scheme}{receipt}");
        daemon.anyone().header(header, &value).get("/v1/files/all").refused(401, "unauthenticated");
    }
    let service = daemon.service();
    let made = service.post("/v1/files/generate-token?user_id=u", json!({})).ok();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("jwks.json"), user.get("/.well-known/jwks.json").body).unwrap();
    let (good, said) = verify(dir.path(), made["token"].as_str().unwrap(), "jwks.json", &[]);
    assert!(!good && said.contains("not as a receipt"), "{said}");
}
