//! Content: whole, in part, conditional, and safe in a browser.

use std::io::Read;

use bao::decode::SliceDecoder;
use serde_json::json;

use crate::support::{
    Client, Daemon, bytes,
    client::{Answer, encode, query},
    digest_field,
    harm::{blob, damage, flip},
    raw::begin,
};

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
        assert_eq!(whole.header("repr-digest"), digest_field(&content));

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
        for method in ["GET", "HEAD"] {
            let same = user.header("if-none-match", &etag).send(method, &path, "");
            assert_eq!((same.status, same.body.len()), (304, 0));
            assert!(!same.headers.contains_key("content-length"), "{method}");
        }
        user.header("if-match", "\"other\"").get(&path).refused(412, "precondition_failed");
        let date = whole.header("last-modified");
        assert_eq!(user.header("if-modified-since", date).get(&path).status, 304);
    }
}

/// The parts of a multipart answer: their `Content-Range` and bytes.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer.header("content-type").split("boundary=").nth(1).unwrap();
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    let find = |text: &[u8], what: &str| {
        text.windows(what.len()).position(|window| window == what.as_bytes()).unwrap()
    };
    loop {
        rest = &rest[find(rest, &format!("--{boundary}")) + boundary.len() + 2..];
        if rest == b"--\r\n" {
            return parts;
        }
        let end = find(rest, "\r\n\r\n");
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        assert!(head.contains("\r\nContent-Type: image/png\r\n"), "{head}");
        let range = head.split("Content-Range: bytes ").nth(1).unwrap().to_owned();
        rest = &rest[end + 4..];
        let content = &rest[..find(rest, &format!("\r\n--{boundary}"))];
        parts.push((range, content.to_vec()));
    }
}

#[test]
fn several_ranges_come_in_one_answer() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for size in [20_000, 500_000] {
        let content = bytes(7, size);
        let file = user.store("f.png", "", &content);
        let path = format!("/v1/files/content/{}", encode(file["key"].as_str().unwrap()));
        let answer = user.header("range", "bytes=10000-10999, 0-9,-5, 999999-").get(&path);
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert!(!answer.headers.contains_key("content-range"));
        assert!(answer.headers.contains_key("etag") && answer.headers.contains_key("repr-digest"));
        let wanted = [10_000..11_000, 0..10, size - 5..size].map(|range| {
            let text = format!("{}-{}/{size}", range.start, range.end - 1);
            (text, content[range].to_vec())
        });
        assert_eq!(parts(&answer), wanted);
        let near = user.header("range", "bytes=0-9,50-99").get(&path);
        assert_eq!(near.header("content-range"), format!("bytes 0-99/{size}"));
        assert_eq!(near.body, content[..100]);
        let none = user.header("range", "bytes=999999-,888888-").get(&path);
        none.refused(416, "range_not_satisfiable");
        let many = user.header("range", &format!("bytes={}", vec!["0-0"; 65].join(","))).get(&path);
        assert_eq!((many.status, many.body.len()), (200, size));
    }
}

#[test]
fn a_part_can_be_proven_without_the_rest() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for size in [0, 1, 50_000, 900_000] {
        let content = bytes(size as u64, size);
        let file = user.store("f.bin", "", &content);
        let key = file["key"].as_str().unwrap();
        let root = blake3::Hash::from_hex(file["blake3"].as_str().unwrap()).unwrap();
        let link = user.get(&format!("/v1/files/signed-url?key={}", query(key))).ok();
        let link = link["url"].as_str().unwrap();
        let end = size.saturating_sub(1);
        for (proof, start, end) in [
            (format!("0-{end}"), 0, size),
            ("0-".to_owned(), 0, size),
            ("-10".to_owned(), size.saturating_sub(10), size),
            (format!("{}-{}", size / 3, size / 3 + 99), size / 3, size.min(size / 3 + 100)),
        ] {
            for (client, path) in [
                (&user, format!("/v1/files/content/{}?proof={proof}", encode(key))),
                (&user, format!("/{}?proof={proof}", encode(key))),
                (&daemon.anyone(), format!("{link}&proof={proof}")),
            ] {
                let answer = client.get(&path);
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("content-length"), answer.body.len().to_string());
                assert_eq!(answer.header("content-type"), "application/vnd.streamlined.bao");
                let (at, length) = (start as u64, (end - start) as u64);
                let mut decoder = SliceDecoder::new(&answer.body[..], &root, at, length);
                let mut proven = Vec::new();
                decoder.read_to_end(&mut proven).unwrap();
                assert_eq!(proven, content[start..end], "{path}");
                let head = client.send("HEAD", &path, "");
                assert_eq!(head.header("content-length"), answer.header("content-length"));
            }
        }
        if size > 0 {
            let path = |range: &str| format!("/v1/files/content/{}?proof={range}", encode(key));
            user.get(&path(&format!("{size}-"))).refused(416, "range_not_satisfiable");
            for wrong in ["", "x", "5-4", "0-1,3-4", "bytes=0-1"] {
                user.get(&path(wrong)).refused(400, "invalid_proof");
            }
        }
    }
}

#[test]
fn a_digest_is_left_out_where_it_is_not_wanted() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let key = encode(user.store("f", "", b"x")["key"].as_str().unwrap());
    for (wants, sent) in [
        ("sha-256=10", true),
        ("sha-512=10, sha-256=1", true),
        ("sha-512=3", true),
        ("sha-256=0", false),
        ("sha-512=1,sha-256=0", false),
        ("nonsense", true),
    ] {
        for request in [user.clone(), user.header("range", "bytes=0-0")] {
            let answer = request.header("want-repr-digest", wants);
            let answer = answer.get(&format!("/v1/files/content/{key}"));
            assert_eq!(answer.headers.contains_key("repr-digest"), sent, "{wants}");
        }
    }
}

