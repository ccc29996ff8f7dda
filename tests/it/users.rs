//! Users as an operator manages them: on the command line and over HTTP.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Daemon, bytes,
    client::query,
    command::{command, refused, run},
};

#[test]
fn every_command_works_beside_a_daemon_and_without_one() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let walk = |id: &str, was_there: bool| {
        if !was_there {
            assert!(refused(&dir, 1, &["user", "show", id]).contains("no such user"));
        }
        let set = run(&dir, &["user", "set", id, "--role", "analyst", "--quota", "2GiB"]);
        assert_eq!((&set["role"], &set["quota"]), (&json!("analyst"), &json!(2_u64 << 30)));
        assert_eq!(set["tokens_valid_from"], Value::Null);
        assert_eq!(run(&dir, &["user", "set", id, "--quota", "0"])["quota"], 0);
        let set = run(&dir, &["user", "set", id, "--disabled", "--quota", "default"]);
        assert_eq!((&set["disabled"], &set["quota"]), (&json!(true), &Value::Null));
        assert_eq!(set["role"], "analyst");
        let set = run(&dir, &["user", "set", id, "--disabled=false", "--log-out"]);
        assert_eq!(set["disabled"], false);
        assert!(set["tokens_valid_from"].is_string());
        assert_eq!(run(&dir, &["user", "show", id]), set);
        let listed = run(&dir, &["user", "list"]);
        assert!(listed.as_array().unwrap().contains(&set));
        run(&dir, &["user", "delete", id]);
        assert!(refused(&dir, 1, &["user", "delete", id]).contains("no such user"));
        assert_eq!(run(&dir, &["user", "list"]), json!([]));
    };
    daemon.user("a@b c").store("f", "x", b"12");
    assert_eq!(run(&dir, &["user", "show", "a@b c"])["files"], 1);
    walk("a@b c", true);
    walk("new", false);
    daemon.stop();
    walk("newer", false);
    for (status, arguments) in [
        (2, &["user", "set", "u"][..]),
        (2, &["user", "set", "u", "--quota", "much"]),
        (2, &["user", "set", "u", "--disabled=perhaps"]),
        (2, &["user", "set", "u", "--role", "service"]),
        (2, &["user", "set", "u", "--role", "king"]),
        (2, &["user", "set", "a/b", "--disabled"]),
        (2, &["user", "show", "a/b"]),
        (2, &["user", "delete", ""]),
    ] {
        refused(&dir, status, arguments);
    }
    let table = command(&dir, &["user", "list"]).stdout;
    assert!(String::from_utf8(table).unwrap().starts_with("ID  ROLE"));
}

#[test]
fn changes_hold_from_the_next_request_on_and_survive_a_kill() {
    let mut daemon = Daemon::start();
    let dir = daemon.dir();
    let (user, other) = (daemon.user("u"), daemon.user("other"));
    let file = user.store("f", "", b"x");
    let key = file["key"].as_str().unwrap();
    run(&dir, &["user", "set", "u", "--role", "viewer"]);
    user.delete(&format!("/v1/files/{key}")).refused(403, "forbidden");
    run(&dir, &["user", "set", "u", "--role", "default", "--quota", "3B"]);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    // There is no role to take back any more, so the tokens stay valid.
    let user = daemon.user("u");
    run(&dir, &["user", "set", "u", "--role", "default"]);
    user.put("/v1/files/content?filename=n", "xxx").refused(413, "quota_exceeded");
    run(&dir, &["user", "set", "u", "--disabled"]);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    let token = "/v1/files/generate-token?user_id=u";
    daemon.service().post(token, "").refused(409, "user_disabled");
    run(&dir, &["user", "set", "u", "--disabled=false"]);
    user.get("/v1/files/all").ok();
    run(&dir, &["user", "set", "u", "--log-out"]);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    let anew = daemon.user("u");
    anew.get("/v1/files/all").ok();
    daemon.restart(Signal::KILL);
    let again = |old: &crate::support::Client| old.moved(&daemon).get("/v1/files/all").status;
    assert_eq!((again(&user), again(&anew), again(&other)), (401, 200, 200));
}

