//! Completing an upload, in all its forms.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Daemon, base64, bytes, harm::damage, sha256, staged_files};

#[test]
fn init_describes_what_it_opens() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for (mode, parts, part_size) in [("single", 1, 30 << 20), ("chunked", 4, 8 << 20)] {
        let init = json!({"mode": mode, "files": [{"name": "f", "size": 30 << 20}]});
        let opened = user.post("/v1/files/init", init).ok();
        assert_eq!((&opened["mode"], &opened["parts"]), (&json!(mode), &json!(parts)));
        assert_eq!(opened["partSize"], part_size);
        assert!(opened["expiresAt"].as_str().unwrap().ends_with('Z'));
        assert_eq!(opened.get("files"), None);
    }
}

#[test]
fn content_may_come_inline() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(1, 200_000);
    let id = user.init("x.png", content.len());
    let parts: Vec<_> = content.chunks(90_000).map(|c| json!({"data": base64(c)})).collect();
    let body = json!({"parts": parts, "sha256": sha256(&content).to_uppercase(), "uploadId": id});
    let file = user.post("/v1/files/complete", &body).ok();
    assert_eq!((&file["size"], &file["mime"]), (&json!(200_000), &json!("image/png")));
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
    assert_eq!(user.post("/v1/files/complete", &body).ok(), file);

    // If parts were received, inline content is ignored.
    let id = user.init("y", 5);
    user.part(&id, 1, b"hello").ok();
    let body = json!({"uploadId": id, "parts": [{"data": base64(b"other")}]});
    assert_eq!(user.post("/v1/files/complete", body).ok()["sha256"], sha256(b"hello"));

    let id = user.init("empty", 0);
    let body = json!({"uploadId": id, "parts": [{"data": ""}]});
    assert_eq!(user.post("/v1/files/complete", body).ok()["size"], 0);
}

/// The upload has no length yet. Were its inline content stored as a part, the bytes would be
/// removed with the upload, for every user whose file has the same content.
#[test]
fn content_that_comes_inline_is_no_part_whatever_number_stands_beside_it() {
    let daemon = Daemon::start();
    let content = bytes(1, 300_000);
    let first = daemon.user("v").store("x", "", &content);
    let user = daemon.user("u").header("tus-resumable", "1.0.0");
    let created = user.header("upload-defer-length", "1").send("POST", "/v1/tus", "");
    let id = created.header("location").rsplit('/').next().unwrap();
    let data = base64(&content);
    let body =
        format!(r#"{{"uploadId": "{id}", "partNumber": 1, "parts": [{{"data": "{data}"}}]}}"#);
    let second = user.post("/v1/files/complete", body).ok();
    for (name, file) in [("v", first), ("u", second)] {
        let got = daemon.user(name).content(file["key"].as_str().unwrap());
        assert!(got.status == 200 && got.body == content, "{name}: {}", got.status);
    }
}

#[test]
fn a_repeat_answers_the_same() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("x", 5);
    user.part(&id, 0, b"hello").ok();
    let first = user.complete(&id).ok();
    let other_meta = json!({"uploadId": id, "meta": {"filename": "z"}, "parts": []});
    assert_eq!(user.post("/v1/files/complete", other_meta).ok(), first);
    let completed = |content: &[u8]| json!({"uploadId": id, "sha256": sha256(content)});
    assert_eq!(user.post("/v1/files/complete", completed(b"hello")).ok(), first);
    user.post("/v1/files/complete", completed(b"other")).refused(400, "sha256_mismatch");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| user.complete(&id).ok());
        let asked: Vec<_> = std::iter::repeat_with(ask).take(8).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == first));
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 1);
    user.delete_file(&first).ok();
    user.complete(&id).refused(410, "gone");
}

#[test]
fn parallel_completions_make_one_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for size in [5, 300_000] {
        let content = bytes(2, size);
        let id = user.init("x", size);
        for (at, piece) in content.chunks(size.div_ceil(3)).enumerate() {
            user.part(&id, at as u64, piece).ok();
        }
        let keys: Vec<_> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| user.complete(&id).ok()["key"].clone());
            let asked: Vec<_> = std::iter::repeat_with(ask).take(6).collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert_eq!(user.content(keys[0].as_str().unwrap()).body, content);
    }
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 2);
}

