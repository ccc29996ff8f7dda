//! The life of service tokens: the commands, beside a running daemon and without one, and how the
//! daemon treats the tokens.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    audit::lines,
    support::{
        Client, Daemon, base64,
        command::{command, refused, run},
        daemon::{BINARY, TOKEN},
        eventually,
    },
    token_generate::token_in,
};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn holder(daemon: &Daemon, made: &Value) -> Client {
    daemon.anyone().header("x-service-token", text(made, "token"))
}

/// The life of a token in days, rounded, because its times are in whole seconds.
fn days(made: &Value) -> i64 {
    let at = |name| OffsetDateTime::parse(text(made, name), &Rfc3339).unwrap();
    (at("expires") - at("created") + Duration::HOUR).whole_days()
}

const LIST: &str = "/v1/files/all?user_id=u";

#[test]
fn commands_and_a_start_at_one_time_wait_for_each_other() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    daemon.stop();
    let made = std::thread::scope(|scope| {
        let made = ["a", "b"].map(|name| scope.spawn(|| run(&dir, &["token", "create", name])));
        daemon.resume();
        made.map(|made| made.join().unwrap())
    });
    for made in made {
        holder(&daemon, &made).get(LIST).ok();
    }
}

#[test]
fn every_command_works_beside_a_daemon_and_without_one() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let walk = |name: &str| {
        let made = run(&dir, &["token", "create", name, "--expires", "90d", "--scope", "read"]);
        let id = text(&made, "id");
        assert_eq!(run(&dir, &["token", "show", name])["id"], made["id"]);
        let listed = run(&dir, &["token", "list"]);
        let listed: Vec<_> = listed.as_array().unwrap().iter().map(|t| &t["id"]).collect();
        assert!(listed.contains(&&made["id"]));
        let rotated = run(&dir, &["token", "rotate", id, "--grace", "1h"]);
        assert_ne!(rotated["id"], made["id"]);
        assert_eq!(rotated["scopes"], json!(["read"]));
        assert_eq!((&rotated["kind"], days(&rotated)), (&json!("opaque"), 90));
        let before = run(&dir, &["token", "show", id]);
        assert_eq!(before["state"], "superseding");
        assert_eq!(before["superseded_until"], rotated["previous_until"]);
        assert!(refused(&dir, 1, &["token", "rotate", id]).contains("ended or was rotated"));
        assert_eq!(run(&dir, &["token", "revoke", id])["state"], "revoked");
        assert_eq!(run(&dir, &["token", "revoke", name])["id"], rotated["id"]);
        let ended = run(&dir, &["token", "list", "--all"]);
        let ended = ended.as_array().unwrap().iter().filter(|t| t["name"] == name);
        assert_eq!(ended.map(|t| &t["state"]).collect::<Vec<_>>(), ["revoked", "revoked"]);
        assert!(refused(&dir, 1, &["token", "show", name]).contains("no such token"));
        assert!(refused(&dir, 1, &["token", "revoke", "0123456789abcdef"]).contains("no such"));
        let jwt = run(&dir, &["token", "create", name, "--jwt", "--expires", "7d"]);
        let next = run(&dir, &["token", "rotate", text(&jwt, "id"), "--grace", "1h"]);
        assert_eq!((&next["kind"], days(&next)), (&json!("jwt"), 7));
        assert_ne!(next["jti"], jwt["jti"]);
        run(&dir, &["token", "revoke", text(&next, "id")]);
        assert_eq!(run(&dir, &["token", "revoke", "--jti", text(&jwt, "jti")])["id"], jwt["id"]);
        run(&dir, &["token", "revoke", "--service", name]);
        (made, rotated, jwt)
    };
    let beside = walk("beside");
    daemon.stop();
    let without = walk("without");
    assert!(!dir.join("admin.sock").exists());
    daemon.resume();
    for (made, rotated, jwt) in [beside, without] {
        for dead in [made, rotated, jwt] {
            holder(&daemon, &dead).get(LIST).refused(401, "unauthenticated");
        }
    }
    for (status, arguments) in [
        (2, &["token", "create"][..]),
        (2, &["token", "create", " "]),
        (2, &["token", "create", "a/rotate"]),
        (2, &["token", "create", "x", "--expires", "soon"]),
        (2, &["token", "revoke"]),
        (2, &["token", "revoke", "x", "--all"]),
        (2, &["token", "rotate", "x", "--grace", "-1"]),
        (2, &["token", "rotate", "x", "--grace", "1"]),
        (2, &["token", "create", "x", "--expires", "0"]),
        (2, &["token", "create", "x", "--expires", "500ms"]),
        (2, &["token", "create", "x", "--scope", "write"]),
        (2, &["token", "create", "x", "--allow-ip", "10.0.0.0/40"]),
        (2, &["serve", "--listen", "zz"]),
        (2, &["log", ""]),
        (1, &["token", "rotate", "x", "--grace", "91d"]),
    ] {
        refused(&dir, status, arguments);
    }
}

