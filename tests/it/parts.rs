//! Parts: in both forms, in any order, of any size, sent again, refused and aborted.

use serde_json::json;

use crate::support::{Daemon, base64, bytes, digest_field, sha256, staged_files};

#[test]
fn parts_come_in_any_order_and_again() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(1, 300_000);
    for first in [0, 1] {
        let id = user.init("x.bin", content.len());
        let pieces: Vec<&[u8]> = content.chunks(70_001).collect();
        for (at, piece) in pieces.iter().enumerate().rev() {
            let number = at as u64 + first;
            let answer = if at % 2 == 0 {
                user.part(&id, number, piece)
            } else {
                user.put(&format!("/v1/files/{id}/parts/{number}"), *piece)
            };
            let wanted = json!({"status": "success", "partNumber": number, "size": piece.len()});
            assert_eq!(answer.ok(), wanted);
        }
        user.part(&id, 1 + first, b"wrong").ok();
        user.part(&id, 1 + first, pieces[1]).ok();
        let status = user.get(&format!("/v1/files/{id}")).ok();
        assert_eq!(status["state"], "open");
        assert_eq!(status["bytesReceived"], content.len());
        let numbers: Vec<_> = status["received"].as_array().unwrap().iter().collect();
        assert_eq!(numbers.len(), pieces.len());
        assert_eq!(numbers[0], &json!({"partNumber": first, "size": 70_001}));
        let file = user.complete(&id).ok();
        assert_eq!(file["sha256"], sha256(&content));
        assert_eq!(file["blake3"], blake3::hash(&content).to_hex().as_str());
        assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
        assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["state"], "completed");
        user.part(&id, 1, b"late").refused(409, "upload_completed");
    }
}

#[test]
fn a_form_around_a_part_is_refused() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("x.bin", 3);
    let path = format!("/v1/files/{id}/parts/1");
    let typed = |of: &str| user.header("content-type", of);
    for of in ["multipart/form-data; boundary=x", "Multipart/Form-Data"] {
        typed(of).put(&path, "--x\r\n\r\nabc\r\n--x--").refused(400, "encoded_content");
        let twice = typed("text/plain").header("content-type", of);
        twice.put(&path, "--x--").refused(400, "encoded_content");
    }
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["bytesReceived"], 0);
    typed("not a media type").put(&path, "abc").ok();
    user.complete(&id).ok();
}

#[test]
fn the_part_size_that_init_names_is_taken() {
    let daemon = Daemon::with(&[("part_bytes_max", "1MiB")]);
    let user = daemon.user("u");
    let content = bytes(3, 3 << 20);
    for mode in ["single", "chunked"] {
        let files = json!([{"name": "f", "size": content.len()}]);
        let opened = user.post("/v1/files/init", json!({"mode": mode, "files": files})).ok();
        assert_eq!((&opened["partSize"], &opened["parts"]), (&json!(1 << 20), &json!(3)));
        let id = opened["uploadId"].as_str().unwrap();
        user.put(&format!("/v1/files/{id}/parts/1"), &content[..1 << 20]).ok();
        let missing = user.complete(id).refused(409, "parts_missing")["missing"].clone();
        assert_eq!(missing, json!([2, 3]));
        for (number, part) in (1_u64..).zip(content.chunks(1 << 20)) {
            user.put(&format!("/v1/files/{id}/parts/{number}"), part).ok();
        }
        assert_eq!(user.complete(id).ok()["sha256"], sha256(&content));
    }
}

#[test]
fn base64_is_what_the_tool_prints_and_nothing_else() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(2, 1000);
    let lines: Vec<String> = base64(&content)
        .as_bytes()
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    let id = user.init("x", content.len());
    let raw_lines = format!(
        "{{\"chunkBase64\":\"{}\n\",\"partNumber\":1,\"uploadId\":\"{id}\"}}",
        lines.join("\n")
    );
    assert_eq!(user.post("/v1/files/part", raw_lines).ok()["size"], 1000);
    let part = |chunk: &str| {
        let part = json!({"uploadId": id, "partNumber": 1, "chunkBase64": chunk});
        user.post("/v1/files/part", part)
    };
    assert_eq!(part(&lines.join("\r\n ")).ok()["size"], 1000);
    for wrong in ["aGVsbG8", "a-_=", "aGVs!G8=", "=", "data:;base64,aGU=", "aGU=aGU="] {
        part(wrong).refused(400, "invalid_base64");
    }
    assert_eq!(user.complete(&id).ok()["sha256"], sha256(&content));
}