#[test]
fn what_does_not_fit_the_declaration_leaves_the_upload_open() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let id = user.init("x", 5);
    let missing = user.complete(&id).refused(409, "parts_missing");
    assert_eq!(missing["missing"], json!([1]));
    user.part(&id, 0, b"he").ok();
    user.part(&id, 3, b"l").ok();
    let missing = user.complete(&id).refused(409, "parts_missing");
    assert_eq!(missing["missing"], json!([1, 2]));
    user.part(&id, 1, b"ll").ok();
    user.part(&id, 2, b"").ok();
    user.part(&id, 3, b"oo").ok();
    user.complete(&id).refused(400, "size_mismatch");
    user.part(&id, 3, b"o").ok();
    let body = |sha: &str| json!({"uploadId": id, "sha256": sha});
    user.post("/v1/files/complete", body(&"0".repeat(64))).refused(400, "sha256_mismatch");
    user.post("/v1/files/complete", body("zz")).refused(400, "invalid_sha256");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    assert_eq!(user.get(&format!("/v1/files/{id}")).ok()["state"], "open");
    let file = user.post("/v1/files/complete", body(&sha256(b"hello"))).ok();
    assert_eq!(file["size"], 5);

    let id = user.init("y", 3);
    let inline = json!({"uploadId": id, "parts": [{"data": base64(b"four")}]});
    user.post("/v1/files/complete", inline).refused(400, "size_mismatch");
    let wrong = json!({"uploadId": id, "parts": [{"data": base64(b"abc")}],
        "sha256": "0".repeat(64)});
    user.post("/v1/files/complete", wrong).refused(400, "sha256_mismatch");
    let inline = json!({"uploadId": id, "parts": [{"data": base64(b"abc")}]});
    user.post("/v1/files/complete", inline).ok();
}

#[test]
fn a_damaged_part_is_asked_for_again() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged parts");
    for (round, (size, dir)) in (1..).zip([(100_000, "staging"), (3_000, "blobs/packs")]) {
        let user = daemon.user("u");
        let content = bytes(3, 3 * size);
        let id = user.init("x", content.len());
        for (at, piece) in content.chunks(size).enumerate() {
            user.part(&id, at as u64, piece).ok();
        }
        damage(&daemon.dir().join(dir), &content[size..2 * size]);
        // `complete` does not read again what was hashed on arrival; a restart forgets those
        // digests.
        daemon.restart(Signal::TERM);
        let user = daemon.user("u");
        let refused = user.complete(&id).refused(409, "parts_missing");
        assert_eq!(refused["missing"], json!([1]));
        // The line does not list the numbers, because an upload may have ten thousand damaged
        // parts.
        let log = daemon.log();
        assert_eq!(log.matches(r#""first":1,"last":1,"count":1"#).count(), round, "{log}");
        let status = user.get(&format!("/v1/files/{id}")).ok();
        assert_eq!(
            (&status["state"], &status["bytesReceived"]),
            (&json!("open"), &json!(2 * size))
        );
        user.complete(&id).refused(409, "parts_missing");
        user.part(&id, 1, &content[size..2 * size]).ok();
        let file = user.complete(&id).ok();
        assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
    }
    // The only part of an upload is gone from the disk.
    let user = daemon.user("u");
    let content = bytes(4, 100_000);
    let id = user.init("x", content.len());
    user.part(&id, 1, &content).ok();
    fs::remove_file(&staged_files(&daemon)[0]).unwrap();
    assert_eq!(user.complete(&id).refused(409, "parts_missing")["missing"], json!([1]));
    user.part(&id, 1, &content).ok();
    user.complete(&id).ok();
}

#[test]
fn names_come_from_complete_else_from_init() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let init = json!({
        "mode": "single",
        "files": [{"name": "a.txt", "size": 0, "mime": "x/y"}],
        "folder": "/one//two/",
        "meta": {"user_id": "u", "project": {"n": 1, "x": 0.123_456_789_010_123_45},
            "size": 99, "key": "mine"},
    });
    let id = service.post("/v1/files/init", &init).ok()["uploadId"].clone();
    let file = service.post("/v1/files/complete", json!({"uploadId": id})).ok();
    assert_eq!((&file["filename"], &file["folder"]), (&json!("a.txt"), &json!("one/two")));
    assert_eq!((&file["mime"], &file["size"]), (&json!("x/y"), &json!(0)));
    let path = format!("/v1/files/metadata/{}", file["key"].as_str().unwrap());
    let stored = service.get(&path).ok();
    let own = json!({
        "project": {"n": 1, "x": 0.123_456_789_010_123_45}, "size": 99, "key": "mine"
    });
    assert_eq!((&stored["meta"], &stored["size"]), (&own, &json!(0)));
    assert_eq!(stored["key"], file["key"]);

    // A user or folder in `meta` counts if the request does not name one beside `meta`.
    let mut init = init;
    init.as_object_mut().unwrap().remove("folder");
    init["meta"] = json!({"user_id": 17, "folder": "in/meta"});
    let id = service.post("/v1/files/init", &init).ok()["uploadId"].clone();
    let file = service.post("/v1/files/complete", json!({"uploadId": id})).ok();
    assert!(file["key"].as_str().unwrap().starts_with("storage/17/in/meta/"), "{file}");

    init["meta"] = json!({"user_id": "u"});
    let id = service.post("/v1/files/init", &init).ok()["uploadId"].clone();
    let meta = json!({"filename": "b.pdf", "folder": "three", "user_id": "u"});
    let body = json!({"uploadId": id, "meta": meta});
    let file = service.post("/v1/files/complete", body).ok();
    assert_eq!((&file["filename"], &file["folder"]), (&json!("b.pdf"), &json!("three")));
    let key = file["key"].as_str().unwrap();
    assert!(key.starts_with("storage/u/three/") && key.ends_with("_b.pdf"), "{key}");
}