#[test]
fn a_token_is_shown_once_and_kept_as_a_digest() {
    let daemon = Daemon::start();
    let output = command(&daemon.dir(), &["token", "create", "shown"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let token = printed.lines().find(|line| line.starts_with("slt_")).unwrap().to_owned();
    assert_eq!(printed.matches(&token).count(), 1);
    daemon.anyone().header("x-service-token", &token).get(LIST).ok();
    assert!(!run(&daemon.dir(), &["token", "show", "shown"]).to_string().contains(&token));
    let output = command(&daemon.dir(), &["token", "list"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("ID ") && table.contains("shown"), "{table}");
    assert!(!table.contains(&token));
    let mut dirs = vec![daemon.dir()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(content) = fs::read(&path) {
                let found = content.windows(token.len()).any(|window| window == token.as_bytes());
                assert!(!found, "{}", path.display());
            }
        }
    }
}

#[test]
fn a_revocation_wins_at_once_and_survives_a_kill() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let opaque = run(&dir, &["token", "create", "opaque"]);
    let jwt = run(&dir, &["token", "create", "jwt", "--jwt"]);
    let dead = run(&dir, &["token", "create", "dead"]);
    for made in [&opaque, &jwt, &dead] {
        holder(&daemon, made).get(LIST).ok();
    }
    run(&dir, &["token", "revoke", text(&dead, "id")]);
    holder(&daemon, &dead).get(LIST).refused(401, "unauthenticated");
    let beside_a_good_one = holder(&daemon, &opaque);
    let spoiled =
        beside_a_good_one.header("authorization", &format!("Bearer {}", text(&jwt, "token")));
    spoiled.get(LIST).ok();
    run(&dir, &["token", "revoke", "jwt"]);
    spoiled.get(LIST).refused(401, "unauthenticated");
    daemon.restart(Signal::KILL);
    holder(&daemon, &opaque).get(LIST).ok();
    for made in [&jwt, &dead] {
        holder(&daemon, made).get(LIST).refused(401, "unauthenticated");
    }
}

/// The command dies as by `kill -9` at each point of a commit. Its rotation or revocation is then
/// there as a whole or not at all, and it is there once it is durable.
#[test]
fn a_command_that_dies_leaves_all_of_its_change_or_nothing() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    daemon.stop();
    let die = |point: &str, arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--data-dir").arg(&dir).env_clear();
        let status = command.env("SLT_FAULT_POINT", point).output().unwrap().status;
        assert!(!status.success(), "{point} was passed");
    };
    for (point, is_taken) in [
        ("commit: before the journal 1", false),
        ("commit: journal durable 1", true),
        ("commit: seen 1", true),
    ] {
        let made = run(&dir, &["token", "create", point]);
        let id = text(&made, "id");
        die(point, &["token", "rotate", id, "--grace", "1h"]);
        let all = run(&dir, &["token", "list", "--all"]);
        let states: Vec<_> =
            all.as_array().unwrap().iter().filter(|t| t["name"] == point).collect();
        let wanted = if is_taken { (2, "superseding") } else { (1, "active") };
        let state = text(states.iter().find(|token| token["id"] == *id).unwrap(), "state");
        assert_eq!((states.len(), state), wanted, "{point}");
        die(point, &["token", "revoke", id]);
        daemon.resume();
        let status = holder(&daemon, &made).get(LIST).status;
        assert_eq!(status, if is_taken { 401 } else { 200 }, "{point}");
        daemon.stop();
    }
}

