//! Batch downloads: tokens, and the archives they stand for.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Client, Daemon, bytes,
    command::run,
    harm::{blob, flip},
    raw::exchange,
};

const PATH: &str = "/v1/files/batch-download";

fn key(file: &Value) -> String {
    file["key"].as_str().unwrap().to_owned()
}

/// Requests a batch token and returns the path of its archive.
fn mint(client: &Client, batch: Value) -> String {
    let minted = client.post(PATH, batch).ok();
    assert_eq!(minted["expires_in"], 3600);
    format!("{PATH}/{}", minted["token"].as_str().unwrap())
}

#[test]
fn an_archive_is_the_same_in_whole_in_part_and_after_a_restart() {
    let mut daemon = Daemon::start();
    let user = daemon.user("u");
    let contents = [bytes(1, 300_000), bytes(2, 5000), Vec::new()];
    let keys: Vec<_> = contents.iter().map(|c| key(&user.store("ü b.txt", "x/y", c))).collect();
    let path = mint(&user, json!({"keys": keys}));
    let whole = daemon.anyone().get(&path);
    assert_eq!(whole.status, 200);
    assert_eq!(whole.header("content-type"), "application/zip");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("content-length"), whole.body.len().to_string());
    assert_eq!(whole.header("content-disposition"), "attachment; filename=\"files.zip\"");
    assert!(whole.body.starts_with(b"PK\x03\x04"));
    let stored = |content: &[u8]| whole.body.windows(content.len()).any(|part| part == content);
    assert!(stored(&contents[0]) && stored(&contents[1]) && stored("ü b (3).txt".as_bytes()));

    daemon.restart(Signal::KILL);
    let anyone = daemon.anyone();
    let head = anyone.send("HEAD", &path, "");
    for name in ["content-length", "content-type", "etag"] {
        assert_eq!(head.header(name), whole.header(name));
    }
    let size = whole.body.len();
    // Ranges within each segment of the archive and across their bounds.
    let bounds = [0, 10, 60, 300_030, 300_080, 303_000, size - 400, size - 100, size - 22, size];
    for (start, end) in bounds.iter().zip(&bounds[1..]).chain([(&60, &size), (&0, &(size - 1))]) {
        let range = format!("bytes={start}-{}", end - 1);
        let part = anyone.header("range", &range).header("if-range", whole.header("etag"));
        let part = part.get(&path);
        assert_eq!((part.status, &part.body[..]), (206, &whole.body[*start..*end]), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {start}-{}/{size}", end - 1));
    }
    let several = anyone.header("range", "bytes=0-1,200000-200001").get(&path);
    assert_eq!((several.status, several.body.len()), (200, size));
    anyone
        .header("range", &format!("bytes={size}-"))
        .get(&path)
        .refused(416, "range_not_satisfiable");
    let same = anyone.header("if-none-match", whole.header("etag")).get(&path);
    assert_eq!(same.status, 304);
    // No date shows whether an archive is still the same, so conditions with a date do not hold.
    let date = "Fri, 31 Dec 9999 23:59:59 GMT";
    assert_eq!(anyone.header("if-modified-since", date).get(&path).status, 200);
    let part = anyone.header("range", "bytes=0-1").header("if-range", date).get(&path);
    assert_eq!(part.status, 200);
    let token = path.rsplit('/').next().unwrap();
    assert!(!daemon.log().contains(token), "the token is in the log");
}

#[test]
fn a_folder_is_fetched_as_it_is() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    user.store("a.txt", "main/sub", b"one");
    user.store("b.txt", "main", b"two");
    user.store("c.txt", "other", b"three");
    let names = |path: &str| {
        let answer = daemon.anyone().get(path);
        assert_eq!(answer.status, 200);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let named = ["sub/a.txt", "main/sub/a.txt", "b.txt", "late.txt", "other/c.txt"];
        let found = named.into_iter().filter(|name| text.contains(*name)).collect::<Vec<_>>();
        (answer.header("content-disposition").to_owned(), found)
    };
    let main = mint(&user, json!({"folder": "/main/"}));
    let attachment = "attachment; filename=\"main.zip\"".to_owned();
    assert_eq!(names(&main), (attachment.clone(), vec!["sub/a.txt", "b.txt"]));
    user.store("late.txt", "main", b"four");
    assert_eq!(names(&main), (attachment, vec!["sub/a.txt", "b.txt", "late.txt"]));
    let top = mint(&user, json!({"folder": ""}));
    assert!(names(&top).1.contains(&"main/sub/a.txt") && names(&top).1.contains(&"other/c.txt"));
    let service = mint(&daemon.service(), json!({"folder": "other", "user_id": "u"}));
    assert_eq!(daemon.anyone().get(&service).status, 200);

    user.post(PATH, json!({"folder": "nothing"})).refused(404, "not_found");
    user.post(PATH, json!({"folder": "a/../b"})).refused(400, "invalid_folder");
    daemon.service().post(PATH, json!({"folder": "other"})).refused(400, "user_required");
    let gone = mint(&user, json!({"folder": "other"}));
    user.delete_file(&user.get("/v1/files/all?folder=other").ok()["files"][0]).ok();
    daemon.anyone().get(&gone).refused(410, "gone");
}