#[test]
fn refused_parts_change_nothing() {
    let daemon = Daemon::with(&[("part_bytes_max", "100KiB")]);
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let id = user.init("x", 5);
    user.part(&id, 1, b"hello").ok();
    // The highest part number.
    let sparse = user.init("x", 1);
    user.part(&sparse, 10_000, b"x").ok();
    user.put(&format!("/v1/files/{sparse}/parts/10000"), "x").ok();
    for number in ["-1", "1.5", "10001", "\"1\"", "null"] {
        let body = format!(r#"{{"uploadId":"{id}","partNumber":{number},"chunkBase64":""}}"#);
        user.post("/v1/files/part", body).refused(400, "invalid_part_number");
    }
    for body in [
        json!({"uploadId": id, "partNumber": 1}),
        json!({"uploadId": id, "chunkBase64": ""}),
        json!({"partNumber": 1, "chunkBase64": ""}),
        json!({"uploadId": id, "partNumber": 1, "chunkBase64": 7}),
        json!({"uploadId": id, "partNumber": 1, "chunkBase64": null}),
        json!([]),
    ] {
        user.post("/v1/files/part", body).refused(400, "invalid_json");
    }
    user.part(&"0".repeat(32), 1, b"x").refused(404, "upload_not_found");
    user.part("../etc", 1, b"x").refused(404, "upload_not_found");
    other.part(&id, 1, b"HELLO").refused(404, "upload_not_found");
    other.put(&format!("/v1/files/{id}/parts/1"), "HELLO").refused(404, "upload_not_found");
    let raw = format!("/v1/files/{id}/parts/1");
    let too_large = user.put(&raw, vec![0; 100 << 10 | 1]).refused(413, "too_large");
    assert_eq!(too_large["limit"], 100 << 10);
    user.part(&id, 1, &vec![0; 100 << 10 | 1]).refused(413, "too_large");
    let digest = format!("sha-256=:{}:", base64(&[0; 32]));
    user.header("content-digest", &digest).put(&raw, "HELLO").refused(400, "digest_mismatch");
    user.header("repr-digest", "sha-256=x").put(&raw, "HELLO").refused(400, "invalid_digest");
    // Two digests that differ are refused, even when one of them is right.
    let of = digest_field;
    for (content, whole) in [(of(b"HELLO"), of(b"hello")), (of(b"hello"), of(b"HELLO"))] {
        let both = user.header("content-digest", &content).header("repr-digest", &whole);
        for path in [&*raw, "/v1/files/content?filename=f"] {
            both.put(path, "HELLO").refused(400, "invalid_digest");
        }
    }
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["bytesReceived"], 5);
    assert_eq!(user.complete(&id).ok()["sha256"], sha256(b"hello"));
}

#[test]
fn a_digest_that_holds_is_taken() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("x", 5);
    let digest = format!("md5=:AA==:, {}", digest_field(b"hello"));
    let user = user.header("content-digest", &digest);
    user.put(&format!("/v1/files/{id}/parts/1"), "hello").ok();
}

#[test]
fn an_aborted_upload_is_gone() {
    let daemon = Daemon::start();
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let id = user.init("x", 200_000);
    user.part(&id, 1, &bytes(3, 200_000)).ok();
    assert_eq!(staged_files(&daemon).len(), 1);
    other.delete(&format!("/v1/files/{id}")).refused(404, "upload_not_found");
    user.delete(&format!("/v1/files/{id}")).ok();
    assert!(staged_files(&daemon).is_empty());
    user.delete(&format!("/v1/files/{id}")).refused(404, "upload_not_found");
    user.get(&format!("/v1/files/{id}")).refused(404, "upload_not_found");
    user.complete(&id).refused(404, "upload_not_found");
}

#[test]
fn another_device_finds_open_uploads() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let size = 20 << 20;
    let init = json!({
        "mode": "chunked",
        "files": [{"name": "film.mp4", "size": size}],
        "folder": "films",
    });
    let opened = user.post("/v1/files/init", init).ok();
    assert_eq!((opened["partSize"].as_u64(), opened["parts"].as_u64()), (Some(8 << 20), Some(3)));
    let id = opened["uploadId"].as_str().unwrap();
    user.put(&format!("/v1/files/{id}/parts/1"), vec![7; 8 << 20]).ok();
    let done = user.init("done", 0);
    user.complete(&done).ok();
    let other = user.init("other", 9);
    let uploads = user.get("/v1/files/uploads").ok();
    let listed = uploads["uploads"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    let film = listed.iter().find(|upload| upload["uploadId"] == id).unwrap();
    assert_eq!(film["missing"], json!([2, 3]));
    assert_eq!((&film["name"], &film["folder"]), (&json!("film.mp4"), &json!("films")));
    assert_eq!(film["bytesReceived"], 8 << 20);
    let first = user.get("/v1/files/uploads?limit=1").ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = user.get(&format!("/v1/files/uploads?limit=1&cursor={cursor}")).ok();
    assert_eq!(second.get("next_cursor"), None);
    let ids: Vec<_> = [&first, &second].map(|page| page["uploads"][0]["uploadId"].clone()).into();
    assert!(ids.contains(&json!(id)) && ids.contains(&json!(other)));
    assert_eq!(daemon.user("v").get("/v1/files/uploads").ok(), json!({"uploads": []}));
}

#[test]
fn a_part_is_of_one_file_and_not_of_a_batch() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let files = json!([{"name": "a", "size": 1}, {"name": "b", "size": 1}]);
    let opened = user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
    let batch = opened["uploadId"].as_str().unwrap();
    let path = format!("/v1/files/{batch}/parts/1");
    user.part(batch, 1, b"x").refused(400, "not_for_a_batch");
    user.put(&path, "x").refused(400, "not_for_a_batch");
    let large = bytes(1, 1 << 20);
    user.part(batch, 1, &large).refused(400, "not_for_a_batch");
    user.put(&path, large).refused(400, "not_for_a_batch");
    daemon.user("v").put(&path, "x").refused(404, "upload_not_found");
    for file in opened["files"].as_array().unwrap() {
        user.part(file["uploadId"].as_str().unwrap(), 1, b"x").ok();
    }
    assert_eq!(user.complete(batch).ok()["files"].as_array().unwrap().len(), 2);
    user.put(&path, "x").refused(400, "not_for_a_batch");
    assert!(staged_files(&daemon).is_empty());
}