#[test]
fn a_configured_token_stays_revoked_and_the_start_says_so() {
    let mut daemon = Daemon::start();
    daemon.service().get(LIST).ok();
    run(&daemon.dir(), &["token", "revoke", "configured"]);
    daemon.service().get(LIST).refused(401, "unauthenticated");
    daemon.expect_trouble("the configured service token was revoked");
    daemon.restart(Signal::TERM);
    daemon.service().get(LIST).refused(401, "unauthenticated");
    assert!(daemon.log().contains("the configured service token was revoked"));
}

#[test]
fn a_configured_token_that_was_rotated_is_said_to_be_good_as_long_as_it_is() {
    let mut daemon = Daemon::start();
    let rotated = run(&daemon.dir(), &["token", "rotate", "configured", "--grace", "1h"]);
    daemon.expect_trouble("the configured service token was rotated: it is valid until");
    daemon.restart(Signal::TERM);
    daemon.service().get(LIST).ok();
    let until = format!("it is valid until {}", text(&rotated, "previous_until"));
    assert!(daemon.log().contains(&until) && !daemon.log().contains("it is refused"));
    run(&daemon.dir(), &["token", "revoke", "configured"]);
    daemon.expect_trouble("the configured service token was revoked");
    daemon.restart(Signal::TERM);
    daemon.service().get(LIST).refused(401, "unauthenticated");
    assert!(daemon.log().contains("was revoked: it is refused"));
}

#[test]
fn tokens_of_a_service_or_of_all_end_together_and_new_ones_are_good() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let make = |name, kind: &[&str]| run(&dir, &[&["token", "create", name], kind].concat());
    let (one, two) = (make("a", &[]), make("a", &["--jwt"]));
    let other = make("b", &["--jwt"]);
    let revoke = |which: &[&str]| run(&dir, &[&["token", "revoke"], which].concat());
    assert_eq!(revoke(&["--service", "aa"])["tokens_revoked"], 0);
    assert_eq!(revoke(&["--service", "a"])["tokens_revoked"], 2);
    assert_eq!(revoke(&["--service", "a"])["tokens_revoked"], 0, "twice");
    for made in [&one, &two] {
        holder(&daemon, made).get(LIST).refused(401, "unauthenticated");
    }
    assert_eq!(run(&dir, &["token", "show", text(&one, "id")])["state"], "revoked");
    holder(&daemon, &other).get(LIST).ok();
    holder(&daemon, &make("a", &[])).get(LIST).ok();
    holder(&daemon, &make("a", &["--jwt"])).get(LIST).ok();
    revoke(&["--all", "--before", "1000000000"]);
    holder(&daemon, &other).get(LIST).ok();
    // Milliseconds by mistake would end for good every token that is issued in the next fifty
    // thousand years.
    let future = ["token", "revoke", "--all", "--before", "1767225600000"];
    assert!(refused(&dir, 1, &future).contains("a Unix second that has passed"));
    assert_eq!(revoke(&["--all"])["tokens_revoked"], Value::Null);
    holder(&daemon, &other).get(LIST).refused(401, "unauthenticated");
    daemon.service().get(LIST).refused(401, "unauthenticated");
    holder(&daemon, &make("b", &["--jwt"])).get(LIST).ok();
    refused(&dir, 2, &["token", "revoke", "b", "--before", "7"]);
}

