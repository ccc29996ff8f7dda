//! The core protocol: clients ask for the offset of an upload and continue there.

use serde_json::json;

use super::{OFFSET_TYPE, Tus, content, id, path};
use crate::support::{Daemon, base64, bytes, sha256};

#[test]
fn options_say_what_is_spoken() {
    let daemon = Daemon::with(&[("file_bytes_max", "1234567")]);
    for path in ["/v1/tus", "/v1/tus/", "/v1/tus/00000000000000000000000000000000"] {
        // The answer does not depend on the version that the request names.
        let asked = daemon.user("u").header("tus-resumable", "0.2.2");
        assert_eq!(asked.send("OPTIONS", path, "").header("tus-version"), "1.0.0");
        let options = daemon.user("u").send("OPTIONS", path, "");
        assert_eq!((options.status, options.header("tus-version")), (204, "1.0.0"));
        assert_eq!(options.header("tus-max-size"), "1234567");
        assert_eq!(options.header("tus-checksum-algorithm"), "sha1,sha256");
        assert_eq!(
            options.header("tus-extension"),
            "creation,creation-with-upload,creation-defer-length,expiration,checksum,\
             checksum-trailer,termination,concatenation,concatenation-unfinished",
        );
    }
    daemon.anyone().send("OPTIONS", "/v1/tus", "").refused(401, "unauthenticated");
}

#[test]
fn another_version_is_refused() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let path = Tus::of(&user).create(5);
    let other = Tus(user.header("tus-resumable", "0.2.2"));
    for tus in [&other, &Tus(user.clone()), &Tus(user.header("tus-resumable", "1.0.0, 0.2.2"))] {
        for (method, path) in [("POST", "/v1/tus"), ("PATCH", &*path), ("DELETE", &*path)] {
            let answer = tus.with("upload-length", "5").0.send(method, path, "");
            answer.refused(412, "tus_version_unsupported");
            assert_eq!(answer.header("tus-version"), "1.0.0");
            assert_eq!(answer.header("tus-resumable"), "1.0.0");
        }
        assert_eq!(tus.head(&path).status, 412);
    }
    // None of these requests changed anything.
    assert_eq!(Tus::of(&user).offset(&path), 0);
    let open = user.get("/v1/files/uploads").ok();
    assert_eq!(open["uploads"].as_array().unwrap().len(), 1);
}

#[test]
fn every_answer_names_the_version_and_is_not_to_be_kept() {
    let daemon = Daemon::start();
    let tus = Tus::of(&daemon.user("u"));
    let path = tus.create(5);
    let nothing = format!("/v1/tus/{}", "0".repeat(32));
    let answers = [
        (201, tus.with("upload-length", "1").post()),
        (200, tus.head(&path)),
        (204, tus.patch(&path, 0, b"h")),
        (409, tus.patch(&path, 0, b"h")),
        (413, tus.patch(&path, 1, b"ello!")),
        (415, tus.with("upload-offset", "1").0.send("PATCH", &path, "e")),
        (404, tus.head(&nothing)),
        (404, tus.patch(&nothing, 0, b"h")),
        (404, tus.0.delete(&nothing)),
        (404, tus.head("/v1/tus/nothing")),
        (404, tus.head("/v1/tus/nothing/at/all")),
        (405, tus.0.get(&path)),
        (405, tus.0.put("/v1/tus", "")),
        (401, Tus::of(&daemon.anyone()).head(&path)),
        (400, tus.post()),
        (204, tus.0.delete(&path)),
    ];
    for (status, answer) in answers {
        assert_eq!((answer.status, answer.header("tus-resumable")), (status, "1.0.0"));
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
        let tells =
            matches!(status, 200 | 201 | 204) && answer.headers.contains_key("upload-offset");
        assert!(tells || !answer.headers.contains_key("upload-offset") || status == 409);
    }
}

