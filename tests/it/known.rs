//! Hash first: a client need not send content that its user has stored already.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, bytes, command::run, sha256};

/// The digests that may name a content.
type By = &'static [&'static str];
const BY: [By; 3] = [&["blake3"], &["sha256"], &["blake3", "sha256"]];

fn digest(name: &str, content: &[u8]) -> String {
    match name {
        "blake3" => blake3::hash(content).to_hex().to_string(),
        _ => sha256(content),
    }
}

fn init(client: &Client, by: By, content: &[u8], more: &Value) -> Value {
    let mut file = json!({"name": "again", "size": content.len()});
    for name in by {
        file[name] = digest(name, content).into();
    }
    let mut init = json!({"mode": "single", "files": [file]});
    init.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/v1/files/init", init).ok()
}

fn is_known(client: &Client, by: By, content: &[u8]) -> bool {
    init(client, by, content, &json!({})).get("known").is_some()
}

/// The request by which a client that has `content` completes the upload without sending it.
fn proof(opened: &Value, ranges: &Value, by: By, content: &[u8]) -> Value {
    let mut message = opened["uploadId"].as_str().unwrap().as_bytes().to_vec();
    for range in ranges.as_array().unwrap() {
        let at = |name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
        message.extend_from_slice(&content[at("offset")..][..at("length")]);
    }
    let mut known = json!({"proof": sha256(&message)});
    for name in by {
        known[name] = digest(name, content).into();
    }
    json!({"uploadId": opened["uploadId"], "known": known})
}

fn complete(client: &Client, proof: &Value) -> crate::support::client::Answer {
    client.post("/v1/files/complete", proof)
}

#[test]
fn who_has_the_content_need_not_send_it() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for (seed, by) in BY.into_iter().enumerate() {
        for size in [1, 5_000, 900_000] {
            let content = bytes(seed as u64, size);
            let first = user.store("first", "a", &content);
            let opened = init(&user, by, &content, &json!({"folder": "b"}));
            let ranges = &opened["known"]["ranges"];
            let length = |range: &Value| range["length"].as_u64().unwrap();
            let asked: u64 = ranges.as_array().unwrap().iter().map(length).sum();
            assert!((1..=256 << 10).contains(&asked));
            let said = proof(&opened, ranges, by, &content);
            let again = complete(&user, &said).ok();
            assert_eq!((&again["blake3"], &again["sha256"]), (&first["blake3"], &first["sha256"]));
            assert_eq!(complete(&user, &said).ok(), again);
            // Each is a file of its own, so deleting the first one leaves the second.
            user.delete_file(&first).ok();
            assert!(user.content(again["key"].as_str().unwrap()).body == content);
            assert!(is_known(&user, by, &content));
            user.delete_file(&again).ok();
            assert!(!is_known(&user, by, &content));
        }
    }
}

#[test]
fn a_wrong_proof_is_refused_and_the_bytes_are_taken() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(8, 600_000);
    user.store("first", "", &content);
    for by in BY {
        let opened = init(&user, by, &content, &json!({}));
        let ranges = &opened["known"]["ranges"];
        let mut other = content.clone();
        let at = usize::try_from(ranges[7]["offset"].as_u64().unwrap()).unwrap();
        other[at] ^= 1;
        let right = proof(&opened, ranges, by, &content);
        let mut wrong = right.clone();
        wrong["known"]["proof"] = proof(&opened, ranges, by, &other)["known"]["proof"].clone();
        complete(&user, &wrong).refused(409, "content_unproven");
        // A proof for one upload does not hold for another.
        let second = init(&user, by, &content, &json!({}));
        assert_ne!(second["known"]["ranges"], *ranges);
        let mut stale = right.clone();
        stale["uploadId"] = second["uploadId"].clone();
        complete(&user, &stale).refused(409, "content_unproven");
        for name in ["blake3", "sha256"] {
            let mut unreadable = right.clone();
            unreadable["known"][name] = "x".into();
            complete(&user, &unreadable).refused(400, &format!("invalid_{name}"));
        }
        let mut unnamed = right.clone();
        unnamed["known"] = json!({"proof": right["known"]["proof"]});
        complete(&user, &unnamed).refused(400, "invalid_sha256");
        let id = opened["uploadId"].as_str().unwrap();
        user.part(id, 1, &content).ok();
        user.complete(id).ok();
    }
}

#[test]
fn digests_of_two_contents_name_neither() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let (one, two) = (bytes(12, 70_000), bytes(13, 70_000));
    user.store("one", "", &one);
    user.store("two", "", &two);
    let file = json!({
        "name": "f", "size": 70_000, "blake3": digest("blake3", &one), "sha256": sha256(&two),
    });
    let opened = user.post("/v1/files/init", json!({"mode": "single", "files": [file]})).ok();
    assert_eq!(opened.get("known"), None);
    let all = json!([{"offset": 0, "length": 70_000}]);
    let mut mixed = proof(&opened, &all, &["blake3"], &one);
    // The digest that init declared still applies.
    complete(&user, &mixed).refused(400, "sha256_mismatch");
    mixed["known"]["sha256"] = sha256(&two).into();
    complete(&user, &mixed).refused(409, "content_unproven");
    complete(&user, &proof(&opened, &all, &["sha256"], &two)).ok();
}