/// A token loses the role that it was issued with, too. Otherwise a token whose role was capped
/// meanwhile would regain it.
#[test]
fn a_role_that_is_taken_back_takes_its_tokens_along() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    for before in [&["admin"][..], &["admin", "viewer"]] {
        run(&dir, &["user", "set", "boss", "--role", "admin"]);
        let boss = daemon.user("boss");
        boss.get("/v1/admin/users").ok();
        for role in before {
            run(&dir, &["user", "set", "boss", "--role", role]);
        }
        let set = run(&dir, &["user", "set", "boss", "--role", "default"]);
        assert!(set["role"].is_null() && set["tokens_valid_from"].is_string());
        boss.get("/v1/admin/users").refused(401, "unauthenticated");
        daemon.user("boss").get("/v1/admin/users").refused(403, "forbidden");
    }
}

/// A user who is created again under a deleted id is somebody else.
#[test]
fn what_a_deleted_user_uploaded_is_told_to_nobody() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let one = user.init("secret", 1);
    let files = json!([{"name": "secret", "size": 1}, {"name": "other", "size": 1}]);
    let batch = user.post("/v1/files/init", json!({"mode": "batch", "files": files})).ok();
    let of_batch = |n: usize| batch["files"][n]["uploadId"].as_str().unwrap();
    for id in [&one, of_batch(0), of_batch(1)] {
        user.part(id, 1, b"x").ok();
    }
    user.complete(&one).ok();
    let batch_id = batch["uploadId"].as_str().unwrap();
    let completed = user.complete(batch_id).ok();
    let path = |id: &str| format!("/v1/files/{id}");
    // The owner is not told more of a deleted file, either.
    user.delete_file(&completed["files"][0]).ok();
    let left = user.get(&path(batch_id)).ok();
    assert_eq!(left["files"].as_array().unwrap().len(), 1);
    assert_eq!((&left["files"][0]["name"], &left["size"]), (&json!("other"), &json!(1)));
    user.get(&path(of_batch(0))).refused(410, "gone");
    user.delete(&path(of_batch(0))).refused(410, "gone");
    run(&daemon.dir(), &["user", "delete", "u"]);
    let anew = daemon.user("u");
    for id in [&one, of_batch(0), of_batch(1)] {
        anew.get(&path(id)).refused(410, "gone");
        anew.delete(&path(id)).refused(410, "gone");
        anew.part(id, 1, b"x").refused(410, "gone");
    }
    anew.get(&path(batch_id)).refused(404, "upload_not_found");
    anew.delete(&path(batch_id)).refused(404, "upload_not_found");
    daemon.user("v").get(&path(&one)).refused(404, "upload_not_found");
}

#[test]
fn a_deleted_user_leaves_nothing_and_its_tokens_stay_dead() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    for n in 0..3 {
        user.store("f", "a/b", &bytes(n, 70_000));
    }
    let open = user.init("open", 10);
    user.part(&open, 1, b"12345").ok();
    let large = user.init("large", 300_000);
    user.put(&format!("/v1/files/{large}/parts/1"), bytes(9, 200_000)).ok();
    let batch = json!({"mode": "batch", "files": [{"name": "a", "size": 1}]});
    user.post("/v1/files/init", batch).ok();
    let of_other = daemon.user("other").store("f", "", b"x");
    run(&daemon.dir(), &["user", "delete", "u"]);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    assert!(command(&daemon.dir(), &["fsck"]).status.success());
    let staged = std::fs::read_dir(daemon.dir().join("staging")).unwrap();
    let staged: Vec<_> = staged.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(staged, ["tmp"]);
    let anew = daemon.user("u");
    assert_eq!(anew.get("/v1/files/all").ok()["total_count"], 0);
    user.get("/v1/files/all").refused(401, "unauthenticated");
    anew.get(&format!("/v1/files/{open}")).refused(404, "upload_not_found");
    assert_eq!(daemon.user("other").content(of_other["key"].as_str().unwrap()).body, b"x");
}

#[test]
fn users_and_tokens_come_in_pages() {
    let daemon = Daemon::start();
    let service = daemon.service();
    let ids: Vec<String> = (0..7).map(|n| format!("u {n}")).collect();
    for id in &ids {
        service.send("PATCH", &format!("/v1/admin/users/{}", query(id)), "{}").ok();
        assert_eq!(service.post("/v1/admin/tokens", json!({ "name": id })).status, 201);
    }
    let walk = |path: &str, member: &str, name: &str| {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = service.get(&format!("{path}?limit=3{cursor}")).ok();
            let entries = page[member].as_array().unwrap();
            assert!(entries.len() <= 3);
            seen.extend(entries.iter().map(|entry| entry[name].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={}", query(next)),
                None => return seen,
            }
        }
    };
    assert_eq!(walk("/v1/admin/users", "users", "id"), ids);
    let tokens = walk("/v1/admin/tokens", "tokens", "id");
    assert_eq!(tokens.len(), 8);
    assert!(tokens.is_sorted());
    service.get("/v1/admin/users?limit=0").refused(400, "invalid_limit");
    service.get("/v1/admin/tokens?cursor=x").refused(400, "invalid_cursor");
}

