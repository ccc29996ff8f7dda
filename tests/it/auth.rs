//! Authentication and roles: every credential, every role, and credentials that are wrong in many
//! ways.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use streamlined::{
    auth::{jwt, keyring::KeyRing},
    model::time::UnixMillis,
};

use crate::support::{Client, Daemon, daemon::TOKEN};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Signs claims with the daemon's own key.
fn signed(daemon: &Daemon, claims: &Value) -> String {
    sign(claims, &KeyRing::open(&daemon.dir().join("keys")).unwrap())
}

fn sign(claims: &Value, ring: &KeyRing) -> String {
    jwt::sign(claims, ring, UnixMillis(now() * 1000), now() + 60).unwrap()
}

fn user_claims(id: &str, role: &str) -> Value {
    json!({"user_id": id, "roles": role, "iss": "streamlined", "aud": "streamlined",
        "iat": now(), "exp": now() + 60})
}

pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_generated_token_is_the_users() {
    let daemon = Daemon::start();
    let path = "/v1/files/generate-token?user_id=u%40x.io&expires_hours=2";
    let answer = daemon.service().post(path, "").ok();
    assert_eq!((&answer["user_id"], &answer["expires_in"]), (&json!("u@x.io"), &json!(7200)));
    assert_eq!(answer["token_type"], "Bearer");
    let claims = claims(answer["token"].as_str().unwrap());
    assert_eq!((&claims["user_id"], &claims["sub"]), (&json!("u@x.io"), &json!("u@x.io")));
    assert_eq!(claims["roles"], "researcher");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
    assert!(claims["jti"].is_string() && claims["iss"].is_string() && claims["aud"].is_string());
    let default = daemon.service().post("/v1/files/generate-token?user_id=u", "").ok();
    assert_eq!(default["expires_in"], 3600);
    let unsaid = "/v1/files/generate-token?user_id=u&expires_hours=";
    assert_eq!(daemon.service().post(unsaid, "").ok()["expires_in"], 3600);
    let longest = "/v1/files/generate-token?user_id=u&expires_hours=720";
    assert_eq!(daemon.service().post(longest, "").ok()["expires_in"], 720 * 3600);
    for wrong in ["0", "721", "-1", "1.5", "x"] {
        let path = format!("/v1/files/generate-token?user_id=u&expires_hours={wrong}");
        daemon.service().post(&path, "").refused(400, "invalid_expires_hours");
    }
    let post = |query: &str| daemon.service().post(&format!("/v1/files/generate-token{query}"), "");
    post("").refused(400, "missing_parameter");
    post("?user_id=..").refused(400, "invalid_user_id");
    daemon.user("u").post(path, "").refused(403, "forbidden");
}