#[test]
fn an_upload_goes_on_where_it_stands_and_becomes_a_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(1, 300_000);
    let metadata = format!(
        "filename {},filetype {},folder {},camera {},empty",
        base64("ü b.png".as_bytes()),
        base64(b"image/png"),
        base64(b"a/b"),
        base64(b"x100"),
    );
    let described = tus.with("upload-metadata", &metadata).with("upload-length", "300000");
    let created = described.0.send("POST", "/v1/tus", "");
    assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
    let path = path(&created);
    assert_eq!(created.header("location"), format!("{}{path}", daemon.url()));
    let head = tus.head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("0", "300000"));
    assert_eq!((head.header("cache-control"), head.header("tus-resumable")), ("no-store", "1.0.0"));
    let mut told: Vec<&str> = head.header("upload-metadata").split(',').collect();
    let mut said: Vec<&str> = metadata.split(',').collect();
    told.sort_unstable();
    said.sort_unstable();
    assert_eq!(told, said);
    assert_eq!(tus.append(&path, 0, &content_[..100_000]), 100_000);
    tus.patch(&path, 0, b"x").refused(409, "offset_mismatch");
    tus.patch(&path, 100_001, b"x").refused(409, "offset_mismatch");
    assert_eq!(tus.offset(&path), 100_000);
    assert_eq!(tus.append(&path, 100_000, b""), 100_000);
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let last = tus.patch(&path, 100_000, &content_[100_000..]);
    assert_eq!((last.status, last.header("upload-offset")), (204, "300000"));
    assert_eq!(content(&user, &last), content_);
    let head = tus.head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("300000", "300000"));
    assert_eq!(head.header("upload-key"), last.header("upload-key"));
    let list = user.get("/v1/files/all?folder=a").ok();
    assert_eq!(
        (&list["total_count"], &list["files"][0]["filename"]),
        (&json!(1), &json!("ü b.png"))
    );
    let key = format!("/v1/files/metadata/{}", last.header("upload-key"));
    let file = user.get(&key).ok();
    assert_eq!((&file["mime"], &file["sha256"]), (&json!("image/png"), &json!(sha256(&content_))));
    assert_eq!(file["meta"], json!({"camera": "x100", "empty": ""}));
    // A completed upload repeats its answer and takes nothing more.
    assert_eq!(tus.append(&path, 300_000, b""), 300_000);
    tus.patch(&path, 300_000, b"x").refused(413, "too_large");
    tus.patch(&path, 0, b"x").refused(409, "offset_mismatch");
    user.delete(&format!("/v1/files/{}", last.header("upload-key"))).ok();
    assert_eq!(tus.head(&path).status, 410);
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let daemon = Daemon::with(&[("file_bytes_max", "1000")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let create = |headers: &[(&str, &str)]| {
        let with = |tus: Tus, (name, value): &(&str, &str)| tus.with(name, value);
        headers.iter().fold(Tus(tus.0.clone()), with).0.send("POST", "/v1/tus", "")
    };
    create(&[]).refused(400, "invalid_upload_length");
    for bad in ["-1", "+1", "x", "1.5", "1e3", "0x5", "1 2", "", "99999999999999999999"] {
        create(&[("upload-length", bad)]).refused(400, "invalid_upload_length");
    }
    for bad in ["2", "0", "", "true", "1,1"] {
        create(&[("upload-defer-length", bad)]).refused(400, "invalid_upload_length");
    }
    create(&[("upload-length", "1"), ("upload-length", "1")]).refused(400, "invalid_header");
    let both = [("upload-length", "1"), ("upload-defer-length", "1")];
    create(&both).refused(400, "invalid_upload_length");
    create(&[("upload-length", "1001")]).refused(413, "too_large");
    let described =
        |metadata: &str| create(&[("upload-length", "1"), ("upload-metadata", metadata)]);
    for bad in ["filename !", "a YQ==,a YQ==", "a YQ==,,b YQ==", "a /w=="] {
        described(bad).refused(400, "invalid_upload_metadata");
    }
    let pair = |key: &str, value: &str| described(&format!("{key} {}", base64(value.as_bytes())));
    pair("filename", "../x").refused(400, "invalid_filename");
    described("filename").refused(400, "invalid_filename");
    pair("folder", "a/../b").refused(400, "invalid_folder");
    pair("filetype", "nonsense").refused(400, "invalid_mime");
    pair("a", &"x".repeat(5000)).refused(400, "meta_too_large");
    assert_eq!(user.get("/v1/files/uploads").ok(), json!({"uploads": []}));

    let path = tus.create(5);
    let at = |kind: &str| tus.with("content-type", kind).with("upload-offset", "0");
    for other in ["", "application/octet-stream", "text/plain", "application/partial-upload"] {
        at(other).0.send("PATCH", &path, "x").refused(415, "media_type_unsupported");
    }
    let typed = tus.with("content-type", OFFSET_TYPE);
    typed.0.send("PATCH", &path, "x").refused(400, "invalid_upload_offset");
    // The encoded bytes would be stored as the content, which they are not.
    let zipped = tus.with("content-encoding", "gzip");
    zipped.patch(&path, 0, b"x").refused(400, "encoded_content");
    let digest = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    tus.with("content-digest", digest).patch(&path, 0, b"x").refused(460, "checksum_mismatch");
    for bad in ["-1", "+0", "0.0", "0x0", "x", "", "0,0", "18446744073709551616"] {
        let wrong = typed.with("upload-offset", bad);
        wrong.0.send("PATCH", &path, "x").refused(400, "invalid_upload_offset");
    }
    let twice = typed.with("upload-offset", "0").with("upload-offset", "0");
    twice.0.send("PATCH", &path, "x").refused(400, "invalid_header");
    tus.with("upload-length", "6").patch(&path, 0, b"x").refused(400, "inconsistent_upload_length");
    tus.patch(&path, 0, b"sixsix").refused(413, "too_large");
    let chunked = tus.with("transfer-encoding", "chunked");
    chunked.patch(&path, 0, b"sixsix").refused(413, "too_large");
    assert_eq!(tus.offset(&path), 0);
    assert_eq!(at("Application/Offset+Octet-Stream; v=1").0.send("PATCH", &path, "x").status, 204);
    tus.0.get(&path).refused(405, "method_not_allowed");
    tus.0.put("/v1/tus", "").refused(405, "method_not_allowed");
    tus.patch("/v1/tus/nothing", 0, b"x").refused(404, "upload_not_found");
}

#[test]
fn a_whole_upload_takes_nothing_more_and_says_so() {
    let daemon = Daemon::start();
    let tus = Tus::of(&daemon.user("u"));
    let path = tus.create(3);
    tus.append(&path, 0, b"abc");
    let chunked = tus.with("transfer-encoding", "chunked");
    let wrong = format!("sha1 {}", base64(&[0; 20]));
    for tus in [&tus, &chunked] {
        assert_eq!(tus.append(&path, 3, b""), 3);
        assert_eq!(tus.with("upload-length", "3").append(&path, 3, b""), 3);
        let longer = tus.with("upload-length", "9");
        longer.patch(&path, 3, b"").refused(400, "inconsistent_upload_length");
        tus.patch(&path, 2, b"").refused(409, "offset_mismatch");
        tus.patch(&path, 3, b"more").refused(413, "too_large");
        let checked = tus.with("upload-checksum", &wrong);
        checked.patch(&path, 3, b"").refused(460, "checksum_mismatch");
        checked.patch(&path, 3, b"more").refused(413, "too_large");
    }
    assert_eq!(tus.offset(&path), 3);
}

#[test]
fn another_method_may_be_named_in_a_header() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let path = tus.create(5);
    // The method that was sent does not count, whichever it is.
    let sent = |method: &str, named: &str| {
        let over = tus.with("x-http-method-override", named).with("content-type", OFFSET_TYPE);
        over.with("upload-offset", "0").0.send(method, &path, "")
    };
    for method in ["POST", "GET", "DELETE"] {
        let head = sent(method, "HEAD");
        assert_eq!((head.status, head.header("upload-length")), (200, "5"));
        assert_eq!(sent(method, "OPTIONS").header("tus-version"), "1.0.0");
        for unknown in ["patch", "GET", "MOVE"] {
            sent(method, unknown).refused(405, "method_not_allowed");
        }
        for none in ["", "PATCH PATCH", "DELETE,PATCH"] {
            sent(method, none).refused(400, "invalid_header");
        }
    }
    assert_eq!(tus.offset(&path), 0);
    let over = tus.with("x-http-method-override", "PATCH").with("content-type", OFFSET_TYPE);
    let answer = over.with("upload-offset", "0").0.send("POST", &path, "hello");
    assert_eq!(answer.status, 204);
    assert_eq!(content(&user, &answer), b"hello");
}

