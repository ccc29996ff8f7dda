//! Every endpoint with every kind of credential, checked against the table of roles in this file.

use std::net::Ipv4Addr;

use hyper::Method;
use serde_json::json;
use streamlined::{
    auth::{jwt, keyring::KeyRing},
    http::{
        endpoint::{Access, Endpoint},
        route::route,
    },
    model::{grant::Action, principal::Role, time::UnixMillis},
    sys::clock::{Clock, SystemClock},
};

use crate::support::{Client, Daemon, command::run};

pub const ID: &str = "00112233445566778899aabbccddeeff";
pub const KEY: &str = "storage/nobody/00000000_f";
pub const IMAGE: &str = "01234567-89ab-7def-8123-456789abcdef";
/// The key in base64.
const LINKED: &str = "c3RvcmFnZS9ub2JvZHkvMDAwMDAwMDBfZg";

/// Everything that the description names, with these constants in its paths. The description is
/// made from the router, and a test of it demands every endpoint.
pub fn described(daemon: &Daemon) -> Vec<(String, Endpoint)> {
    let document = daemon.anyone().get("/openapi.json").ok();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("storage/{user}/{path}", KEY).replace("{key}", KEY);
        let path = path.replace("{uploadId}", ID).replace("{partNumber}", "1");
        let path = path.replace("{encodedKey}", LINKED).replace("{id}", IMAGE);
        let path = path.replace("{token}", "x").replace("{user}", "nobody");
        for method in methods.as_object().unwrap().keys() {
            let request = format!("{} {path}", method.to_uppercase());
            let endpoint = route(&method.to_uppercase().parse().unwrap(), &path);
            found.push((request, endpoint.unwrap()));
        }
    }
    assert!(found.len() > 50, "{found:?}");
    found
}

