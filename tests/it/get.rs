//! `streamlined get`: whole files, continued ones, parts of files, and servers that lie.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::{FileTypeExt, symlink},
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::json;

use crate::{
    client::command,
    support::{Daemon, bytes, daemon::TOKEN},
};

fn get(place: &Path, server: &str, arguments: &[&str]) -> Output {
    command(place, server, &[&["get"], arguments].concat()).output().unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

#[test]
fn a_file_comes_whole_goes_on_and_comes_in_part() {
    let daemon = Daemon::start();
    let content = bytes(1, 900_000);
    let user = daemon.user("u");
    let file = user.store("ü b#.bin", "d", &content);
    let key = file["key"].as_str().unwrap();
    let place = tempfile::tempdir().unwrap();
    let get = |arguments: &[&str]| get(place.path(), daemon.url(), arguments);
    assert!(get(&[key]).status.success());
    assert_eq!(fs::read(place.path().join("ü b#.bin")).unwrap(), content);
    // The bytes that an earlier try left are not requested again. The hash covers them, so bad ones
    // make the whole file fail.
    let part = |name: &str| {
        place.path().join(format!("{name}.{}.part", &file["blake3"].as_str().unwrap()[..16]))
    };
    fs::write(part("again"), &content[..500_000]).unwrap();
    assert!(get(&[key, "-o", "again"]).status.success());
    assert_eq!(fs::read(place.path().join("again")).unwrap(), content);
    fs::write(part("long"), vec![0; 5_000_000]).unwrap();
    assert!(get(&[key, "-o", "long"]).status.success());
    fs::write(part("bad"), &content[1..500_000]).unwrap();
    fs::write(place.path().join("bad.part"), "somebody's notes").unwrap();
    assert!(complaint(&get(&[key, "-o", "bad"])).contains("BLAKE3"));
    assert!(get(&[key, "-o", "bad"]).status.success());
    assert!(!part("bad").exists());
    assert_eq!(fs::read(place.path().join("bad.part")).unwrap(), b"somebody's notes");

    let link =
        user.get(&format!("/v1/files/signed-url?key={}", crate::support::client::query(key)));
    let link = link.ok()["url"].as_str().unwrap().to_owned();
    for source in [key, &link] {
        assert_eq!(get(&[source, "-o", "-"]).stdout, content);
        for (range, wanted) in
            [("1000-70999", 1000..71_000), ("-5", 899_995..900_000), ("899999-", 899_999..900_000)]
        {
            let part = get(&[source, "-o", "-", "--range", range]);
            assert_eq!(part.stdout, content[wanted], "{range} {part:?}");
        }
    }
    fs::write(place.path().join("wrong"), b"mine").unwrap();
    let other = "0".repeat(64);
    for range in [&["--range", "0-9"][..], &[]] {
        let arguments = [&[key, "-o", "wrong", "--blake3", &other], range].concat();
        complaint(&get(&arguments));
    }
    assert_eq!(fs::read(place.path().join("wrong")).unwrap(), b"mine");
    assert!(complaint(&get(&["storage/u/none", "-o", "x"])).contains("404"));
    assert!(complaint(&get(&[key, "-o", "x", "--range", "900000-"])).contains("900000 bytes"));
    assert!(complaint(&get(&[&link])).contains("--output"));
}

/// A server that gives every request the same answer; returns its URL and the heads that it
/// receives.
fn liar(answer: Vec<u8>) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent: Arc<Mutex<String>> = Arc::default();
    let heard = Arc::clone(&sent);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            let lines: Vec<_> = head.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
            heard.lock().unwrap().push_str(&lines.join("\n"));
            let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let is_head = lines[0].starts_with("HEAD");
            let _ = stream.write_all(if is_head { &answer[..end] } else { &answer });
        }
    });
    (url, sent)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn what_a_lying_server_sends_is_not_taken() {
    let place = tempfile::tempdir().unwrap();
    let content = bytes(2, 50_000);
    let root = blake3::hash(&content).to_string();
    let mut changed = content.clone();
    changed[40_000] ^= 1;
    let (url, _) = liar(answer("200 OK", &changed));
    let url = url + "/x";
    let arguments = [&url, "--blake3", &root, "-o", "file"];
    assert!(complaint(&get(place.path(), "", &arguments)).contains("BLAKE3"));
    // First, the answer to a range is not a proof; then, no hash is known to check the bytes by.
    let arguments = [&arguments[..], &["--range", "0-9"]].concat();
    assert!(complaint(&get(place.path(), "", &arguments)).contains("not proven"));
    let told = get(place.path(), "", &[&url, "-o", "file"]);
    assert!(complaint(&told).contains("--blake3"));
    assert!(fs::read(place.path().join("file")).map_or(true, |file| file.is_empty()));
}