/// A cache serves content neither to anybody who may not read it nor after its link has expired.
#[test]
fn caches_are_told_for_whom_an_answer_is() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let key = user.store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    let cached = |client: &Client, path: &str| client.get(path).header("cache-control").to_owned();
    let content = format!("/v1/files/content/{}", encode(&key));
    assert_eq!(cached(&user, &content), "private, no-cache");
    let link = |ttl: u64| {
        let path = format!("/v1/files/signed-url?ttl={ttl}&key={}", query(&key));
        user.get(&path).ok()["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(cached(&daemon.anyone(), &link(604_800)), "private, max-age=3600");
    let short = cached(&daemon.anyone(), &link(30));
    let seconds = short.strip_prefix("private, max-age=").unwrap().parse::<u64>().unwrap();
    assert!((1..=30).contains(&seconds), "{short}");
    let open = Daemon::with(&[("public_read", "true")]);
    let key = open.user("u").store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    assert_eq!(cached(&open.anyone(), &format!("/{}", encode(&key))), "public, max-age=3600");
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
        ("x.mht", "message/rfc822", "attachment; filename=\"x.mht\""),
    ] {
        let file = user.store(name, "", b"<script>alert(1)</script>");
        assert_eq!(file["mime"], mime);
        let answer = user.get(&format!("/{}", encode(file["key"].as_str().unwrap())));
        assert_eq!(answer.header("content-disposition"), disposition);
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
        let by_key = user.content(file["key"].as_str().unwrap());
        assert!(by_key.header("content-disposition").starts_with("attachment; "), "{by_key:?}");
    }
    // A browser's PDF viewer does not work in a sandbox, and does not run the content as a page of
    // ours.
    let file = user.store("x.pdf", "", b"%PDF-1.7");
    let answer = user.get(&format!("/{}", encode(file["key"].as_str().unwrap())));
    assert_eq!(answer.header("content-disposition"), "inline; filename=\"x.pdf\"");
    assert_eq!(answer.headers.get("content-security-policy"), None);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    // Chromium takes `text/xsl` as XML, which can run scripts.
    let typed = user.header("content-type", "text/xsl");
    let file = typed.put("/v1/files/content?filename=x", "<x/>").json();
    let answer = user.get(&format!("/{}", encode(file["key"].as_str().unwrap())));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"x\"");
}

#[test]
fn the_declared_type_cannot_break_the_answer() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for mime in [
        "text/html\r\nset-cookie: a=b",
        "text/é",
        "nonsense",
        "*",
        "text/",
        "a b/c",
        // A browser would take the last type of such a list.
        "application/pdf;x=1, text/html",
        "image/png,text/html",
        &"x/".repeat(200),
    ] {
        let init = json!({"mode": "single", "files": [{"name": "f", "size": 1, "mime": mime}]});
        user.post("/v1/files/init", init).refused(400, "invalid_mime");
        if mime.is_ascii() && !mime.contains('\r') {
            let put = user.header("content-type", mime);
            put.put("/v1/files/content?filename=f", "x").refused(400, "invalid_mime");
        }
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
    for path in ["/docs", "/nothing", "/v1/files/all?user_id=u", &format!("/{key}")] {
        let head = String::from_utf8(curl(&["-I"], path)).unwrap();
        let http_1 = daemon.service().send("HEAD", path, "");
        assert!(head.starts_with(&format!("HTTP/2 {} ", http_1.status)), "{head}");
        let lines = http_1.headers.iter();
        let lines = lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let differs =
            |line: &String| line.starts_with("date: ") || line.starts_with("x-request-id: ");
        for line in lines.filter(|line| !differs(line)) {
            assert!(head.lines().any(|other| other == line), "{line} is not in {head}");
        }
    }
}

#[test]
fn a_download_outlives_the_deletion_of_its_file() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let content = bytes(3, 20 << 20);
    let key = user.store("f", "", &content)["key"].as_str().unwrap().to_owned();
    let get = format!("GET /v1/files/content/{key}");
    let mut socket = begin(&daemon, &get, "connection: close\r\n");
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
    daemon.expect_trouble("damaged blob");
    daemon.expect_trouble("a download was cut");
    let user = daemon.user("u");
    let small = user.store("s", "", &bytes(4, 5000));
    let large = user.store("l", "", &bytes(5, 500_000));
    damage(&daemon.dir().join("blobs/packs"), &bytes(4, 5000));
    flip(&blob(&daemon.dir(), &large), 499_999);
    let small = small["key"].as_str().unwrap();
    user.content(small).refused(500, "content_damaged");

    let get = format!("GET /v1/files/content/{}", large["key"].as_str().unwrap());
    let mut socket = begin(&daemon, &get, "");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.len() - head - 4 < 500_000, "the damaged end was sent");
    // From here on both are known to be damaged, and content that is stored again is good.
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

#[test]
fn a_file_is_deleted_under_the_conditions_that_were_named() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let file = user.store("f", "", b"x");
    let path = format!("/v1/files/{}", file["key"].as_str().unwrap());
    let tag = format!("\"{}\"", file["blake3"].as_str().unwrap());
    for (name, value) in [
        ("if-match", "\"other\""),
        ("if-none-match", &tag),
        ("if-none-match", "*"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:01 GMT"),
    ] {
        user.header(name, value).delete(&path).refused(412, "precondition_failed");
    }
    daemon.user("other").header("if-match", "*").delete(&path).refused(404, "file_not_found");
    user.header("if-match", &tag).delete(&path).ok();
    user.header("if-match", &tag).delete(&path).refused(404, "file_not_found");
}