#[test]
fn members_of_meta_count_before_those_of_init_each_by_itself() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let init = |meta: Value| {
        let files = json!([{"name": "f", "size": 0}]);
        let init = json!({"mode": "single", "files": files, "meta": meta});
        user.post("/v1/files/init", init).ok()["uploadId"].clone()
    };
    let complete = |id: &Value, meta: Value| {
        user.post("/v1/files/complete", json!({"uploadId": id, "meta": meta}))
    };
    for (of_init, said, wanted) in [
        (json!({"k": 1}), json!({"k2": 2}), json!({"k": 1, "k2": 2})),
        (
            json!({"k": {"a": 1}, "l": [1]}),
            json!({"k": {"b": 2}}),
            json!({"k": {"b": 2}, "l": [1]}),
        ),
        (json!({"k": 1}), json!({"k": null}), json!({"k": null})),
        (json!({"k": 1}), json!({"filename": "g"}), json!({"k": 1})),
        (json!({"k": 1}), json!({}), json!({"k": 1})),
        (json!({}), json!({"k": 2}), json!({"k": 2})),
    ] {
        let file = complete(&init(of_init), said).ok();
        let path = format!("/v1/files/metadata/{}", file["key"].as_str().unwrap());
        assert_eq!(user.get(&path).ok()["meta"], wanted);
    }
    // The limit applies to the `meta` of init and of complete together.
    let half = "x".repeat(2_100);
    let id = init(json!({"a": half}));
    complete(&id, json!({"b": half})).refused(400, "meta_too_large");
    complete(&id, json!({"a": half})).ok();
}

#[test]
fn an_upload_belongs_to_the_user_named_at_init() {
    let daemon = Daemon::start();
    let (service, other) = (daemon.service(), daemon.user("other"));
    let init = json!({"mode": "single", "files": [{"name": "f", "size": 0}]});
    service.post("/v1/files/init", &init).refused(400, "user_required");
    let id = service.post("/v1/files/init?user_email=u@x.io", &init).ok()["uploadId"].clone();
    let body = json!({"uploadId": id, "meta": {"user_id": "someone"}});
    service.post("/v1/files/complete", &body).refused(409, "owner_mismatch");
    other.post("/v1/files/complete", &body).refused(404, "upload_not_found");
    let owner = daemon.user("u@x.io");
    // A user's own id wins over any user id that the request names.
    let file = owner.post("/v1/files/complete", &body).ok();
    assert!(file["key"].as_str().unwrap().starts_with("storage/u@x.io/"));
}

