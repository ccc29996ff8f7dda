//! The public halves of a key ring as a JWK set (RFC 7517 section 5).

use serde::Serialize;

use super::keyring::KeyRing;

#[derive(Serialize)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize)]
struct Jwk {
    kty: &'static str,
    r#use: &'static str,
    alg: &'static str,
    kid: String,
    n: String,
    e: String,
}

pub fn public_keys(ring: &KeyRing) -> JwkSet {
    let jwk = |key: &std::sync::Arc<super::keyring::SigningKey>| Jwk {
        kty: "RSA",
        r#use: "sig",
        alg: "RS256",
        kid: key.kid.clone(),
        n: key.n.clone(),
        e: key.e.clone(),
    };
    JwkSet { keys: ring.keys().iter().map(jwk).collect() }
}
