//! Public keys as a JWK set (RFC 7517 section 5): those of a key ring, and those of others.

use serde::{Deserialize, Serialize};

use super::keyring::KeyRing;

#[derive(Serialize, Deserialize)]
pub struct JwkSet {
    pub(super) keys: Vec<Jwk>,
}

/// A key of any kind; the members of an RSA key are empty in other kinds.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Jwk {
    pub kty: String,
    #[serde(skip_deserializing)]
    r#use: &'static str,
    #[serde(skip_deserializing)]
    alg: &'static str,
    pub kid: String,
    pub n: String,
    pub e: String,
}

pub fn public_keys(ring: &KeyRing) -> JwkSet {
    let jwk = |key: &std::sync::Arc<super::keyring::SigningKey>| Jwk {
        kty: "RSA".to_owned(),
        r#use: "sig",
        alg: "RS256",
        kid: key.kid.clone(),
        n: key.n.clone(),
        e: key.e.clone(),
    };
    JwkSet { keys: ring.keys().iter().map(jwk).collect() }
}