#[test]
fn a_server_is_not_told_the_token_of_another_and_not_where_to_write() {
    let place = tempfile::tempdir().unwrap();
    let inner = place.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let (other, heard) = liar(answer("200 OK", b"x"));
    let _ = get(&inner, "http://127.0.0.1:1", &[&format!("{other}/x"), "-o", "x"]);
    assert!(heard.lock().unwrap().starts_with("HEAD /x"));
    assert!(!heard.lock().unwrap().contains(TOKEN), "a token went to a server that is not ours");
    let (ours, sent) = liar(answer(&format!("302 Found\r\nlocation: {other}/y"), b""));
    heard.lock().unwrap().clear();
    complaint(&get(&inner, &ours, &["storage/u/x", "-o", "x"]));
    assert!(sent.lock().unwrap().contains(TOKEN));
    assert_eq!(*heard.lock().unwrap(), "", "a token followed to another server");

    let root = blake3::hash(b"evil").to_string();
    for name in ["../evil", place.path().join("evil").to_str().unwrap(), ".."] {
        let file = json!({"filename": name, "size": 4, "blake3": root}).to_string();
        let (url, _) = liar(answer("200 OK", file.as_bytes()));
        assert!(complaint(&get(&inner, &url, &["storage/u/x"])).contains("--output"), "{name}");
    }
    assert!(!place.path().join("evil").exists());
    fs::write(inner.join("there"), b"mine").unwrap();
    let file = json!({"filename": "there", "size": 4, "blake3": root}).to_string();
    let (url, _) = liar(answer("200 OK", file.as_bytes()));
    assert!(complaint(&get(&inner, &url, &["storage/u/x"])).contains("exists"));
    assert_eq!(fs::read(inner.join("there")).unwrap(), b"mine");
}

#[test]
fn what_is_no_file_is_written_to_and_not_replaced() {
    let daemon = Daemon::start();
    let content = bytes(1, 100_000);
    let file = daemon.user("u").store("f", "", &content);
    let key = file["key"].as_str().unwrap();
    let place = tempfile::tempdir().unwrap();
    let get = |arguments: &[&str]| get(place.path(), daemon.url(), arguments);
    assert!(Command::new("mkfifo").arg(place.path().join("pipe")).status().unwrap().success());
    let pipe = place.path().join("pipe");
    let reading = thread::spawn(move || fs::read(pipe).unwrap());
    assert!(get(&[key, "-o", "pipe"]).status.success());
    assert_eq!(reading.join().unwrap(), content);
    assert!(fs::metadata(place.path().join("pipe")).unwrap().file_type().is_fifo());
    fs::write(place.path().join("behind"), "old").unwrap();
    symlink("behind", place.path().join("link")).unwrap();
    assert!(get(&[key, "-o", "link"]).status.success());
    assert!(fs::symlink_metadata(place.path().join("link")).unwrap().is_symlink());
    assert_eq!(fs::read(place.path().join("behind")).unwrap(), content);
    symlink("nowhere", place.path().join("dangling")).unwrap();
    assert!(complaint(&get(&[key, "-o", "dangling"])).contains("dangling is a dangling symlink"));
    let long = "é".repeat(127);
    assert!(get(&[key, "-o", &long]).status.success());
    assert_eq!(fs::read(place.path().join(&long)).unwrap(), content);
    fs::create_dir(place.path().join("dir")).unwrap();
    assert!(complaint(&get(&[key, "-o", "dir"])).contains("dir is a directory"));
    assert!(complaint(&get(&[key, "-o", "none/f"])).contains("none/f: No such file"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 6);
}
