//! Signed URLs.

use std::fs;

use aws_lc_rs::hmac;
use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::support::{
    Daemon, bytes,
    client::{encode, query},
};
use rustix::process::Signal;

/// Signs a text as the contract says, with the daemon's own key.
fn sign(daemon: &Daemon, text: &str) -> String {
    let hex = fs::read_to_string(daemon.dir().join("keys/link.key")).unwrap();
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let secret: Vec<u8> = (0..64).step_by(2).map(digit).collect();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), text.as_bytes());
    streamlined::model::digest::hex(tag.as_ref())
}

#[test]
fn a_link_is_a_credential_for_one_file() {
    let mut daemon = Daemon::with(&[("public_url", "https://files.example.com/base/")]);
    let (user, anyone) = (daemon.user("u"), daemon.anyone());
    let content = bytes(1, 10_000);
    let key = user.store("ü.png", "a b", &content)["key"].as_str().unwrap().to_owned();
    let path = format!("/v1/files/signed-url?key={}", query(&key));
    let link = user.get(&path).ok();
    assert_eq!((&link["expires_in"], &link["disposition"]), (&3600.into(), &"inline".into()));
    assert_eq!(link["url"], link["signed_url"]);
    let local = |link: &serde_json::Value| {
        let url = link["url"].as_str().unwrap();
        url.strip_prefix("https://files.example.com/base").unwrap().to_owned()
    };
    let answer = anyone.get(&local(&link));
    assert_eq!((answer.status, &answer.body), (200, &content));
    assert!(answer.header("content-disposition").starts_with("inline"));
    assert_eq!(anyone.send("HEAD", &local(&link), "").status, 200);
    assert_eq!(anyone.header("cookie", "auth_token=stale").get(&local(&link)).status, 200);
    anyone.header("x-service-token", "x").get(&local(&link)).refused(401, "unauthenticated");

    anyone.get(&format!("{}&proof=", local(&link))).refused(400, "invalid_proof");

    let attached = user.get(&format!("{path}&disposition=attachment&ttl=60")).ok();
    let answer = anyone.get(&local(&attached));
    assert!(answer.header("content-disposition").starts_with("attachment"));
    anyone.get(&local(&attached).replace("=attachment", "=inline")).refused(403, "link_invalid");

    let form = json!({"file_key": key, "expires_in": 60, "disposition": "attachment"});
    let attached = user.post("/v1/files/signed-url", form).ok();
    assert_eq!(
        (&attached["expires_in"], &attached["disposition"]),
        (&60.into(), &"attachment".into())
    );
    let answer = anyone.get(&local(&attached));
    assert!(answer.header("content-disposition").starts_with("attachment"));

    let (url, sig) = (local(&link), local(&link).split("sig=").nth(1).unwrap().to_owned());
    let flipped = if sig.starts_with('0') { "1" } else { "0" };
    for wrong in [
        url.replace(&sig, &format!("{flipped}{}", &sig[1..])),
        url.replace(&sig, ""),
        url.replace("exp=", "exp=&x="),
        // The signature tells an empty disposition from a missing one.
        format!("{url}&disposition="),
        url.split("&sig").next().unwrap().to_owned(),
        url.replace("exp=", "exp=1"),
        url.replace("exp=", "expires="),
    ] {
        anyone.get(&wrong).refused(403, "link_invalid");
    }
    daemon.restart(Signal::KILL);
    let anyone = daemon.anyone();
    assert_eq!(anyone.get(&url).body, content);
    daemon.user("u").delete(&format!("/v1/files/{}", encode(&key))).ok();
    anyone.get(&url).refused(404, "file_not_found");
}

#[test]
fn links_follow_the_documented_form_and_expire() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let key = user.store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    let url = |exp: u64, padded: bool| {
        let encoded = if padded { URL_SAFE.encode(&key) } else { URL_SAFE_NO_PAD.encode(&key) };
        format!("/get/{encoded}?exp={exp}&sig={}", sign(&daemon, &format!("{key}|{exp}")))
    };
    assert_eq!(daemon.anyone().get(&url(4_000_000_000, false)).body, b"x");
    assert_eq!(daemon.anyone().get(&url(4_000_000_000, true)).body, b"x");
    daemon.anyone().get(&url(1_000_000_000, false)).refused(403, "link_expired");
}

#[test]
fn links_are_made_only_for_files_one_may_read() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let key = user.store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    let path = format!("/v1/files/signed-url?key={key}");
    daemon.user("v").get(&path).refused(404, "file_not_found");
    daemon.anyone().get(&path).refused(401, "unauthenticated");
    user.get("/v1/files/signed-url").refused(400, "missing_parameter");
    user.get("/v1/files/signed-url?key=../x").refused(404, "file_not_found");
    user.get(&format!("{path}&ttl=&disposition=")).ok();
    for wrong in ["ttl=0", "ttl=604801", "ttl=x", "disposition=evil"] {
        let code = if wrong.starts_with("ttl") { "invalid_ttl" } else { "invalid_disposition" };
        user.get(&format!("{path}&{wrong}")).refused(400, code);
    }
    let pasted = user.store("C++ notes.txt", "", b"y")["key"].as_str().unwrap().to_owned();
    for key in [pasted.replace(' ', "%20"), pasted.replace('+', "%2B").replace(' ', "+")] {
        let link = user.get(&format!("/v1/files/signed-url?key={key}")).ok();
        let path = link["url"].as_str().unwrap().splitn(4, '/').nth(3).unwrap().to_owned();
        assert_eq!(daemon.anyone().get(&format!("/{path}")).body, b"y", "{key}");
    }
    let form = json!({"file_key": key, "expires_in": -1});
    user.post("/v1/files/signed-url", form).refused(400, "invalid_json");
}
