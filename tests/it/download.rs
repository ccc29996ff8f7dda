//! Content: whole, in part, conditional, and safe in a browser.

use std::{
    fs,
    io::{Read, Write},
};

use serde_json::json;

use crate::support::{Daemon, base64, bytes, client::encode, connect};

#[test]
fn ranges_heads_and_conditions() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for size in [1000, 500_000] {
        let content = bytes(1, size);
        let file = user.store("f.bin", "", &content);
        let key = file["key"].as_str().unwrap();
        let whole = user.content(key);
        assert_eq!((whole.status, &whole.body), (200, &content));
        let etag = format!("\"{}\"", file["blake3"].as_str().unwrap());
        assert_eq!(whole.header("etag"), etag);
        assert_eq!(whole.header("accept-ranges"), "bytes");
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
        assert_eq!(whole.header("repr-digest"), format!("sha-256=:{}:", base64(digest.as_ref())));

        let path = format!("/v1/files/content/{}", encode(key));
        let head = user.send("HEAD", &path, "");
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-length", "etag", "content-type", "repr-digest", "last-modified"] {
            assert_eq!(head.header(name), whole.header(name));
        }
        for (range, slice) in [
            ("bytes=0-9", 0..10),
            ("bytes=990-", 990..size),
            ("bytes=-7", size - 7..size),
            ("bytes=5-99999999", 5..size),
        ] {
            let head = user.header("range", range).send("HEAD", &path, "");
            assert_eq!((head.status, head.header("content-length")), (200, &*size.to_string()));
            let part = user.header("range", range).get(&path);
            assert_eq!((part.status, &part.body[..]), (206, &content[slice.clone()]), "{range}");
            let wanted = format!("bytes {}-{}/{size}", slice.start, slice.end - 1);
            assert_eq!(part.header("content-range"), wanted);
        }
        let outside = user.header("range", &format!("bytes={size}-")).get(&path);
        outside.refused(416, "range_not_satisfiable");
        assert_eq!(outside.header("content-range"), format!("bytes */{size}"));
        let ranged = user.header("range", "bytes=0-1");
        assert_eq!(ranged.header("if-range", "\"other\"").get(&path).status, 200);
        assert_eq!(ranged.header("if-range", &etag).get(&path).status, 206);
        let same = user.header("if-none-match", &etag).get(&path);
        assert_eq!((same.status, same.body.len()), (304, 0));
        user.header("if-match", "\"other\"").get(&path).refused(412, "precondition_failed");
        let date = whole.header("last-modified");
        assert_eq!(user.header("if-modified-since", date).get(&path).status, 304);
    }
}

#[test]
fn names_and_active_types_are_safe_in_a_browser() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for (name, mime, disposition) in [
        ("plain.txt", "text/plain", "inline; filename=\"plain.txt\""),
        (
            "ü\"%.png",
            "image/png",
            "inline; filename=\"___.png\"; filename*=UTF-8''%C3%BC%22%25.png",
        ),
        ("page.html", "text/html", "attachment; filename=\"page.html\""),
        ("x.svg", "image/svg+xml", "attachment; filename=\"x.svg\""),
    ] {
        let file = user.store(name, "", b"<script>alert(1)</script>");
        assert_eq!(file["mime"], mime);
        let answer = user.get(&format!("/{}", encode(file["key"].as_str().unwrap())));
        assert_eq!(answer.header("content-disposition"), disposition);
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
    }
}

#[test]
fn the_declared_type_cannot_break_the_answer() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for mime in ["text/html\r\nset-cookie: a=b", "text/é", "nonsense", &"x/".repeat(200)] {
        let init = json!({"mode": "single", "files": [{"name": "f", "size": 1, "mime": mime}]});
        user.post("/v1/files/init", init).refused(400, "invalid_mime");
    }
}