/// An operator who wants to revoke a token may have nothing but the token itself, which must then
/// stand in no log.
#[test]
fn a_token_in_place_of_its_name_is_read_or_refused_and_not_kept() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let make = |kind: &[&str]| run(&dir, &[&["token", "create", "s"], kind].concat());
    let (jwt, opaque) = (make(&["--jwt"]), make(&[]));
    let whole = text(&jwt, "token");
    let revoked = run(&dir, &["token", "revoke", "--jti", whole]);
    assert_eq!((&revoked["id"], &revoked["jti"]), (&jwt["id"], &jwt["jti"]));
    holder(&daemon, &jwt).get(LIST).refused(401, "unauthenticated");
    let user = daemon.service().post("/v1/files/generate-token?user_id=u", "").ok();
    run(&dir, &["token", "revoke", "--jti", text(&user, "token")]);
    daemon.bearer(text(&user, "token")).get(LIST).refused(401, "unauthenticated");

    let payload = "eyJleHAiOjk5OTk5OTk5OTl9"; // {"exp":9999999999}
    let header = whole.split('.').next().unwrap();
    let nameless = format!("{header}.{payload}.c2ln");
    for token in [text(&opaque, "token"), TOKEN, &nameless] {
        assert!(refused(&dir, 1, &["token", "revoke", "--jti", token]).contains("That is a"));
        assert!(refused(&dir, 1, &["token", "revoke", "--service", token]).contains("That is a"));
        let body = json!({ "jti": token });
        daemon.service().post("/v1/admin/revocations", body).refused(400, "invalid_revocation");
    }
    refused(&dir, 1, &["token", "revoke", "--service", whole]);
    // The token as it was copied, with the text around it.
    let secret = text(&opaque, "token");
    for around in [" TOKEN", "TOKEN\n", "\"TOKEN\"", "Bearer TOKEN", "X-Service-Token: TOKEN"] {
        for token in [secret, TOKEN, &nameless] {
            let token = around.replace("TOKEN", token);
            for named in ["--jti", "--service"] {
                let said = refused(&dir, 1, &["token", "revoke", named, &token]);
                assert!(said.contains("That is a"), "{named} {token:?}: {said}");
            }
        }
        let live = make(&["--jwt"]);
        let sent = around.replace("TOKEN", text(&live, "token"));
        refused(&dir, 1, &["token", "revoke", "--service", &sent]);
        holder(&daemon, &live).get(LIST).ok();
        assert_eq!(run(&dir, &["token", "revoke", "--jti", &sent])["id"], live["id"], "{sent:?}");
        holder(&daemon, &live).get(LIST).refused(401, "unauthenticated");
    }
    for jti in ["a b", "a\"b", "'", "a\u{1b}[2J", "a\u{a0}b"] {
        let body = json!({ "jti": jti });
        daemon.service().post("/v1/admin/revocations", body).refused(400, "invalid_revocation");
    }
    holder(&daemon, &opaque).get(LIST).ok();
    // Any other text may be a `jti`.
    assert_eq!(run(&dir, &["token", "revoke", "--jti", "a.b.c"])["jti"], "a.b.c");
    for target in [format!("jti:{}", text(&jwt, "jti")), "jti:a.b.c".into()] {
        eventually(|| lines(&dir).iter().any(|line| line["target"] == target));
    }
    let told = format!("{:?}{}", lines(&daemon.dir()), daemon.log());
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in [
        signature(whole),
        signature(text(&user, "token")),
        text(&opaque, "token").into(),
        TOKEN.into(),
        nameless,
    ] {
        assert!(!told.contains(&secret), "{secret}");
    }
}