/// Method, path, least role (`None`: open to anyone), and what a service's token must grant.
fn table() -> Vec<(&'static str, String, Option<Role>, Action)> {
    use Action as A;
    use Role as R;
    vec![
        ("GET", "/healthz".into(), None, A::Read),
        ("GET", "/readyz".into(), None, A::Read),
        ("GET", "/.well-known/jwks.json".into(), None, A::Read),
        ("GET", "/openapi.json".into(), None, A::Read),
        ("GET", "/docs".into(), None, A::Read),
        ("GET", "/metrics".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/files/generate-token".into(), Some(R::Service), A::Tokens),
        ("POST", "/v1/files/init".into(), Some(R::Analyst), A::Upload),
        ("POST", "/v1/files/part".into(), Some(R::Analyst), A::Upload),
        ("PUT", format!("/v1/files/{ID}/parts/1"), Some(R::Analyst), A::Upload),
        ("GET", format!("/v1/files/{ID}"), Some(R::Analyst), A::Upload),
        ("DELETE", format!("/v1/files/{ID}"), Some(R::Analyst), A::Upload),
        ("GET", "/v1/files/uploads".into(), Some(R::Analyst), A::Upload),
        ("POST", "/v1/files/complete".into(), Some(R::Analyst), A::Upload),
        ("PUT", "/v1/files/content".into(), Some(R::Analyst), A::Upload),
        ("GET", "/v1/files/all".into(), Some(R::Viewer), A::Read),
        ("GET", format!("/v1/files/metadata/{KEY}"), Some(R::Viewer), A::Read),
        ("DELETE", format!("/v1/files/{KEY}"), Some(R::Researcher), A::Delete),
        ("GET", format!("/v1/files/content/{KEY}"), Some(R::Viewer), A::Read),
        ("GET", format!("/{KEY}"), Some(R::Viewer), A::Read),
        ("GET", "/v1/files/signed-url".into(), Some(R::Viewer), A::Read),
        ("POST", "/v1/files/signed-url".into(), Some(R::Viewer), A::Read),
        ("GET", format!("/get/{LINKED}"), None, A::Read),
        ("POST", "/v1/files/batch-download".into(), Some(R::Viewer), A::Read),
        ("GET", "/v1/files/batch-download/x".into(), None, A::Read),
        ("OPTIONS", "/v1/tus".into(), Some(R::Analyst), A::Upload),
        ("POST", "/v1/tus".into(), Some(R::Analyst), A::Upload),
        ("HEAD", format!("/v1/tus/{ID}"), Some(R::Analyst), A::Upload),
        ("PATCH", format!("/v1/tus/{ID}"), Some(R::Analyst), A::Upload),
        ("DELETE", format!("/v1/tus/{ID}"), Some(R::Analyst), A::Upload),
        ("OPTIONS", "/v1/files/content".into(), Some(R::Analyst), A::Upload),
        ("OPTIONS", format!("/v1/uploads/{ID}"), Some(R::Analyst), A::Upload),
        ("HEAD", format!("/v1/uploads/{ID}"), Some(R::Analyst), A::Upload),
        ("PATCH", format!("/v1/uploads/{ID}"), Some(R::Analyst), A::Upload),
        ("DELETE", format!("/v1/uploads/{ID}"), Some(R::Analyst), A::Upload),
        ("GET", format!("/api/images/{IMAGE}/download"), Some(R::Viewer), A::Read),
        ("GET", format!("/api/images/{IMAGE}/preview"), Some(R::Viewer), A::Read),
        ("GET", "/v1/admin/tokens".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/admin/tokens".into(), Some(R::Admin), A::Admin),
        ("GET", "/v1/admin/tokens/x".into(), Some(R::Admin), A::Admin),
        ("DELETE", "/v1/admin/tokens/x".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/admin/tokens/x/rotate".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/admin/revocations".into(), Some(R::Admin), A::Admin),
        ("GET", "/v1/admin/users".into(), Some(R::Admin), A::Admin),
        ("GET", "/v1/admin/users/nobody".into(), Some(R::Admin), A::Admin),
        ("PATCH", "/v1/admin/users/nobody".into(), Some(R::Admin), A::Admin),
        ("DELETE", "/v1/admin/users/nobody".into(), Some(R::Admin), A::Admin),
        ("GET", "/v1/admin/keys".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/admin/keys".into(), Some(R::Admin), A::Admin),
        ("POST", "/v1/admin/keys/rotate".into(), Some(R::Admin), A::Admin),
    ]
}

/// What a credential is worth.
enum Held {
    Nothing,
    Bad,
    User(Role),
    Service(Vec<Action>),
}

fn credentials(daemon: &Daemon) -> Vec<(String, Client, Held)> {
    let ring = KeyRing::open(&daemon.dir().join("keys")).unwrap();
    let now = SystemClock.now();
    let user = |id: &str, role: &str, exp: u64| {
        let claims = json!({"user_id": id, "roles": role, "iss": "streamlined",
            "aud": "streamlined", "iat": now.seconds(), "exp": exp});
        daemon.bearer(&jwt::sign(&claims, &ring, UnixMillis(now.0), exp).unwrap())
    };
    let hour = now.seconds() + 3600;
    let mut held = vec![
        ("nothing".into(), daemon.anyone(), Held::Nothing),
        ("a wrong token".into(), daemon.anyone().header("x-service-token", "x"), Held::Bad),
        ("a wrong JWT".into(), daemon.bearer("a.b.c"), Held::Bad),
        ("an expired JWT".into(), user("u", "admin", now.seconds() - 1), Held::Bad),
    ];
    for role in Role::ALL.into_iter().filter(|role| *role < Role::Service) {
        held.push((
            format!("a {}", role.as_str()),
            user("u", role.as_str(), hour),
            Held::User(role),
        ));
    }
    run(&daemon.dir(), &["user", "set", "locked", "--disabled"]);
    held.push(("a disabled user".into(), user("locked", "admin", hour), Held::Bad));
    let make = |kind: &[&str]| {
        let made = run(&daemon.dir(), &[&["token", "create", "s"], kind].concat());
        let token = made["token"].as_str().unwrap();
        (made["id"].as_str().unwrap().to_owned(), daemon.anyone().header("x-service-token", token))
    };
    for kind in [&[][..], &["--jwt"]] {
        let all = Held::Service(Action::ALL.to_vec());
        held.push((format!("a service {kind:?}"), make(kind).1, all));
        for action in Action::ALL {
            let client = make(&[kind, &["--scope", action.as_str()]].concat()).1;
            let name = format!("a service {kind:?} for {}", action.as_str());
            held.push((name, client, Held::Service(vec![action])));
        }
        let (id, client) = make(kind);
        run(&daemon.dir(), &["token", "revoke", &id]);
        held.push((format!("a revoked service {kind:?}"), client, Held::Bad));
    }
    held
}

#[test]
fn every_endpoint_holds_every_credential_to_the_table() {
    // Each request comes from an address of its own, because an address that fails again and again
    // has to wait.
    let daemon = Daemon::with(&[("trusted_proxies", "127.0.0.1"), ("metrics", "admins")]);
    let credentials = credentials(&daemon);
    let mut seen = Vec::new();
    let mut requests = 0_u32;
    for (method, path, least, action) in table() {
        let endpoint = route(&method.parse::<Method>().unwrap(), &path).unwrap();
        for (name, client, held) in &credentials {
            let may = match (held, least) {
                (_, None) => true,
                (Held::Nothing | Held::Bad, Some(_)) => false,
                (Held::User(role), Some(least)) => *role >= least,
                (Held::Service(granted), Some(_)) => granted.contains(&action),
            };
            // The address that avoids this wait must not change what is requested, so a header
            // carries it.
            requests += 1;
            let from = Ipv4Addr::from(0xcb00_7100 + requests).to_string();
            let answer = client.header("x-forwarded-for", &from).send(method, &path, "");
            let wanted = match held {
                _ if may => None,
                Held::Nothing | Held::Bad => Some((401, "unauthenticated")),
                Held::User(_) => Some((403, "forbidden")),
                Held::Service(_) => Some((403, "out_of_scope")),
            };
            if matches!(held, Held::Bad) && matches!(endpoint.access(), Access::Link) {
                // A bad credential in a header is refused even beside a link.
                answer.refused(401, "unauthenticated");
                continue;
            }
            match wanted {
                // The answer to a HEAD has no body that could hold a code.
                Some((status, _)) if method == "HEAD" => assert_eq!(answer.status, status),
                Some((status, code)) => drop(answer.refused(status, code)),
                None if matches!(endpoint.access(), Access::Link) => {
                    assert!(matches!(answer.status, 400 | 403), "{method} {path} with {name}");
                    assert_ne!(answer.json()["code"], "forbidden", "{method} {path} with {name}");
                }
                None => {
                    let status = answer.status;
                    assert!(!matches!(status, 401 | 403), "{method} {path} with {name}: {status}");
                }
            }
        }
        seen.push(endpoint);
    }
    for (request, endpoint) in described(&daemon) {
        assert!(seen.contains(&endpoint), "{request} has no row");
    }
}
