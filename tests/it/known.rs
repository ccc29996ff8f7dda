//! Hash first: content that its user has already need not be sent again.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, bytes, sha256};

fn hash(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

fn init(client: &Client, content: &[u8], more: &Value) -> Value {
    let file = json!({"name": "again", "size": content.len(), "blake3": hash(content)});
    let mut init = json!({"mode": "single", "files": [file]});
    init.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/v1/files/init", init).ok()
}

/// What who has `content` answers to an init.
fn proof(opened: &Value, ranges: &Value, content: &[u8]) -> Value {
    let mut message = opened["uploadId"].as_str().unwrap().as_bytes().to_vec();
    for range in ranges.as_array().unwrap() {
        let at = |name: &str| usize::try_from(range[name].as_u64().unwrap()).unwrap();
        message.extend_from_slice(&content[at("offset")..][..at("length")]);
    }
    let known = json!({"blake3": hash(content), "proof": sha256(&message)});
    json!({"uploadId": opened["uploadId"], "known": known})
}

fn complete(client: &Client, proof: &Value) -> crate::support::client::Answer {
    client.post("/v1/files/complete", proof)
}

#[test]
fn who_has_the_content_need_not_send_it() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for size in [1, 5_000, 900_000] {
        let content = bytes(7, size);
        let first = user.store("first", "a", &content);
        let opened = init(&user, &content, &json!({"folder": "b"}));
        let ranges = &opened["known"]["ranges"];
        let length = |range: &Value| range["length"].as_u64().unwrap();
        let asked: u64 = ranges.as_array().unwrap().iter().map(length).sum();
        assert!((1..=256 << 10).contains(&asked));
        let said = proof(&opened, ranges, &content);
        let again = complete(&user, &said).ok();
        assert_eq!((&again["blake3"], &again["sha256"]), (&first["blake3"], &first["sha256"]));
        assert_eq!(complete(&user, &said).ok(), again);
        // Each is a file of its own.
        user.delete(&format!("/v1/files/{}", first["key"].as_str().unwrap())).ok();
        assert!(user.content(again["key"].as_str().unwrap()).body == content);
    }
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 3);
}

#[test]
fn a_wrong_proof_is_refused_and_the_bytes_are_taken() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(8, 600_000);
    user.store("first", "", &content);
    let opened = init(&user, &content, &json!({}));
    let ranges = &opened["known"]["ranges"];
    let mut other = content.clone();
    let at = usize::try_from(ranges[7]["offset"].as_u64().unwrap()).unwrap();
    other[at] ^= 1;
    let mut wrong = proof(&opened, ranges, &other);
    wrong["known"]["blake3"] = hash(&content).into();
    complete(&user, &wrong).refused(409, "content_unproven");
    // What holds for one upload does not for another.
    let second = init(&user, &content, &json!({}));
    assert_ne!(second["known"]["ranges"], *ranges);
    let mut stale = proof(&opened, ranges, &content);
    stale["uploadId"] = second["uploadId"].clone();
    complete(&user, &stale).refused(409, "content_unproven");
    wrong["known"]["blake3"] = "x".into();
    complete(&user, &wrong).refused(400, "invalid_blake3");
    let id = opened["uploadId"].as_str().unwrap();
    user.part(id, 1, &content).ok();
    user.complete(id).ok();
}

#[test]
fn nothing_is_told_of_what_others_have() {
    let daemon = Daemon::start();
    let content = bytes(9, 400_000);
    daemon.user("owner").store("secret", "", &content);
    let other = daemon.user("other");
    let opened = init(&other, &content, &json!({}));
    assert_eq!(opened.get("known"), None);
    // The ranges follow from the id: one who guesses them is told what one is who has nothing.
    let all = json!([{"offset": 0, "length": content.len()}]);
    let refused = complete(&other, &proof(&opened, &all, &content));
    let known = refused.refused(409, "content_unproven");
    let nothing = bytes(10, 400_000);
    let opened = init(&other, &nothing, &json!({}));
    let unknown =
        complete(&other, &proof(&opened, &all, &nothing)).refused(409, "content_unproven");
    assert_eq!(known["detail"], unknown["detail"]);
    // A service is held to the user it acts for, too.
    let service = daemon.service();
    let opened = init(&service, &content, &json!({"meta": {"user_id": "other"}}));
    assert_eq!(opened.get("known"), None);
    let opened = init(&service, &content, &json!({"meta": {"user_id": "owner"}}));
    let said = proof(&opened, &opened["known"]["ranges"], &content);
    complete(&service, &said).ok();
}

#[test]
fn files_of_a_batch_are_proven_one_by_one() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(11, 100_000);
    user.store("first", "", &content);
    let file = |name: &str, hash: String| json!({"name": name, "size": 100_000, "blake3": hash});
    let files = json!([file("new", hash(b"new")), file("known", hash(&content))]);
    let opened = user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
    assert_eq!(opened["files"][0].get("known"), None);
    let of = &opened["files"][1];
    let mut said = proof(of, &of["known"]["ranges"], &content);
    complete(&user, &said).ok();
    said["uploadId"] = opened["uploadId"].clone();
    complete(&user, &said).refused(400, "not_for_a_batch");
}
