//! Final uploads, which are concatenated from partial uploads.

use rustix::process::Signal;
use serde_json::json;

use super::{OFFSET_TYPE, Tus, id, path};
use crate::support::{
    Client, Daemon, base64, bytes, client::Answer, command::command, eventually, harm::damage,
    sha256, staged_files,
};

impl Tus {
    /// Begins a partial upload and returns its path.
    fn partial(&self, size: usize) -> String {
        let partial = self.with("upload-concat", "partial");
        let created = partial.with("upload-length", &size.to_string()).post();
        assert_eq!((created.status, created.header("upload-offset")), (201, "0"));
        path(&created)
    }

    fn concatenate(&self, paths: &[&str]) -> Answer {
        let named = format!("filename {},folder {}", base64(b"f"), base64(b"a"));
        let concat = format!("final;{}", paths.join(" "));
        self.with("upload-metadata", &named).with("upload-concat", &concat).post()
    }

    /// Appends to a partial upload, which never becomes a file by itself.
    fn add(&self, path: &str, offset: usize, body: &[u8]) {
        let answer = self.patch(path, offset, body);
        let end = (offset + body.len()).to_string();
        assert_eq!((answer.status, answer.header("upload-offset")), (204, &*end), "{answer:?}");
        assert!(answer.headers.get("upload-key").is_none());
    }
}

fn key(answer: &Answer) -> String {
    answer.header("upload-key").to_owned()
}

fn open(client: &Client) -> usize {
    client.get("/v1/files/uploads").ok()["uploads"].as_array().unwrap().len()
}

#[test]
fn whole_partial_uploads_become_one_file() {
    let daemon = Daemon::with(&[("quota_bytes", "300000")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let content = bytes(1, 300_000);
    let paths = [tus.partial(100_000), tus.partial(150_000), tus.partial(50_000)];
    // Each partial upload reserves its whole length.
    tus.with("upload-concat", "partial")
        .with("upload-length", "1")
        .post()
        .refused(413, "quota_exceeded");
    let [one, two, three] = &paths;
    tus.add(three, 0, &content[250_000..]);
    tus.add(two, 0, &content[100_000..200_000]);
    tus.add(one, 0, &content[..100_000]);
    tus.add(two, 100_000, &content[200_000..250_000]);
    let head = tus.head(two);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("150000", "150000"));
    assert_eq!(head.header("upload-concat"), "partial");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let whole = tus.concatenate(&[one, &format!("https://x.example/store{two}"), three]);
    assert_eq!((whole.status, whole.header("upload-offset")), (201, "300000"));
    let file = user.get(&format!("/v1/files/metadata/{}", key(&whole))).ok();
    assert_eq!((&file["sha256"], &file["folder"]), (&json!(sha256(&content)), &json!("a")));
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, content);
    let head = tus.head(&path(&whole));
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), ("300000", "300000"));
    let url = daemon.url();
    assert_eq!(head.header("upload-concat"), format!("final;{url}{one} {url}{two} {url}{three}"));
    assert_eq!(key(&head), key(&whole));
    // The partial uploads ended with the final one.
    assert_eq!((tus.head(one).status, open(&user)), (404, 0));
    assert!(staged_files(&daemon).is_empty());
    tus.patch(&path(&whole), 300_000, b"").refused(403, "final_upload");
    user.delete(&format!("/v1/files/{}", key(&whole))).ok();
    assert_eq!(user.put("/v1/files/content?filename=f", content).status, 201);
}

#[test]
fn the_last_byte_of_the_last_one_ends_a_final_upload_that_waits() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let one = tus.partial(3);
    let two = path(&tus.with("upload-concat", "partial").with("upload-defer-length", "1").post());
    tus.add(&two, 0, b"de");
    let waits = tus.concatenate(&[&one, &two]);
    assert_eq!(waits.status, 201);
    assert!(waits.headers.get("upload-offset").is_none());
    let of = path(&waits);
    let head = tus.head(&of);
    let url = daemon.url();
    let named = format!("final;{url}{one} {url}{two}");
    assert_eq!((head.status, head.header("upload-concat")), (200, &*named));
    for absent in ["upload-offset", "upload-length", "upload-defer-length", "upload-key"] {
        assert!(head.headers.get(absent).is_none(), "{absent}");
    }
    tus.add(&one, 0, b"abc");
    let declared = tus.with("upload-length", "4");
    declared.add(&two, 2, b"");
    assert_eq!(tus.head(&of).header("upload-length"), "7");
    tus.add(&two, 2, b"f");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    tus.add(&two, 3, b"g");
    let files = user.get("/v1/files/all").ok();
    assert_eq!(files["total_count"], 1);
    assert_eq!(user.content(files["files"][0]["key"].as_str().unwrap()).body, b"abcdefg");
    assert_eq!(key(&tus.head(&of)), files["files"][0]["key"].as_str().unwrap());
    // Empty partial uploads are complete from the beginning.
    let [one, two] = [tus.partial(0), tus.partial(0)];
    assert_eq!(tus.concatenate(&[&one, &two]).header("upload-offset"), "0");
}