#[test]
fn a_batch_completes_as_one() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let init = json!({
        "mode": "batch",
        "files": [{"name": "a", "size": 1}, {"name": "b", "size": 200_000}],
        "folder": "batch",
    });
    let opened = user.post("/v1/files/init", &init).ok();
    let batch = opened["uploadId"].as_str().unwrap();
    let ids: Vec<&str> = opened["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["uploadId"].as_str().unwrap())
        .collect();
    assert_eq!(opened["files"][1]["name"], "b");
    user.part(ids[0], 1, b"a").ok();
    let missing = user.complete(batch).refused(409, "parts_missing");
    assert_eq!(missing["uploadId"], ids[1]);
    let status = user.get(&format!("/v1/files/{batch}")).ok();
    assert_eq!((&status["state"], &status["bytesReceived"]), (&json!("open"), &json!(1)));
    assert_eq!(status["files"][1]["uploadId"], ids[1]);
    assert_eq!((&status["received"], &status["expiresAt"]), (&json!([]), &opened["expiresAt"]));
    let named = json!({"uploadId": batch, "meta": {"filename": "c"}});
    user.post("/v1/files/complete", named).refused(400, "not_for_a_batch");
    daemon.user("v").complete(batch).refused(404, "upload_not_found");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let content = bytes(4, 200_000);
    user.part(ids[1], 1, &content[..100_000]).ok();
    user.part(ids[1], 2, &content[100_000..]).ok();
    let files = user.complete(batch).ok()["files"].clone();
    assert_eq!(files[1]["sha256"], sha256(&content));
    assert_eq!(user.complete(batch).ok()["files"], files);
    assert_eq!(user.complete(ids[1]).ok(), files[1]);
    // A completed batch cannot be aborted, and its result stays.
    user.delete(&format!("/v1/files/{batch}")).refused(409, "upload_completed");
    assert_eq!(user.complete(batch).ok()["files"], files);
    assert_eq!(user.get("/v1/files/all?folder=batch").ok()["total_size"], 200_001);

    let opened = user.post("/v1/files/init", &init).ok();
    let first = opened["files"][0]["uploadId"].as_str().unwrap();
    user.part(first, 1, b"a").ok();
    assert_eq!(user.complete(first).ok()["filename"], "a");
    user.delete(&format!("/v1/files/{}", opened["uploadId"].as_str().unwrap())).ok();
    user.complete(opened["files"][1]["uploadId"].as_str().unwrap())
        .refused(404, "upload_not_found");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 3);
    let deep = vec!["d"; 32].join("/");
    let files: Vec<_> = (0..125).map(|_| json!({"name": "f", "size": 0})).collect();
    let wide = json!({"mode": "batch", "files": files, "folder": deep});
    user.post("/v1/files/init", wide).refused(400, "invalid_files");
    for files in [json!([]), json!(vec![json!({"name": "f", "size": 1}); 1001])] {
        let init = json!({"mode": "batch", "files": files});
        user.post("/v1/files/init", init).refused(400, "invalid_files");
    }
}

#[test]
fn a_batch_of_which_an_upload_is_gone_names_it() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let open = || {
        let files: Vec<_> = ["a", "b", "c"].map(|name| json!({"name": name, "size": 1})).into();
        let opened = user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
        let id = |of: &Value| of["uploadId"].as_str().unwrap().to_owned();
        let ids: Vec<_> = opened["files"].as_array().unwrap().iter().map(id).collect();
        (id(&opened), ids)
    };
    let path = |id: &str| format!("/v1/files/{id}");
    for aborted in [0, 1] {
        let (batch, mut ids) = open();
        let gone = ids.remove(aborted);
        user.delete(&path(&gone)).ok();
        for id in &ids {
            user.part(id, 1, b"x").ok();
        }
        // A batch completes as a whole or not at all; the refusal names the upload that is gone.
        assert_eq!(user.complete(&batch).refused(404, "upload_not_found")["uploadId"], gone);
        for id in &ids {
            user.complete(id).ok();
        }
        assert_eq!(user.get(&path(&batch)).ok()["state"], "completed");
    }
    let (batch, ids) = open();
    for id in &ids {
        user.delete(&path(id)).ok();
    }
    user.get(&path(&batch)).refused(404, "upload_not_found");
    user.complete(&batch).refused(404, "upload_not_found");
    user.delete(&path(&batch)).refused(404, "upload_not_found");
}

