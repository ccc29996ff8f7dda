//! Receipts: signed statements of what was stored, for anybody who has the public keys and nothing
//! else of ours.
//!
//! A receipt is no token and a token no receipt (RFC 8725, 3.11 and 3.12): they differ in type and
//! audience, and a receipt has no subject, no roles and no expiry.

use std::io;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    jwks::{Jwk, JwkSet},
    jwt,
    keyring::KeyRing,
};
use crate::model::{
    digest::{ContentHash, Sha256},
    file::FileRecord,
    limits::{JWT_BYTES_MAX, RECEIPT_KEY_DAYS},
    time::UnixMillis,
};

const TYPE: &str = "streamlined-receipt+jwt";
const AUDIENCE: &str = "urn:streamlined:receipt";

/// The claims of a receipt, in the order in which they are written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub iss: String,
    pub aud: String,
    /// The URL under which the daemon is known.
    pub server: String,
    /// The Unix second at which the file was stored.
    pub iat: u64,
    pub key: String,
    pub size: u64,
    /// In hex, as is `blake3`.
    pub sha256: String,
    pub blake3: String,
}

/// Why a text is not a receipt signed with one of these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is not a JWS in compact form")]
    Malformed,
    #[error("it is signed, but not as a receipt")]
    NotAReceipt,
    #[error("the key set is not a JWK set in JSON")]
    KeySet,
    #[error("the key set does not have the key that the receipt names")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
}

impl Receipt {
    pub fn of(file: &FileRecord, issuer: &str, server: &str) -> Self {
        Self {
            iss: issuer.to_owned(),
            aud: AUDIENCE.to_owned(),
            server: server.to_owned(),
            iat: file.id.created().seconds(),
            key: file.key.as_str().to_owned(),
            size: file.size,
            sha256: file.sha256.to_string(),
            blake3: file.blake3.to_string(),
        }
    }

    /// Signs the receipt with the key that signs now. The key then stays in the key set for at
    /// least `RECEIPT_KEY_DAYS`. Blocks.
    ///
    /// # Errors
    /// As [`jwt::sign`].
    pub fn sign(&self, ring: &KeyRing, now: UnixMillis) -> io::Result<String> {
        let known_until = now.seconds() + RECEIPT_KEY_DAYS * 24 * 3600;
        jwt::sign_as(TYPE, self, ring, now, known_until)
    }

    /// Reads a receipt and checks it against a JWK set (RFC 7517) in JSON.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn verify(text: &str, key_set: &[u8]) -> Result<Self, Refused> {
        if text.len() > JWT_BYTES_MAX {
            return Err(Refused::Malformed);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
        let header: Header = json(header).ok_or(Refused::Malformed)?;
        if header.typ != TYPE || header.alg != "RS256" || header.crit.is_some() {
            return Err(Refused::NotAReceipt);
        }
        let keys: JwkSet = serde_json::from_slice(key_set).map_err(|_| Refused::KeySet)?;
        let named = |key: &&Jwk| key.kid == header.kid && key.kty == "RSA";
        let key = keys.keys.iter().find(named).ok_or(Refused::UnknownKey)?;
        let key = DecodingKey::from_rsa_components(&key.n, &key.e).map_err(|_| Refused::KeySet)?;
        if !crypto::verify(signature, message.as_bytes(), &key, Algorithm::RS256).unwrap_or(false) {
            return Err(Refused::Signature);
        }
        let receipt: Self = json(payload).ok_or(Refused::NotAReceipt)?;
        if receipt.aud == AUDIENCE { Ok(receipt) } else { Err(Refused::NotAReceipt) }
    }

    /// Whether the receipt is for content of this size and these digests.
    pub fn is_of(&self, size: u64, sha256: &Sha256, blake3: &ContentHash) -> bool {
        self.size == size && self.sha256 == sha256.to_string() && self.blake3 == blake3.to_string()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
    crit: Option<serde::de::IgnoredAny>,
}

fn json<T: DeserializeOwned>(segment: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{
            jwks::public_keys,
            jwt::{Expected, UserClaims},
        },
        model::{
            file::CallerMeta,
            id::FileId,
            key::FileKey,
            name::{FileName, Folder, UserId},
        },
    };