#[test]
fn nothing_is_told_of_what_others_have() {
    let daemon = Daemon::start();
    // So small that a proof covers the whole content, and a right one needs no known ranges.
    let (content, nothing) = (bytes(9, 200_000), bytes(10, 200_000));
    let owner = daemon.user("owner");
    owner.store("secret", "", &content);
    let (other, service) = (daemon.user("other"), daemon.service());
    let members = |opened: &Value| opened.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = json!([{"offset": 0, "length": content.len()}]);
    for by in BY {
        let refused = [&content, &nothing].map(|content| {
            let opened = init(&other, by, content, &json!({}));
            assert_eq!(opened.get("known"), None);
            // A proof over the content of another user gets the same refusal as one over content
            // that nobody has.
            let refused = complete(&other, &proof(&opened, &all, by, content));
            let refused = refused.refused(409, "content_unproven");
            (members(&opened), refused["detail"].clone())
        });
        assert_eq!(refused[0], refused[1]);
        // A service is told only of the content of the user that it acts for.
        let opened = init(&service, by, &content, &json!({"meta": {"user_id": "other"}}));
        assert_eq!(opened.get("known"), None);
        let opened = init(&service, by, &content, &json!({"meta": {"user_id": "owner"}}));
        let said = proof(&opened, &opened["known"]["ranges"], by, &content);
        complete(&service, &said).ok();
    }
}

/// Whether content is known must not depend on other users, or the answer would reveal what they
/// have.
#[test]
fn what_others_store_and_delete_makes_no_difference() {
    let daemon = Daemon::start();
    let content = bytes(14, 300_000);
    let owner = daemon.user("owner");
    let own = owner.store("first", "", &content);
    let others = ["a", "b", "c", "d", "e"].map(|name| daemon.user(name));
    let theirs = others.each_ref().map(|other| other.store("theirs", "", &content));
    assert!(BY.iter().all(|by| is_known(&owner, by, &content)));
    owner.delete_file(&own).ok();
    assert!(BY.iter().all(|by| !is_known(&owner, by, &content)));
    for (other, file) in others.iter().zip(theirs) {
        assert!(BY.iter().all(|by| is_known(other, by, &content)));
        other.delete_file(&file).ok();
        assert!(BY.iter().all(|by| !is_known(other, by, &content)));
    }
}

#[test]
fn files_of_a_batch_are_proven_one_by_one() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(11, 100_000);
    user.store("first", "", &content);
    for name in ["blake3", "sha256"] {
        let file =
            |content: &[u8]| json!({"name": "f", "size": 100_000, name: digest(name, content)});
        let files = json!([file(b"new"), file(&content)]);
        let opened = user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
        assert_eq!(opened["files"][0].get("known"), None);
        let of = &opened["files"][1];
        let by: By = if name == "blake3" { BY[0] } else { BY[1] };
        let mut said = proof(of, &of["known"]["ranges"], by, &content);
        complete(&user, &said).ok();
        said["uploadId"] = opened["uploadId"].clone();
        complete(&user, &said).refused(400, "not_for_a_batch");
    }
}

#[test]
fn a_service_is_told_of_what_its_token_may_read() {
    let daemon = Daemon::start();
    let service = |scopes: &[&str]| {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let arguments: Vec<_> = ["token", "create", "s"].into_iter().chain(scopes).collect();
        let made = run(&daemon.dir(), &arguments);
        daemon.anyone().header("x-service-token", made["token"].as_str().unwrap())
    };
    let here = json!({"folder": "a", "meta": {"user_id": "u"}});
    let full = service(&[]);
    for (seed, by) in BY.into_iter().enumerate() {
        let content = &bytes(seed as u64, 20);
        daemon.user("u").store("f", "secret", content);
        let opened = |scopes: &[&str]| init(&service(scopes), by, content, &here);
        for scopes in [&["upload"][..], &["folder:a"], &["upload", "read", "folder:a"]] {
            let opened = opened(scopes);
            assert!(opened.get("known").is_none(), "{scopes:?}");
            // Nor does the refusal of a proof reveal it.
            let ranges = json!([{"offset": 0, "length": content.len()}]);
            let said = proof(&opened, &ranges, by, content);
            complete(&service(scopes), &said).refused(409, "content_unproven");
            complete(&full, &said).ok();
            let key = full.names("?user_id=u&folder=a");
            assert_eq!(key, ["again"]);
            let listed = full.get("/v1/files/all?user_id=u&folder=a").ok();
            let key = listed["files"][0]["key"].as_str().unwrap();
            full.delete(&format!("/v1/files/{key}")).ok();
        }
        assert!(opened(&["upload", "read", "folder:a", "folder:secret"]).get("known").is_some());
        assert!(init(&full, by, content, &here).get("known").is_some());
    }
}