#[test]
fn every_carrier_works_and_one_bad_credential_spoils_the_rest() {
    let daemon = Daemon::start();
    let (anyone, path) = (daemon.anyone(), "/v1/files/all?user_id=u");
    let user = signed(&daemon, &user_claims("u", "viewer"));
    let service = signed(&daemon, &json!({"sub": "s", "roles": "service", "exp": now() + 60}));
    let bearer = |token: &str| anyone.header("authorization", &format!("bearer  {token}"));
    for client in [
        daemon.service(),
        anyone.header("x-service-token", &service),
        bearer(&user),
        bearer(&service),
        anyone.header("cookie", &format!("a=b; auth_token={user}; c=d")),
        daemon.service().header("authorization", &format!("Bearer {user}")),
    ] {
        client.get(path).ok();
    }
    for client in [
        anyone.clone(),
        anyone.header("x-service-token", ""),
        anyone.header("x-service-token", &TOKEN[1..]),
        anyone.header("x-service-token", &user),
        anyone.header("authorization", TOKEN),
        anyone.header("authorization", &format!("Basic {TOKEN}")),
        anyone.header("authorization", "Bearer"),
        anyone.header("cookie", "auth_token=x"),
        anyone.header("cookie", &format!("auth_token={user}; auth_token={user}")),
        bearer(TOKEN),
        bearer(&user[1..]),
        bearer(&user).header("authorization", &format!("Bearer {user}")),
        daemon.service().header("authorization", "Bearer x"),
        daemon.service().header("cookie", "auth_token=x"),
        bearer(&user).header("x-service-token", "wrong"),
    ] {
        let refused = client.get(path);
        refused.refused(401, "unauthenticated");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    daemon.service().header("cookie", "a=b; auth_token=").get("/v1/files/all?user_id=u").ok();
    // A cookie does not authorize a write that another site made the browser send.
    let cookie = anyone.header("cookie", &format!("auth_token={user}"));
    let cross = cookie.header("sec-fetch-site", "cross-site");
    cross.get(path).ok();
    cross.post("/v1/files/init", "{}").refused(401, "unauthenticated");
    cookie.post("/v1/files/init", "{}").refused(403, "forbidden");
    // Over plain HTTP a browser sends only the `Origin` of the page.
    let from = |origin: &str| cookie.header("origin", origin).post("/v1/files/init", "{}");
    for elsewhere in ["http://evil.example", "null", "http://127.0.0.1:1", "nonsense"] {
        from(elsewhere).refused(401, "unauthenticated");
    }
    from(daemon.url()).refused(403, "forbidden");
    let fronted = Daemon::with(&[("public_url", "https://files.example:443")]);
    let user = signed(&fronted, &user_claims("u", "viewer"));
    let cookie = fronted.anyone().header("cookie", &format!("auth_token={user}"));
    let from = |origin: &str| cookie.header("origin", origin).post("/v1/files/init", "{}");
    from("https://files.example").refused(403, "forbidden");
    from("http://files.example:8443").refused(401, "unauthenticated");
    // A caller without a credential does not learn which routes and files exist.
    for hidden in ["/nothing", "/v1/files/init", "/v1/files/metadata/x", "/api/images/1/download"] {
        anyone.get(hidden).refused(401, "unauthenticated");
    }
    // Where no credential is needed, none is checked.
    anyone.header("x-service-token", "wrong").get("/healthz").ok();
    assert!(!daemon.log().contains(TOKEN) && !daemon.log().contains(&user));
}

#[test]
fn a_cookie_writes_only_for_pages_of_ours() {
    let daemon = Daemon::with(&[("trusted_proxies", "127.0.0.1")]);
    let token = signed(&daemon, &user_claims("u", "viewer"));
    let cookie = daemon.anyone().header("cookie", &format!("auth_token={token}"));
    let own = daemon.url();
    let (beside, evil) = ("http://127.0.0.1:1", "http://evil.example");
    // Each case has an address of its own, so that no answer is delayed for repeated bad
    // credentials.
    for (number, (site, origin, is_ours)) in (1..).zip([
        (Some("same-origin"), Some(own), true),
        (Some("same-origin"), None, true),
        (Some("none"), Some(evil), true),
        (Some("none"), None, true),
        (Some("same-site"), Some(own), true),
        (Some("same-site"), Some(beside), false),
        (Some("same-site"), Some(evil), false),
        (Some("same-site"), None, false),
        (Some("cross-site"), Some(own), false),
        (Some("cross-site"), None, false),
        (Some("CROSS-SITE"), Some(evil), false),
        (Some("CROSS-SITE"), None, false),
        (Some(""), Some(own), true),
        (Some(""), Some(evil), false),
        (Some("same-origin, none"), Some(evil), false),
        (Some("whatever"), Some("null"), false),
        (None, Some(own), true),
        (None, Some(beside), false),
        // Not a browser: this client sends the cookie on purpose.
        (None, None, true),
    ]) {
        let named = [("sec-fetch-site", site), ("origin", origin)];
        let elsewhere = cookie.header("x-forwarded-for", &format!("192.0.2.{number}"));
        let client = named.iter().fold(elsewhere, |client, (name, value)| match value {
            Some(value) => client.header(name, value),
            None => client,
        });
        let wanted = if is_ours { (403, "forbidden") } else { (401, "unauthenticated") };
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let path = match method {
                "POST" => "/v1/files/init",
                "PUT" => "/v1/files/content?filename=f",
                "PATCH" => "/v1/admin/users/u",
                _ => "/v1/admin/users/x",
            };
            let answer = client.send(method, path, "{}");
            let got = (answer.status, answer.json()["code"].as_str().unwrap().to_owned());
            let said = format!("{method} {site:?} {origin:?}");
            assert_eq!((got.0, got.1.as_str()), wanted, "{said}");
        }
        client.get("/v1/files/all").ok();
    }
    let twice = cookie.header("sec-fetch-site", "same-origin").header("sec-fetch-site", "none");
    let twice = twice.header("origin", evil);
    twice.post("/v1/files/init", "{}").refused(401, "unauthenticated");
}

#[test]
fn expired_and_foreign_tokens_are_refused() {
    let daemon = Daemon::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = user_claims("u", "viewer");
        claims[name] = value;
        signed(&daemon, &claims)
    };
    let foreign = KeyRing::open(elsewhere.path()).unwrap();
    for token in [
        with("exp", json!(now() - 1)),
        with("exp", json!((now() + 60).to_string())),
        with("exp", Value::Null),
        with("nbf", json!(now() + 120)),
        with("iss", json!("else")),
        with("aud", json!("else")),
        with("user_id", json!("../u")),
        with("user_id", json!(7)),
        sign(&user_claims("u", "viewer"), &foreign),
        with("pad", json!("x".repeat(9000))),
    ] {
        daemon.bearer(&token).get("/v1/files/all").refused(401, "unauthenticated");
    }
    // The record of a limited token says what it may do. A restored backup may lack the record, and
    // then the token is refused.
    let service =
        |limited| json!({"sub": "s", "roles": "service", "exp": now() + 60, "limited": limited});
    let list = |limited| {
        let token = signed(&daemon, &service(limited));
        daemon.bearer(&token).get("/v1/files/all?user_id=u").status
    };
    assert_eq!((list(false), list(true)), (200, 401));
    daemon.bearer(&with("sub", json!("other"))).get("/v1/files/all").ok();
}