#[test]
fn http_2_by_prior_knowledge_gives_the_same() {
    let daemon = Daemon::start();
    let content = bytes(8, 300_000);
    let key = daemon.user("u").store("f.bin", "", &content)["key"].as_str().unwrap().to_owned();
    let curl = |arguments: &[&str], path: &str| {
        let token = format!("x-service-token: {}", crate::support::daemon::TOKEN);
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "-H", &token]).args(arguments);
        let output = curl.arg(format!("{}{path}", daemon.url())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(curl(&[], &format!("/v1/files/content/{key}")), content);
    let head = String::from_utf8(curl(
        &[
            "-D",
            "-",
            "-o",
            "/dev/null",
            "-H",
            "x-service-token: wrong",
            "-X",
            "PUT",
            "--data-binary",
            &format!("@{}", env!("CARGO_BIN_EXE_streamlined")),
        ],
        "/v1/files/content?filename=f",
    ));
    assert!(head.unwrap().starts_with("HTTP/2 401"));
    for path in ["/healthz", "/nothing", "/v1/files/all?user_id=u", &format!("/{key}")] {
        let head = String::from_utf8(curl(&["-I"], path)).unwrap();
        assert!(head.starts_with("HTTP/2 "), "{head}");
    }
}

#[test]
fn a_download_outlives_the_deletion_of_its_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(3, 20 << 20);
    let key = user.store("f", "", &content)["key"].as_str().unwrap().to_owned();
    let mut socket = connect(&daemon);
    let request = format!(
        "GET /v1/files/content/{key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         x-service-token: {}\r\n\r\n",
        crate::support::daemon::TOKEN,
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut begun = [0; 1000];
    socket.read_exact(&mut begun).unwrap();
    user.delete(&format!("/v1/files/{key}")).ok();
    let mut answer = begun.to_vec();
    socket.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&content));
}

#[test]
fn damaged_content_is_never_served_as_good() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("damaged content was asked for");
    daemon.expect_trouble("damaged blob");
    daemon.expect_trouble("a download was cut");
    let user = daemon.user("u");
    let small = user.store("s", "", &bytes(4, 5000));
    let large = user.store("l", "", &bytes(5, 500_000));
    let blobs = daemon.dir().join("blobs");
    let flip = |path: &std::path::Path, at: usize| {
        let mut stored = fs::read(path).unwrap();
        stored[at] ^= 1;
        fs::write(path, stored).unwrap();
    };
    let packs = fs::read_dir(blobs.join("packs")).unwrap();
    flip(&packs.map(|pack| pack.unwrap().path()).next().unwrap(), 48 + 4999);
    let hash = large["blake3"].as_str().unwrap();
    let prefix = fs::read_dir(blobs.join(&hash[..2])).unwrap();
    flip(&prefix.map(|blob| blob.unwrap().path()).next().unwrap(), 499_999);
    let small = small["key"].as_str().unwrap();
    user.content(small).refused(500, "content_damaged");

    let mut socket = connect(&daemon);
    let request = format!(
        "GET /v1/files/content/{} HTTP/1.1\r\nhost: x\r\nx-service-token: {}\r\n\r\n",
        large["key"].as_str().unwrap(),
        crate::support::daemon::TOKEN,
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.len() - head - 4 < 500_000, "the damaged end was sent");
    // From now on both are known, and what is stored again is good.
    user.content(large["key"].as_str().unwrap()).refused(500, "content_damaged");
    let health = daemon.anyone().get("/healthz").ok();
    assert_eq!((&health["damaged_blobs"], &health["status"]), (&2.into(), &"healthy".into()));
    assert_eq!(health["scrub"]["overdue"], false);
    user.store("again", "", &bytes(4, 5000));
    assert_eq!(user.content(small).body, bytes(4, 5000));
    let health = daemon.anyone().get("/healthz").ok();
    assert_eq!(health["damaged_blobs"], 1);
    assert_eq!(health["stores"], serde_json::json!({"index": "ok", "blobs": "ok"}));
}