#[test]
fn scopes_and_networks_limit_what_a_token_can() {
    let daemon = Daemon::with(&[("metrics", "admins")]);
    let dir = daemon.dir();
    let (in_a, elsewhere) =
        (daemon.user("anna").store("f", "a/b", b"1"), daemon.user("anna").store("f", "c", b"2"));
    let of_bob = daemon.user("bob").store("f", "a/b", b"3");
    let make =
        |kind: &[&str]| holder(&daemon, &run(&dir, &[&["token", "create", "s"], kind].concat()));
    let out = |answer: crate::support::client::Answer| answer.refused(403, "out_of_scope");
    let put = |client: &Client, user: &str, folder: &str| {
        client.put(&format!("/v1/files/content?filename=n&user_id={user}&folder={folder}"), "x")
    };
    for kind in [&[][..], &["--jwt"]] {
        let limited = [kind, &["--scope", "user:an*", "--scope", "folder:a"]].concat();
        let limited = make(&limited);
        assert_eq!(limited.content(text(&in_a, "key")).body, b"1");
        out(limited.content(text(&elsewhere, "key")));
        out(limited.content(text(&of_bob, "key")));
        let image = format!("/api/images/{}/download", text(&of_bob, "id"));
        limited.get(&image).refused(404, "file_not_found");
        assert_eq!(limited.names("?user_id=anna&folder=a/b"), ["f"]);
        out(limited.get("/v1/files/all?user_id=anna"));
        out(limited.get("/v1/files/all?user_id=bob&folder=a"));
        out(limited.get(&format!("/v1/files/signed-url?key={}", text(&elsewhere, "key"))));
        out(limited.delete_file(&elsewhere));
        assert_eq!(put(&limited, "anna", "a/x").status, 201);
        out(put(&limited, "anna", "ab"));
        out(put(&limited, "bob", "a"));
        out(limited.post("/v1/files/generate-token?user_id=anna", ""));
        let init = |user: &str, folder: &str| {
            let file = json!({"name": "f", "size": 1});
            let meta = json!({ "user_id": user });
            limited.post(
                "/v1/files/init",
                json!({"mode": "single", "files": [file], "folder": folder, "meta": meta}),
            )
        };
        out(init("anna", ""));
        out(init("bob", "a"));
        let upload = init("anna", "a").ok();
        let id = text(&upload, "uploadId");
        limited.part(id, 1, b"x").ok();
        out(limited.post("/v1/files/complete", json!({"uploadId": id, "meta": {"folder": "c"}})));
        limited.complete(id).ok();

        let reader = make(&[kind, &["--scope", "read"]].concat());
        assert_eq!(reader.content(text(&of_bob, "key")).body, b"3");
        out(put(&reader, "anna", "a"));
        out(reader.delete_file(&in_a));
        out(reader.post("/v1/files/generate-token?user_id=anna", ""));
        out(reader.get("/v1/admin/tokens"));

        let near = make(&[kind, &["--allow-ip", "127.0.0.0/8"]].concat());
        near.get(LIST).ok();
        let far = make(&[kind, &["--allow-ip", "10.0.0.0/8", "--allow-ip", "::1"]].concat());
        far.get(LIST).refused(401, "unauthenticated");
    }
    // Administration concerns all users and folders, so a token of some of them cannot administer.
    for some in ["user:lab-*", "folder:a"] {
        let limited = make(&["--scope", some]);
        out(limited.get("/v1/admin/users"));
        out(limited.get("/metrics"));
        out(limited.post("/v1/admin/tokens", json!({"name": "unlimited"})));
        out(limited.send("PATCH", "/v1/admin/users/lab-1", json!({"role": "admin"}).to_string()));
        let mixed = ["token", "create", "s", "--scope", "admin", "--scope", some];
        assert!(refused(&dir, 1, &mixed).contains("admin is for all users and folders"));
        let mixed = json!({"name": "s", "scopes": [some, "admin"]});
        daemon.service().post("/v1/admin/tokens", mixed).refused(400, "invalid_scope");
    }
    // An upload that was completed into another folder.
    let (limited, service) = (make(&["--scope", "folder:a"]), daemon.service());
    let init = json!({"mode": "single", "files": [{"name": "f", "size": 1}], "folder": "a",
        "meta": {"user_id": "anna"}});
    let moved = service.post("/v1/files/init", init).ok();
    let id = text(&moved, "uploadId");
    service.part(id, 1, b"x").ok();
    let meta = json!({"folder": "secret", "filename": "hidden"});
    service.post("/v1/files/complete", json!({"uploadId": id, "meta": meta})).ok();
    out(limited.complete(id));
    let wrong = json!({"uploadId": id, "sha256": "0".repeat(64)});
    out(limited.post("/v1/files/complete", wrong));
    let (tus, path) = (limited.header("tus-resumable", "1.0.0"), format!("/v1/tus/{id}"));
    let head = tus.send("HEAD", &path, "");
    assert_eq!((head.status, head.headers.get("upload-key")), (403, None));
    out(tus.delete(&path));
    let head = limited.send("HEAD", &format!("/v1/uploads/{id}"), "");
    assert_eq!((head.status, head.headers.get("repr-digest")), (403, None));
    service.complete(id).ok();
    // An upload of a user whom the token does not grant.
    let begun = daemon.user("bob").init("f", 1);
    let limited = make(&["--scope", "user:anna"]);
    limited.part(&begun, 1, b"x").refused(404, "upload_not_found");
    limited.get(&format!("/v1/files/{begun}")).refused(404, "upload_not_found");
}

