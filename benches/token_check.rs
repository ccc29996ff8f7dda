//! What it costs to check a credential that was seen before, and how long it takes to refuse one:
//! if an unknown token and a revoked one took different times, that would tell which tokens
//! existed.
//!
//! `cargo bench --bench token_check`

use std::{net::Ipv4Addr, sync::Arc, time::Duration, time::Instant};

use streamlined::{
    app::{App, Policy, access::Credential, service_tokens::NewToken},
    auth::{jwt::Expected, keyring::KeyRing, link::LinkKey, service_token},
    blob::memory::MemoryBlobs,
    meta::sled::SledMetadata,
    model::{grant::Grant, name::UserId, principal::Role},
    sys::clock::SystemClock,
};
use tokio::runtime::Runtime;

const CHECKS: u32 = 200_000;
const REFUSALS: usize = 2_000;

/// Prints the median time of each kind of refusal. The kinds take turns, and every token is another
/// one.
async fn refusals(app: &Arc<App>, signed: &str) {
    let mut revoked = Vec::new();
    for _ in 0..REFUSALS {
        let grant = Grant::default();
        let new = NewToken { name: "gone".into(), is_jwt: false, grant, lifetime: None };
        let issued = app.issue_token(new).await.unwrap();
        app.revoke_token(&issued.token.id().to_string()).await.unwrap();
        revoked.push(issued.secret.to_string());
    }
    let (rest, signature) = signed.rsplit_once('.').unwrap();
    let kinds = ["opaque, never issued", "opaque, revoked", "JWT, wrong signature", "JWT, no key"];
    let mut times = kinds.map(|_| Vec::new());
    for (n, revoked) in revoked.iter().enumerate() {
        let unknown = service_token::generate().to_string();
        let wrong = format!("{rest}.A{n:05}{}", &signature[6..]);
        let no_key = format!("eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vbmUifQ.{n:06}.{signature}");
        let credentials = [
            Credential::ServiceToken(unknown.into()),
            Credential::ServiceToken(revoked.clone().into()),
            Credential::Bearer(wrong.into()),
            Credential::Bearer(no_key.into()),
        ];
        for (credential, times) in credentials.into_iter().zip(&mut times) {
            let began = Instant::now();
            let refused = app.authenticate(&[credential], Ipv4Addr::LOCALHOST.into()).await;
            times.push(began.elapsed());
            assert!(refused.is_err());
        }
    }
    for (kind, mut times) in kinds.into_iter().zip(times) {
        times.sort();
        println!("refused, {kind}: median {:?}", times[times.len() / 2]);
    }
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let meta = SledMetadata::open(dir.path(), 32 << 20, 64 << 20).unwrap();
    let policy = Policy {
        file_bytes_max: 1 << 20,
        part_bytes_max: 1 << 20,
        quota_bytes: 1 << 20,
        upload_ttl: Duration::from_hours(1),
        reclaim_grace: Duration::from_hours(1),
        scrub_every: Duration::from_hours(1),
        scrub_bytes_per_second: 1,
        public_read: false,
        tokens: Expected { issuer: "us".into(), audience: "us".into() },
    };
    let keys = dir.path().join("keys");
    let ring = Arc::new(KeyRing::open(&keys).unwrap());
    let links = LinkKey::open(&keys).unwrap();
    let clock = Arc::new(SystemClock);
    let app =
        App::new(Arc::new(meta), Arc::new(MemoryBlobs::default()), ring, links, clock, policy);
    Runtime::new().unwrap().block_on(async {
        let user = UserId::parse("u").unwrap();
        let user = app.generate_token(&user, 1, Role::Admin).await.unwrap().token;
        let signed = user.clone();
        let grant = Grant::parse(["read"], ["127.0.0.0/8"]).unwrap();
        let new =
            |is_jwt| NewToken { name: "s".into(), is_jwt, grant: grant.clone(), lifetime: None };
        let opaque = app.issue_token(new(false)).await.unwrap().secret;
        let service = app.issue_token(new(true)).await.unwrap().secret;
        for (what, credential) in [
            ("user JWT", Credential::Bearer(user.into())),
            ("service JWT with a grant", Credential::Bearer(service)),
            ("opaque token with a grant", Credential::ServiceToken(opaque)),
        ] {
            let credential = [credential];
            let from = Ipv4Addr::LOCALHOST.into();
            let began = Instant::now();
            app.authenticate(&credential, from).await.unwrap();
            let first = began.elapsed();
            let began = Instant::now();
            for _ in 0..CHECKS {
                app.authenticate(&credential, from).await.unwrap();
            }
            let each = began.elapsed() / CHECKS;
            println!("{what}: first {first:?}, then {each:?} each");
        }
        refusals(&app, &signed).await;
    });
}