#[test]
fn an_upload_of_another_user_is_not_there_and_a_viewer_may_not_upload() {
    let daemon = Daemon::start();
    let (user, other) = (Tus::of(&daemon.user("u")), Tus::of(&daemon.user("v")));
    let path = user.create(5);
    other.patch(&path, 0, b"hello").refused(404, "upload_not_found");
    other.0.delete(&path).refused(404, "upload_not_found");
    assert_eq!(other.head(&path).status, 404);
    let nobody = Tus::of(&daemon.anyone());
    let refused = nobody.patch(&path, 0, b"hello");
    refused.refused(401, "unauthenticated");
    assert_eq!(refused.header("tus-resumable"), "1.0.0");
    // A service must name the user, in the metadata or in the query.
    let service = Tus::of(&daemon.service()).with("upload-length", "0");
    service.0.send("POST", "/v1/tus", "").refused(400, "user_required");
    let named = service.with("upload-metadata", &format!("user_id {}", base64(b"u")));
    let created = named.0.send("POST", "/v1/tus", "");
    assert!(created.header("upload-key").starts_with("storage/u/"));
    let created = service.0.send("POST", "/v1/tus?user_id=v", "");
    assert!(created.header("upload-key").starts_with("storage/v/"));
    // A user id that a user sends is ignored.
    let named = user.with("upload-metadata", &format!("user_id {}", base64(b"v")));
    let created = named.with("upload-length", "0").0.send("POST", "/v1/tus", "");
    assert!(created.header("upload-key").starts_with("storage/u/"));
}