#[test]
fn an_admin_does_over_http_what_the_commands_do() {
    let daemon = Daemon::start();
    run(&daemon.dir(), &["user", "set", "boss", "--role", "admin"]);
    let admin = daemon.user("boss");
    let made = admin.post("/v1/admin/tokens", json!({"name": "s", "scopes": ["read"]}));
    assert_eq!(made.status, 201);
    let made = made.json();
    let path = format!("/v1/admin/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.get(&path).ok()["scopes"], json!(["read"]));
    let next = admin.post(&format!("{path}/rotate"), "").json();
    let holder = daemon.anyone().header("x-service-token", next["token"].as_str().unwrap());
    holder.get("/v1/files/all?user_id=u").ok();
    assert_eq!(admin.post("/v1/admin/tokens", json!({"name": "s"})).status, 201);
    admin.post(&format!("{path}/rotate"), "").refused(409, "token_ended");
    admin.delete("/v1/admin/tokens/s").refused(409, "ambiguous_name");
    admin.delete(&format!("/v1/admin/tokens/{}", next["id"].as_str().unwrap())).ok();
    holder.get("/v1/files/all?user_id=u").refused(401, "unauthenticated");
    assert_eq!(admin.get("/v1/admin/users/boss").ok()["role"], "admin");
    assert_eq!(admin.get("/v1/admin/keys").ok()["keys"].as_array().unwrap().len(), 1);
    for (path, body, code) in [
        ("/v1/admin/tokens", json!({"name": ""}), "invalid_token_name"),
        ("/v1/admin/tokens", json!({"name": "a/rotate"}), "invalid_token_name"),
        ("/v1/admin/tokens", json!({"name": "s", "kind": "magic"}), "invalid_json"),
        ("/v1/admin/tokens", json!({"name": "s", "expires_in": 0}), "invalid_expires_in"),
        ("/v1/admin/tokens", json!({"name": "s", "scopes": ["x"]}), "invalid_scope"),
        ("/v1/admin/tokens/s/rotate", json!({"grace": 9_999_999_999_u64}), "invalid_grace"),
        ("/v1/admin/revocations", json!({}), "invalid_revocation"),
        ("/v1/admin/revocations", json!({"jti": "x", "all": true}), "invalid_revocation"),
        ("/v1/admin/keys/rotate", json!({"after": 99_999_999}), "invalid_after"),
        ("/v1/admin/keys", json!({"pem": "none"}), "invalid_key"),
        ("/v1/admin/keys", json!({"pem": "none", "typo": 1}), "invalid_json"),
    ] {
        admin.post(path, body).refused(400, code);
    }
    let patch = |body: Value| admin.send("PATCH", "/v1/admin/users/u", body.to_string());
    patch(json!({"role": "service"})).refused(400, "invalid_role");
    patch(json!({"quota": -1})).refused(400, "invalid_json");
    // A misspelt member is refused, because the limit that it should set would be missing.
    patch(json!({"qouta": 1})).refused(400, "invalid_json");
    admin
        .post("/v1/admin/tokens", json!({"name": "s", "scope": ["read"]}))
        .refused(400, "invalid_json");
    admin.get("/v1/admin/users/u").refused(404, "not_found");
    let user = patch(json!({"quota": 1024.0, "disabled": true, "private": true})).ok();
    assert_eq!((&user["quota"], &user["disabled"]), (&json!(1024), &json!(true)));
    let user = patch(json!({"quota": null, "disabled": null, "private": null})).ok();
    assert_eq!(
        json!([user["quota"], user["disabled"], user["private"]]),
        json!([null, false, false])
    );
    let head = admin.send("HEAD", "/v1/admin/users/u", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let low = daemon.user("u");
    for path in ["/v1/admin/tokens", "/v1/admin/users", "/v1/admin/keys"] {
        low.get(path).refused(403, "forbidden");
        daemon.anyone().get(path).refused(401, "unauthenticated");
    }
    low.get("/v1/admin/x").refused(404, "no_route");
    daemon.anyone().get("/v1/admin/x").refused(401, "unauthenticated");
}