    fn file() -> FileRecord {
        let (owner, name) = (UserId::parse("u").unwrap(), FileName::parse("x").unwrap());
        FileRecord {
            id: FileId([1; 16]),
            key: FileKey::compose(&owner, &Folder::default(), 7, &name),
            owner,
            folder: Folder::default(),
            name,
            mime: "text/plain".into(),
            size: 3,
            blake3: ContentHash([1; 32]),
            sha256: Sha256([2; 32]),
            meta: CallerMeta::default(),
        }
    }

    #[test]
    fn a_receipt_is_no_token_and_a_token_no_receipt() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(dir.path()).unwrap();
        let now = UnixMillis(1_800_000_000_000);
        let receipt = Receipt::of(&file(), "streamlined", "https://files.example.com");
        let signed = receipt.sign(&ring, now).unwrap();
        let keys = serde_json::to_vec(&public_keys(&ring)).unwrap();
        assert_eq!(Receipt::verify(&signed, &keys), Ok(receipt));
        let expected =
            Expected { issuer: "streamlined".into(), audience: "urn:streamlined:receipt".into() };
        let refused = jwt::verify(&signed, &ring, &expected, now);
        assert_eq!(refused, Err(jwt::Refused::Header));
        // Nor is one accepted as the other if it names the other's audience or lies about its type.
        let claims = UserClaims {
            user_id: "u",
            sub: "u",
            roles: "admin",
            iss: "streamlined",
            aud: AUDIENCE,
            iat: now.seconds(),
            exp: now.seconds() + 60,
            jti: "j",
        };
        let expires = now.seconds() + 60;
        let token = jwt::sign(&claims, &ring, now, expires).unwrap();
        assert_eq!(Receipt::verify(&token, &keys), Err(Refused::NotAReceipt));
        let token = jwt::sign_as(TYPE, &claims, &ring, now, expires).unwrap();
        assert_eq!(Receipt::verify(&token, &keys), Err(Refused::NotAReceipt));
        let untyped = Receipt::of(&file(), "streamlined", "https://files.example.com");
        let untyped = jwt::sign(&untyped, &ring, now, expires).unwrap();
        assert_eq!(Receipt::verify(&untyped, &keys), Err(Refused::NotAReceipt));
        assert_eq!(jwt::verify(&untyped, &ring, &expected, now), Err(jwt::Refused::Claims));
    }

    #[test]
    fn a_receipt_that_was_touched_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(dir.path()).unwrap();
        let signed = Receipt::of(&file(), "i", "s").sign(&ring, UnixMillis(1)).unwrap();
        let keys = serde_json::to_vec(&public_keys(&ring)).unwrap();
        let verify = |text: &str| Receipt::verify(text, &keys);
        let (message, signature) = signed.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let larger = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let larger = String::from_utf8(larger).unwrap().replace("\"size\":3", "\"size\":4");
        let larger = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(larger));
        assert_eq!(verify(&larger), Err(Refused::Signature));
        let header = |json: &str| format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(json));
        let none = r#"{"alg":"none","typ":"streamlined-receipt+jwt","kid":"k"}"#;
        assert_eq!(verify(&header(none)), Err(Refused::NotAReceipt));
        let other = r#"{"alg":"RS256","typ":"streamlined-receipt+jwt","kid":"k"}"#;
        assert_eq!(verify(&header(other)), Err(Refused::UnknownKey));
        assert_eq!(verify("a.b"), Err(Refused::Malformed));
        assert_eq!(Receipt::verify(&signed, b"{}"), Err(Refused::KeySet));
        let other = tempfile::tempdir().unwrap();
        let others = serde_json::to_vec(&public_keys(&KeyRing::open(other.path()).unwrap()));
        assert_eq!(Receipt::verify(&signed, &others.unwrap()), Err(Refused::UnknownKey));
    }
}