#[test]
fn small_pieces_share_parts() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content_ = bytes(7, 200_000);
    let path = tus.create(content_.len());
    for (at, piece) in content_.chunks(1000).enumerate() {
        tus.append(&path, at * 1000, piece);
        if at == 150 {
            let status = user.get(&format!("/v1/files/{}", id(&path))).ok();
            assert!(status["received"].as_array().unwrap().len() <= 3, "{status}");
            assert_eq!(status["bytesReceived"], 151_000);
        }
    }
    assert_eq!(content(&user, &tus.head(&path)), content_);
}

#[test]
fn two_dialects_speak_of_one_session() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    // Begun in tus, continued with parts, ended with complete.
    let path = tus.create(10);
    tus.append(&path, 0, b"abc");
    let status = user.get(&format!("/v1/files/{}", id(&path))).ok();
    let part = json!([{"partNumber": 1, "size": 3}]);
    assert_eq!((&status["received"], &status["size"]), (&part, &json!(10)));
    user.part(id(&path), 2, b"defg").ok();
    assert_eq!(tus.offset(&path), 7);
    user.part(id(&path), 4, b"j").ok();
    tus.patch(&path, 7, b"hi").refused(409, "parts_missing");
    user.part(id(&path), 3, b"hi").ok();
    let file = user.complete(id(&path)).ok();
    let head = tus.head(&path);
    assert_eq!(head.header("upload-key"), file["key"].as_str().unwrap());
    assert_eq!(content(&user, &head), b"abcdefghij");
    // Begun with init, part 0 first; ended in tus.
    let id_ = user.init("x", 6);
    user.part(&id_, 0, b"abc").ok();
    let path = format!("/v1/tus/{id_}");
    assert_eq!(tus.offset(&path), 3);
    assert_eq!(content(&user, &tus.patch(&path, 3, b"def")), b"abcdef");
    assert_eq!(user.get(&format!("/v1/files/{id_}")).ok()["state"], "completed");
    // All bytes are there, but nothing completed the upload, as after a crash. The next HEAD does,
    // but only if the upload was begun in tus.
    let path = tus.create(3);
    user.part(id(&path), 1, b"abc").ok();
    assert_eq!(content(&user, &tus.head(&path)), b"abc");
    let id_ = user.init("x", 3);
    user.part(&id_, 1, b"abc").ok();
    let path = format!("/v1/tus/{id_}");
    assert_eq!(tus.offset(&path), 3);
    assert_eq!(user.get(&format!("/v1/files/{id_}")).ok()["state"], "open");
    // Aborted like every other upload.
    let path = tus.create(9);
    tus.append(&path, 0, b"x");
    user.delete(&format!("/v1/files/{}", id(&path))).ok();
    assert_eq!(tus.head(&path).status, 404);
    // Without a declared length, the upload is completed with the bytes that it has.
    let deferred = tus.with("upload-defer-length", "1").0.send("POST", "/v1/tus", "");
    let path = self::path(&deferred);
    tus.append(&path, 0, b"all of it");
    assert_eq!(user.complete(id(&path)).ok()["sha256"], sha256(b"all of it"));
}

#[test]
fn a_path_may_be_written_with_escapes() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let path = Tus::of(&user).create(5).replace("/tus/", "/t%75s/");
    for (status, method) in [(405, "GET"), (200, "HEAD"), (204, "DELETE"), (404, "DELETE")] {
        let answer = Tus::of(&user).0.send(method, &path, "");
        assert_eq!((answer.status, answer.header("tus-resumable")), (status, "1.0.0"));
    }
    let overridden = Tus::of(&user).with("x-http-method-override", "OPTIONS").0.get(&path);
    assert_eq!((overridden.status, overridden.header("tus-version")), (204, "1.0.0"));
}

/// Clients of the documented API may send members of `meta` with names that are keys of
/// `Upload-Metadata` here.
#[test]
fn metadata_names_no_key_twice() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let init = json!({
        "mode": "single", "files": [{"name": "own.png", "size": 1}], "folder": "a",
        "meta": {"filename": "x", "folder": "b", "filetype": "text/html", "camera": "x100"},
    });
    let id = user.post("/v1/files/init", init).ok()["uploadId"].clone();
    let head = Tus::of(&user).head(&format!("/v1/tus/{}", id.as_str().unwrap()));
    let told = [("filename", "own.png"), ("folder", "a"), ("camera", "x100")];
    let told = told.map(|(key, value)| format!("{key} {}", base64(value.as_bytes()))).join(",");
    assert_eq!(head.header("upload-metadata"), told);
}