#[test]
fn a_file_comes_in_one_request() {
    let daemon = Daemon::start();
    let (service, user) = (daemon.service(), daemon.user("u"));
    for (name, size) in [("empty", 0), ("small.txt", 4096), ("edge", 64 << 10), ("large", 1 << 20)]
    {
        let content = bytes(5, size);
        let file = user.store(name, "put", &content);
        assert_eq!((&file["size"], &file["sha256"]), (&json!(size), &json!(sha256(&content))));
        assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
    }
    let path = "/v1/files/content?filename=f.html";
    service.put(path, "x").refused(400, "user_required");
    assert_eq!(service.put(&format!("{path}&user_id=v"), "x").status, 201);
    assert_eq!(daemon.user("v").names(""), ["f.html"]);
    let mime = |client: &crate::support::Client| client.put(path, "x").json()["mime"].clone();
    assert_eq!(mime(&user), "text/html");
    assert_eq!(
        mime(&user.header("content-type", "application/x-www-form-urlencoded")),
        "text/html"
    );
    assert_eq!(
        mime(&user.header("content-type", "application/x-www-form-urlencoded; charset=UTF-8")),
        "text/html"
    );
    assert_eq!(
        mime(&user.header("content-type", "text/x-other; charset=utf-8")),
        "text/x-other; charset=utf-8"
    );
    let form = user.header("content-type", "multipart/form-data; boundary=x");
    form.put(path, "x").refused(400, "encoded_content");
    user.header("content-encoding", "gzip").put(path, "x").refused(400, "encoded_content");
    user.header("content-range", "bytes 0-0/9").put(path, "x").refused(400, "encoded_content");
    user.put("/v1/files/content", "x").refused(400, "missing_parameter");
    user.put("/v1/files/content?filename=a%2Fb", "x").refused(400, "invalid_filename");
    user.put("/v1/files/content?filename=a&folder=..", "x").refused(400, "invalid_folder");
    let digest = format!("sha-256=:{}:", base64(&[0; 32]));
    user.header("repr-digest", &digest).put(path, "x").refused(400, "digest_mismatch");
}

#[test]
fn equal_content_is_shared_and_survives_the_deletion_of_one_file() {
    let daemon = Daemon::start();
    let (one, two) = (daemon.user("one"), daemon.user("two"));
    for size in [1000, 300_000] {
        let content = bytes(6, size);
        let first = one.store("f", "", &content);
        let second = two.store("g", "", &content);
        assert_eq!(first["blake3"], second["blake3"]);
        one.delete_file(&first).ok();
        assert_eq!(two.content(second["key"].as_str().unwrap()).body, content);
    }
}

#[test]
fn a_batch_and_its_uploads_completed_at_once_agree() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let files: Vec<_> = (0..4).map(|n| json!({"name": format!("f{n}"), "size": 4})).collect();
    let init = json!({"mode": "batch", "files": files});
    for _ in 0..12 {
        let opened = user.post("/v1/files/init", &init).ok();
        let uploads = opened["files"].as_array().unwrap();
        let ids: Vec<&str> =
            uploads.iter().map(|upload| upload["uploadId"].as_str().unwrap()).collect();
        for id in &ids {
            user.part(id, 1, b"ab").ok();
            user.part(id, 2, b"cd").ok();
        }
        let batch = opened["uploadId"].as_str().unwrap();
        let (whole, singly) = std::thread::scope(|scope| {
            let whole = scope.spawn(|| user.complete(batch).ok()["files"].clone());
            let single = |id| {
                scope.spawn({
                    let user = &user;
                    move || user.complete(id).ok()
                })
            };
            let singly: Vec<_> = ids.iter().copied().map(single).collect();
            let singly: Vec<_> = singly.into_iter().map(|t| t.join().unwrap()).collect();
            (whole.join().unwrap(), singly)
        });
        assert_eq!(whole, json!(singly));
    }
}

/// A URL parser drops spaces at the end (WHATWG), so a key that ended in one could not be pasted
/// into a URL.
#[test]
fn a_key_does_not_end_in_a_space() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for (name, end) in [("a b ", "_a b_"), ("  ", "___"), (" a", "_ a"), ("a\u{a0}", "_a\u{a0}")] {
        let file = user.store(name, " d ", b"x");
        let key = file["key"].as_str().unwrap();
        assert!(key.starts_with("storage/u/ d /") && key.ends_with(end), "{key:?}");
        assert_eq!((&file["filename"], &file["folder"]), (&json!(name), &json!(" d ")));
        assert_eq!(user.content(key).body, b"x");
        let list = user.get("/v1/files/all?limit=1").ok();
        assert_eq!(list["files"][0]["key"], key);
    }
}