/// Covers requests that lead to several files, or to one file otherwise than by its key.
#[test]
fn a_token_of_one_folder_is_held_to_it_in_batches_lists_archives_and_final_uploads() {
    let daemon = Daemon::start();
    let (dir, service) = (daemon.dir(), daemon.service());
    let anna = daemon.user("anna");
    let (inside, outside) = (anna.store("f", "a/b", b"1"), anna.store("f", "c", b"2"));
    let out = |answer: crate::support::client::Answer| answer.refused(403, "out_of_scope");
    let unknown = |answer: crate::support::client::Answer| answer.refused(404, "upload_not_found");
    let began = |folder: &str| {
        let files = json!([{"name": "f", "size": 1}]);
        let batch = json!({"mode": "batch", "files": files, "folder": folder,
            "meta": {"user_id": "anna"}});
        let opened = service.post("/v1/files/init", batch).ok();
        (text(&opened, "uploadId").to_owned(), text(&opened["files"][0], "uploadId").to_owned())
    };
    for kind in [&[][..], &["--jwt"]] {
        let made = [&["token", "create", "s", "--scope", "folder:a"], kind].concat();
        let limited = holder(&daemon, &run(&dir, &made));
        let ((own, inner), (foreign, file)) = (began("a/b"), began("c"));
        let at = |id: &str| format!("/v1/files/{id}");
        limited.get(&at(&own)).ok();
        // An upload's id does not tell in which folder its file will be, nor does the answer.
        unknown(limited.get(&at(&foreign)));
        unknown(limited.part(&foreign, 1, b"x"));
        unknown(limited.part(&file, 1, b"x"));
        service.part(&file, 1, b"x").ok();
        unknown(limited.complete(&foreign));
        unknown(limited.complete(&file));
        unknown(limited.delete(&at(&foreign)));
        assert_eq!(service.get(&at(&foreign)).ok()["files"][0]["bytesReceived"], 1);

        // Of the open uploads, only those in the folder are listed.
        let listed = limited.get("/v1/files/uploads?user_id=anna").ok();
        let listed = listed["uploads"].as_array().unwrap();
        let ids: Vec<_> = listed.iter().map(|upload| text(upload, "uploadId")).collect();
        assert!(ids.contains(&&*inner) && !ids.contains(&&*file), "{listed:?}");
        let reached = |upload: &Value| text(upload, "folder").split('/').next() == Some("a");
        assert!(listed.iter().all(reached), "{listed:?}");

        let archive = |chosen: Value| limited.post("/v1/files/batch-download", chosen);
        archive(json!({"folder": "a/b", "user_id": "anna"})).ok();
        archive(json!({"keys": [inside["key"]]})).ok();
        for folder in ["", "c", "ab"] {
            out(archive(json!({"folder": folder, "user_id": "anna"})));
        }
        out(archive(json!({"keys": [inside["key"], outside["key"]]})));

        // Bytes of the folder cannot become a file elsewhere.
        let tus = limited.header("tus-resumable", "1.0.0");
        let named = |folder: &str| {
            tus.header("upload-metadata", &format!("folder {}", base64(folder.as_bytes())))
        };
        let create = |client: &Client| client.send("POST", "/v1/tus?user_id=anna", "");
        let partial = named("a").header("upload-concat", "partial").header("upload-length", "1");
        let partial = create(&partial);
        assert_eq!(partial.status, 201);
        let concat = format!("final;{}", partial.header("location"));
        for folder in ["c", "ab"] {
            out(create(&named(folder).header("upload-concat", &concat)));
        }
        out(create(&tus.header("upload-concat", &concat)));
        let made = create(&named("a/x").header("upload-concat", &concat));
        assert_eq!(made.status, 201);
        service.delete(&at(&foreign)).ok();
    }
}

#[test]
fn who_may_not_manage_users_cannot_by_the_token_of_an_admin() {
    let daemon = Daemon::start();
    run(&daemon.dir(), &["user", "set", "boss", "--role", "admin"]);
    daemon.user("boss").get("/v1/admin/users").ok();
    let made = run(&daemon.dir(), &["token", "create", "s", "--scope", "tokens"]);
    let answer = holder(&daemon, &made).post("/v1/files/generate-token?user_id=boss", "").ok();
    let boss = daemon.bearer(text(&answer, "token"));
    boss.get("/v1/admin/users").refused(403, "forbidden");
}