#[test]
fn each_role_may_what_the_table_says() {
    let daemon = Daemon::start();
    let file = daemon.user("owner").store("f", "", b"x");
    let key = file["key"].as_str().unwrap();
    let as_role = |id: &str, role: &str| daemon.bearer(&signed(&daemon, &user_claims(id, role)));
    let may_upload = |client: &Client| client.put("/v1/files/content?filename=n", "x").status;
    let may_delete = |client: &Client| client.delete(&format!("/v1/files/{key}")).status;
    let may_read = |client: &Client| client.content(key).status;
    for (id, role, read, upload, delete) in [
        ("owner", "viewer", 200, 403, 403),
        ("owner", "unheard-of", 200, 403, 403),
        ("owner", "analyst", 200, 201, 403),
        ("other", "researcher", 404, 201, 404),
        ("other", "admin", 200, 201, 200),
        ("owner", "researcher", 404, 201, 404),
    ] {
        let client = as_role(id, role);
        let got = (may_read(&client), may_upload(&client), may_delete(&client));
        assert_eq!(got, (read, upload, delete), "{id} {role}");
    }
    let admin = as_role("boss", "admin");
    assert_eq!(admin.get("/v1/files/all?user_id=owner").ok()["total_count"], 2);
    // An admin names another user for lists only: what an admin uploads belongs to the admin.
    let key = |file: &Value| file["key"].as_str().unwrap().to_owned();
    let put = admin.put("/v1/files/content?filename=n&user_id=owner", "x").json();
    let init = json!({"mode": "single", "files": [{"name": "f", "size": 1}],
        "meta": {"user_id": "owner"}});
    let opened = admin.post("/v1/files/init", init).ok();
    let id = opened["uploadId"].as_str().unwrap();
    admin.part(id, 1, b"x").ok();
    for made in [put, admin.complete(id).ok()] {
        assert!(key(&made).starts_with("storage/boss/"), "{made}");
    }
    assert_eq!(admin.get("/v1/files/all?user_id=owner").ok()["total_count"], 2);
    admin.post("/v1/files/generate-token?user_id=u", "").refused(403, "forbidden");
}

#[test]
fn a_user_id_counts_before_an_email() {
    let daemon = Daemon::start();
    let service = daemon.service();
    daemon.user("one").store("f", "", b"x");
    for query in ["user_id=one&user_email=two", "user_email=two&user_id=one", "user_email=one"] {
        assert_eq!(service.names(&format!("?{query}")), ["f"], "{query}");
    }
    let init = json!({"mode": "single", "files": [{"name": "f", "size": 0}],
        "meta": {"user_email": "two", "user_id": "one"}});
    let opened = service.post("/v1/files/init", init).ok();
    let file = service.complete(opened["uploadId"].as_str().unwrap()).ok();
    assert!(file["key"].as_str().unwrap().starts_with("storage/one/"), "{file}");
}

#[test]
fn the_key_set_is_public_and_private_parts_are_not_in_it() {
    let daemon = Daemon::start();
    let answer = daemon.anyone().get("/.well-known/jwks.json");
    assert!(answer.header("cache-control").contains("max-age"));
    let keys = answer.ok();
    let key = keys["keys"][0].as_object().unwrap();
    let mut members: Vec<_> = key.keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"))
    );
    let unknown_kid =
        format!("{}.e30.eA", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"nobody"}"#));
    daemon.bearer(&unknown_kid).get("/v1/files/all").refused(401, "unauthenticated");
}

#[test]
fn a_key_that_appears_beside_the_daemon_is_found() {
    let daemon = Daemon::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let ring = KeyRing::open(elsewhere.path()).unwrap();
    let token = sign(&user_claims("u", "viewer"), &ring);
    daemon.bearer(&token).get("/v1/files/all").refused(401, "unauthenticated");
    for file in std::fs::read_dir(elsewhere.path()).unwrap() {
        let path = file.unwrap().path();
        let to = daemon.dir().join("keys").join(path.file_name().unwrap());
        std::fs::copy(&path, to).unwrap();
    }
    let accepted = || daemon.bearer(&token).get("/v1/files/all").status == 200;
    // The key directory is read again at most once a second.
    crate::support::eventually(accepted);
    let keys = daemon.anyone().get("/.well-known/jwks.json").ok();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
}