#[test]
fn what_cannot_be_one_file_is_refused() {
    let daemon = Daemon::with(&[("file_bytes_max", "9")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let other = Tus::of(&daemon.user("v"));
    let (one, two) = (tus.partial(5), tus.partial(4));
    let alone = path(&tus.with("upload-length", "5").post());
    for bad in ["", "final", "partial;", "final;/x", "final;"] {
        let tus = tus.with("upload-concat", bad);
        tus.post().refused(400, "invalid_upload_concat");
        // Only of a final upload it is known that it has no length of its own.
        let code = if bad == "final;" { "invalid_upload_length" } else { "invalid_upload_concat" };
        tus.with("upload-length", "1").post().refused(400, code);
    }
    tus.with("upload-length", "9").concatenate(&[&one, &two]).refused(400, "invalid_upload_length");
    tus.concatenate(&[&one, &alone]).refused(400, "invalid_upload_concat");
    tus.concatenate(&[&one, &format!("/v1/tus/{}", "0".repeat(32))])
        .refused(404, "upload_not_found");
    other.concatenate(&[&one, &two]).refused(404, "upload_not_found");
    let service = Tus::of(&daemon.service());
    let named = service.with("upload-concat", &format!("final;{one} {two}"));
    named.0.send("POST", "/v1/tus?user_id=v", "").refused(404, "upload_not_found");
    tus.concatenate(&[&one, &one]).refused(409, "upload_concatenated");
    let three = tus.partial(1);
    tus.concatenate(&[&one, &two, &three]).refused(413, "too_large");
    let typed = tus.with("content-type", "application/offset+octet-stream");
    let with_bytes = typed.with("upload-concat", &format!("final;{one} {two}"));
    with_bytes.0.send("POST", "/v1/tus", "x").refused(403, "final_upload");
    let chunked = with_bytes.with("transfer-encoding", "chunked");
    chunked.0.send("POST", "/v1/tus", "x").refused(403, "final_upload");
    // None of the refused requests left an upload.
    assert_eq!(open(&user), 4);
    // A chunked body shows only at its end that it is empty.
    let of = path(&tus.with("transfer-encoding", "chunked").concatenate(&[&one, &two]));
    tus.concatenate(&[&two, &three]).refused(409, "upload_concatenated");
    // Neither tus, the documented API nor the draft treats a partial or a final upload like others.
    tus.patch(&of, 0, b"x").refused(403, "final_upload");
    assert_eq!((tus.offset(&one), tus.offset(&two)), (0, 0));
    user.part(id(&of), 1, b"x").refused(403, "final_upload");
    user.put(&format!("/v1/files/{}/parts/1", id(&of)), "x").refused(403, "final_upload");
    user.complete(id(&of)).refused(409, "partials_unfinished");
    tus.add(&one, 0, b"hello");
    user.complete(id(&one)).refused(409, "partial_upload");
    let draft = user.header("content-type", "application/partial-upload");
    let last = draft.header("upload-offset", "5").header("upload-complete", "?1");
    last.send("PATCH", &format!("/v1/uploads/{}", id(&one)), "").refused(409, "partial_upload");
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    // The bytes may also come as a part of the documented API.
    user.part(id(&two), 1, b"you!").ok();
    assert_eq!(user.complete(id(&of)).ok()["sha256"], sha256(b"helloyou!"));
}

#[test]
fn partial_and_final_uploads_are_given_up_each_by_itself() {
    let daemon = Daemon::with(&[("upload_ttl", "4s"), ("quota_bytes", "20")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let (one, two) = (tus.partial(5), tus.partial(5));
    let of = path(&tus.concatenate(&[&one, &two]));
    assert_eq!(tus.0.delete(&of).status, 204);
    assert_eq!(tus.head(&of).status, 404);
    // The partial uploads of a deleted final upload are free for another one.
    let of = path(&tus.concatenate(&[&two, &one]));
    tus.add(&one, 0, b"world");
    assert_eq!(tus.0.delete(&two).status, 204);
    assert_eq!(tus.head(&of).status, 410);
    user.complete(id(&of)).refused(410, "gone");
    assert_eq!(tus.head(&one).header("upload-offset"), "5");
    // All of them expire, and the quota that they reserved is free.
    eventually(|| tus.head(&of).status == 404 && tus.head(&one).status == 404);
    assert!(command(&daemon.dir(), &["gc"]).status.success());
    assert_eq!(user.put("/v1/files/content?filename=f", [0; 20]).status, 201);
    assert_eq!(open(&user), 0);
}

#[test]
fn a_kill_leaves_partial_and_final_uploads_as_they_were() {
    let mut daemon = Daemon::start();
    let content = bytes(2, 400_000);
    let (one, two, of) = {
        let tus = Tus::of(&daemon.user("u"));
        let (one, two) = (tus.partial(200_000), tus.partial(200_000));
        tus.add(&one, 0, &content[..200_000]);
        tus.add(&two, 0, &content[200_000..300_000]);
        let of = path(&tus.concatenate(&[&one, &two]));
        (one, two, of)
    };
    daemon.restart(Signal::KILL);
    {
        let tus = Tus::of(&daemon.user("u"));
        assert_eq!(tus.head(&two).header("upload-offset"), "100000");
        // A part brings the last bytes, so that nothing completes the final upload before the kill.
        let rest = &content[300_000..];
        assert_eq!(tus.0.put(&format!("/v1/files/{}/parts/2", id(&two)), rest).status, 200);
    }
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    let head = Tus::of(&user).head(&of);
    assert_eq!(head.header("upload-offset"), "400000");
    let url = daemon.url();
    assert_eq!(head.header("upload-concat"), format!("final;{url}{one} {url}{two}"));
    assert_eq!(user.content(head.header("upload-key")).body, content);
    daemon.restart(Signal::KILL);
    let user = daemon.user("u");
    assert_eq!(key(&Tus::of(&user).head(&of)), key(&head));
    assert_eq!((Tus::of(&user).head(&one).status, open(&user)), (404, 0));
}

#[test]
fn a_final_upload_is_named_by_itself_and_in_the_order_of_its_list() {
    let daemon = Daemon::with(&[("public_url", "https://files.example.com/store")]);
    let user = daemon.user("u");
    let tus = Tus::of(&user).with("upload-concat", "partial");
    let typed = tus.with("content-type", OFFSET_TYPE).with("upload-length", "3");
    // A partial upload that has all of its bytes is still no file.
    let own = typed.with("upload-metadata", &format!("filename {},own", base64(b"partial")));
    let made = |content: &str| {
        let created = own.0.send("POST", "/v1/tus", content);
        assert_eq!((created.status, created.header("upload-offset")), (201, "3"));
        created.header("location").to_owned()
    };
    let (one, two) = (made("abc"), made("def"));
    assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
    let concat = format!("final;{two} {one}");
    let whole = Tus::of(&user).with("upload-concat", &concat).post();
    let file = user.get(&format!("/v1/files/metadata/{}", key(&whole))).ok();
    assert_eq!((&file["filename"], &file["meta"]), (&json!("upload"), &json!({})));
    assert_eq!(user.content(file["key"].as_str().unwrap()).body, b"defabc");
    // `Upload-Concat` is as the client sent it.
    assert_eq!(Tus::of(&user).head(&path(&whole)).header("upload-concat"), concat);
}

#[test]
fn a_partial_upload_goes_on_where_damage_begins() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged parts");
    let content = bytes(12, 600_000);
    let (paths, lengths) = {
        let tus = Tus::of(&daemon.user("u"));
        let paths = [tus.partial(100_000), tus.partial(300_000), tus.partial(200_000)];
        tus.add(&paths[0], 0, &content[..100_000]);
        tus.add(&paths[1], 0, &content[100_000..250_000]);
        tus.add(&paths[1], 150_000, &content[250_000..400_000]);
        tus.add(&paths[2], 0, &content[400_000..]);
        (paths, [100_000, 0, 0])
    };
    damage(&daemon.dir().join("staging"), &content[100_000..250_000]);
    damage(&daemon.dir().join("staging"), &content[400_000..]);
    daemon.restart(Signal::TERM);
    let user = daemon.user("u");
    let tus = Tus::of(&user);
    let paths = paths.each_ref().map(String::as_str);
    // The refusal names the first damaged partial upload. Each partial upload tells where to
    // continue.
    let refused = tus.concatenate(&paths).refused(409, "parts_missing");
    assert_eq!(refused["uploadId"], id(paths[1]));
    assert_eq!(paths.map(|path| tus.offset(path)), lengths);
    tus.add(paths[1], 0, &content[100_000..400_000]);
    tus.add(paths[2], 0, &content[400_000..]);
    let whole = tus.concatenate(&paths);
    assert_eq!((whole.status, user.content(&key(&whole)).body == content), (201, true));
}