#[test]
fn a_superseded_token_ends_with_the_grace_and_an_expired_one_at_its_time() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let made = run(&dir, &["token", "create", "s"]);
    let next = run(&dir, &["token", "rotate", "s", "--grace", "0s"]);
    holder(&daemon, &made).get(LIST).refused(401, "unauthenticated");
    holder(&daemon, &next).get(LIST).ok();
    let last = run(&dir, &["token", "rotate", "s", "--grace", "1h"]);
    holder(&daemon, &next).get(LIST).ok();
    holder(&daemon, &last).get(LIST).ok();
    // The name stands for the token that is not rotated yet. The tokens before it end with it.
    assert_eq!(run(&dir, &["token", "show", "s"])["id"], last["id"]);
    let revoked = run(&dir, &["token", "revoke", "s"]);
    assert_eq!((&revoked["id"], &revoked["state"]), (&last["id"], &json!("revoked")));
    assert_eq!(revoked["ended"], json!([last["id"], next["id"]]));
    eventually(|| {
        let target = format!("{} {} service:s", text(&last, "id"), text(&next, "id"));
        lines(&dir).iter().any(|line| line["target"] == target)
    });
    for dead in [&next, &last] {
        holder(&daemon, dead).get(LIST).refused(401, "unauthenticated");
    }
    assert!(refused(&dir, 1, &["token", "revoke", "s"]).contains("no such token"));
    // A token that is revoked by its id ends alone, and the one before it lives on.
    let made = run(&dir, &["token", "create", "t"]);
    let next = run(&dir, &["token", "rotate", "t"]);
    let revoked = run(&dir, &["token", "revoke", text(&next, "id")]);
    assert_eq!(revoked["ended"], json!([next["id"]]));
    assert_eq!(run(&dir, &["token", "show", "t"])["id"], made["id"]);
    assert_eq!(run(&dir, &["token", "revoke", "t"])["ended"], json!([made["id"]]));
    // The name alone does not tell which of the two is meant.
    let twins = [0, 1].map(|_| run(&dir, &["token", "create", "twin"]));
    for command in ["show", "rotate", "revoke"] {
        let said = refused(&dir, 1, &["token", command, "twin"]);
        assert!(said.contains("--service"), "{said}");
        assert!(twins.iter().all(|twin| said.contains(text(twin, "id"))), "{said}");
    }
    run(&dir, &["token", "revoke", "--service", "twin"]);
    let short = run(&dir, &["token", "create", "short", "--expires", "2s"]);
    holder(&daemon, &short).get(LIST).ok();
    eventually(|| holder(&daemon, &short).get(LIST).status == 401);
    assert_eq!(run(&dir, &["token", "show", text(&short, "id")])["state"], "expired");
}

#[test]
fn the_last_use_is_told_and_kept() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let made = run(&dir, &["token", "create", "s"]);
    assert_eq!(run(&dir, &["token", "show", "s"])["last_used"], Value::Null);
    holder(&daemon, &made).get(LIST).ok();
    let shown = run(&dir, &["token", "show", "s"]);
    assert_eq!(shown["last_used_from"], "127.0.0.1");
    assert!(shown["last_used"].is_string(), "{shown}");
    daemon.restart(Signal::TERM);
    assert_eq!(run(&dir, &["token", "show", "s"])["last_used"], shown["last_used"]);
}

#[test]
fn a_generated_token_is_recorded_where_there_is_a_store() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let generate = || {
        let output = command(&dir, &["token", "generate", "documented"]);
        assert!(output.status.success() && output.stderr.is_empty());
        token_in(&output)
    };
    let token = generate();
    daemon.bearer(&token).get(LIST).ok();
    assert_eq!(run(&dir, &["token", "show", "documented"])["kind"], "jwt");
    run(&dir, &["token", "revoke", "documented"]);
    daemon.bearer(&token).get(LIST).refused(401, "unauthenticated");
    daemon.stop();
    let token = generate();
    assert_eq!(run(&dir, &["token", "show", "documented"])["state"], "active");
    daemon.resume();
    daemon.bearer(&token).get(LIST).ok();
}

/// The modes of the directory and of the socket keep other users out. This test opens them and
/// tests the check behind them. Only root can run a command as another user.
#[test]
fn another_user_is_turned_away_from_the_admin_socket() {
    if !geteuid().is_root() {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.expect_trouble("another user was turned away");
    let socket = daemon.dir().join("admin.sock");
    let everybody = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    [daemon.dir().parent().unwrap(), &daemon.dir(), &socket].into_iter().for_each(everybody);
    let ask = |uid: u32| {
        let url = "http://localhost/v1/admin/tokens";
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--unix-socket"]).arg(&socket).arg(url).uid(uid);
        curl.output().unwrap()
    };
    let own = ask(0);
    assert!(own.status.success() && own.stdout.starts_with(b"{"));
    let other = ask(65_534);
    assert!(!other.status.success() && other.stdout.is_empty(), "{other:?}");
    assert!(daemon.log().contains("another user was turned away"), "it was not the mode");
}