/// A folder's token also covers files that are stored later. Those may not be meant for the token's
/// holder, or may belong to a new user with the same id.
#[test]
fn a_token_of_a_folder_ends_with_its_users_tokens() {
    let daemon = Daemon::start();
    let (dir, service) = (daemon.dir(), daemon.service());
    let fetch = |path: &str| daemon.anyone().get(path);
    let dead = |path: &str| drop(fetch(path).refused(403, "link_invalid"));
    let folder = json!({"folder": "x"});
    let store = |id: &str| daemon.user(id).store("f", "x", id.as_bytes());

    store("disabled");
    let path = mint(&daemon.user("disabled"), folder.clone());
    run(&dir, &["user", "set", "disabled", "--disabled"]);
    dead(&path);
    run(&dir, &["user", "set", "disabled", "--disabled=false"]);
    assert_eq!(fetch(&path).status, 200);

    let file = store("out");
    let user = daemon.user("out");
    let chosen = mint(&user, json!({"keys": [key(&file)]}));
    let of_service = mint(&service, json!({"folder": "x", "user_id": "out"}));
    let path = mint(&user, folder.clone());
    run(&dir, &["user", "set", "out", "--log-out"]);
    dead(&path);
    dead(&of_service);
    assert_eq!(fetch(&chosen).status, 200, "files that were chosen are what they were");
    assert_eq!(fetch(&mint(&daemon.user("out"), folder.clone())).status, 200);

    store("gone");
    let path = mint(&daemon.user("gone"), folder.clone());
    run(&dir, &["user", "delete", "gone"]);
    dead(&path);
    store("gone");
    dead(&path);
    assert_eq!(fetch(&mint(&daemon.user("gone"), folder)).status, 200);
}

#[test]
fn folders_of_an_archive_take_little_memory() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for file in 0..300 {
        let folders: Vec<_> = (0..31).map(|at| format!("{file:04}{at:0>251}")).collect();
        user.store("f", &folders.join("/"), b"");
    }
    let path = mint(&user, json!({"folder": ""}));
    daemon.forget_peak_memory();
    let before = daemon.peak_memory_kib();
    assert_eq!(daemon.anyone().send("HEAD", &path, "").status, 200);
    let after = daemon.peak_memory_kib();
    assert!(after - before < 16 << 10, "{before} to {after} KiB");
}

#[test]
fn a_token_is_for_files_one_may_read_and_for_as_long_as_they_are_there() {
    let daemon = Daemon::start();
    let (user, other) = (daemon.user("u"), daemon.user("v"));
    let (mine, own) = (user.store("a", "", b"a"), user.store("b", "", b"b"));
    let theirs = other.store("c", "", b"c");
    let keys = json!({"keys": [key(&mine), key(&theirs), "storage/u/nothing"]});
    let refused = user.post(PATH, &keys).refused(404, "file_not_found");
    assert_eq!(refused["missing"], json!([key(&theirs), "storage/u/nothing"]));
    for (batch, code) in [
        (json!({"keys": []}), "invalid_keys"),
        (json!({}), "invalid_keys"),
        (json!({"keys": [key(&mine)], "folder": ""}), "invalid_keys"),
        (json!({"keys": "x"}), "invalid_json"),
    ] {
        user.post(PATH, batch).refused(400, code);
    }
    user.post(PATH, json!({"keys": ["../x"]})).refused(404, "file_not_found");
    daemon.anyone().post(PATH, &keys).refused(401, "unauthenticated");

    let both = mint(&user, json!({"keys": [key(&mine), key(&own), key(&mine)]}));
    assert_eq!(daemon.anyone().get(&both).status, 200);
    user.delete_file(&own).ok();
    let gone = daemon.anyone().get(&both).refused(410, "gone");
    assert_eq!(gone["missing"], json!([own["id"]]));
    for wrong in ["", "x", &both[PATH.len() + 2..], &"A".repeat(54)] {
        let answer = daemon.anyone().get(&format!("{PATH}/{wrong}"));
        assert_eq!(answer.status, 403, "{wrong}");
    }
    user.get(PATH).refused(405, "method_not_allowed");
}

#[test]
fn an_archive_of_damaged_bytes_is_refused_or_cut() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged blob");
    daemon.expect_trouble("a download was cut");
    let user = daemon.user("u");
    let file = user.store("f", "", &bytes(1, 200_000));
    let path = mint(&user, json!({"keys": [key(&file)]}));
    let blob = blob(&daemon.dir(), &file);
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let fetched = || exchange(&daemon, request.as_bytes());
    let whole = fetched();
    assert!(whole.starts_with(b"HTTP/1.1 200") && whole.ends_with(&[0, 0]));
    // The CRC-32 is at the end of the blob's file.
    let last = usize::try_from(std::fs::metadata(&blob).unwrap().len()).unwrap() - 1;
    flip(&blob, last);
    assert!(fetched().len() < whole.len(), "an archive of a wrong CRC-32 came whole");
    flip(&blob, last);
    assert_eq!(fetched().len(), whole.len());
    flip(&blob, 100);
    let range = user.header("range", "bytes=0-1");
    range.content(&key(&file)).refused(500, "content_damaged");
    daemon.anyone().get(&path).refused(500, "content_damaged");
}
