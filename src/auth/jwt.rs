//! JWTs, RS256 only (RFC 7519, RFC 8725). Size and header are checked before any claim is read.

use std::io;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Header, crypto};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::keyring::{KeyRing, SigningKey};
use crate::model::{
    limits::{CLOCK_LEEWAY_SECONDS, JWT_BYTES_MAX},
    name::UserId,
    principal::Role,
    time::UnixMillis,
    token::is_jwt,
};

/// Why a token is refused. For the log; a client learns only that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token is larger than 8 KiB")]
    TooLarge,
    #[error("the token is not a JWT")]
    Malformed,
    #[error("the token's algorithm, type or critical header is not accepted")]
    Header,
    /// The only refusal after which the key directory is worth reading again.
    #[error("the token names an unknown key")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("a claim is missing or of the wrong type")]
    Claims,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is from another issuer or for another audience")]
    Audience,
}

/// The issuer and the audience that a user token must name.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub audience: String,
}

/// Whom a valid token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Service { name: Box<str> },
    User { id: UserId, role: Role },
}

/// A token whose signature and claims are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub subject: Subject,
    /// The first moment at which the token is no longer valid.
    pub expires: UnixMillis,
    /// The Unix second of its issue; 0 when the token does not say.
    pub issued: u64,
    pub jti: Option<Box<str>>,
    /// The token may do only what its record says, see [`ServiceClaims`].
    pub limited: bool,
}

#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<Box<str>>,
    user_id: Option<Box<str>>,
    roles: Option<OneOrMany>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    exp: NumericDate,
    #[serde(default, deserialize_with = "some")]
    nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "some")]
    iat: Option<NumericDate>,
    jti: Option<Box<str>>,
    #[serde(default)]
    limited: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

/// Seconds since 1970, a JSON number that may have a fraction (RFC 7519 section 2).
#[derive(Clone, Copy, PartialEq, PartialOrd, Deserialize)]
struct NumericDate(f64);

/// A member that is present must hold a value: `null` is a wrong type, not an absent member.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

fn present<'de, D: Deserializer<'de>>(json: D) -> Result<bool, D::Error> {
    de::IgnoredAny::deserialize(json).map(|_| true)
}

/// Checks a token: size, header, signature, times, subject.
///
/// # Errors
/// The first rule that the token breaks.
pub fn verify(
    token: &str,
    ring: &KeyRing,
    expected: &Expected,
    now: UnixMillis,
) -> Result<Verified, Refused> {
    if token.len() > JWT_BYTES_MAX {
        return Err(Refused::TooLarge);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
    let header: JoseHeader = json(header)?;
    let typed = header.typ.as_ref().is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"));
    if header.alg != "RS256" || !typed || header.crit {
        return Err(Refused::Header);
    }
    check_signature(message, signature, header.kid.as_deref(), ring)?;
    check_claims(json(payload)?, expected, now)
}

/// What a text that may be a token says of itself. Nothing of this is verified.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The text is no token.
    NoToken,
    /// A token, with its `jti` if it has one.
    Token(Option<String>),
}

/// Whether a text is a token in compact form, and its `jti`.
pub fn read_unverified(text: &str) -> Said {
    #[derive(Deserialize)]
    struct Own {
        jti: Option<String>,
    }
    if !is_jwt(text) {
        return Said::NoToken;
    }
    let own = text.split('.').nth(1).and_then(|payload| json::<Own>(payload).ok());
    Said::Token(own.and_then(|own| own.jti).filter(|jti| !jti.is_empty()))
}

fn json<T: de::DeserializeOwned>(segment: &str) -> Result<T, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| Refused::Malformed)?;
    // RFC 7519 section 7.2 requires an object; `serde` would read its members from an array as
    // well.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Refused::Claims);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| if error.is_data() { Refused::Claims } else { Refused::Malformed })
}

/// A `kid` must name one of our keys; without a `kid`, each key is tried.
fn check_signature(
    message: &str,
    signature: &str,
    kid: Option<&str>,
    ring: &KeyRing,
) -> Result<(), Refused> {
    let keys = ring.keys();
    let mut candidates = keys.iter().filter(|key| kid.is_none_or(|kid| key.kid == kid)).peekable();
    if candidates.peek().is_none() {
        return Err(Refused::UnknownKey);
    }
    let signed_by = |key: &DecodingKey| {
        crypto::verify(signature, message.as_bytes(), key, Algorithm::RS256).unwrap_or(false)
    };
    if candidates.any(|key| signed_by(&key.public)) { Ok(()) } else { Err(Refused::Signature) }
}

#[expect(clippy::cast_precision_loss, reason = "seconds and milliseconds of our time fit f64")]
fn check_claims(claims: Claims, expected: &Expected, now: UnixMillis) -> Result<Verified, Refused> {
    let seconds = now.0 as f64 / 1000.0;
    let latest = NumericDate(seconds + CLOCK_LEEWAY_SECONDS as f64);
    if claims.exp <= NumericDate(seconds) {
        return Err(Refused::Expired);
    }
    if claims.nbf.is_some_and(|nbf| nbf > latest) || claims.iat.is_some_and(|iat| iat > latest) {
        return Err(Refused::NotYet);
    }
    let roles = claims.roles.as_ref();
    let highest = roles.and_then(|roles| roles.iter().filter_map(Role::parse).max());
    let subject = if highest == Some(Role::Service) {
        let name = claims.sub.filter(|name| !name.is_empty()).ok_or(Refused::Claims)?;
        Subject::Service { name }
    } else {
        let for_us = claims.iss.is_some_and(|iss| iss == expected.issuer)
            && claims.aud.is_some_and(|aud| aud.iter().any(|aud| aud == expected.audience));
        if !for_us {
            return Err(Refused::Audience);
        }
        let id = claims.user_id.or(claims.sub).ok_or(Refused::Claims)?;
        let id = UserId::parse(&id).map_err(|_| Refused::Claims)?;
        Subject::User { id, role: highest.unwrap_or(Role::Viewer) }
    };
    let issued = claims.iat.map_or(0, |iat| iat.millis().seconds());
    let Claims { exp, jti, limited, .. } = claims;
    Ok(Verified { subject, expires: exp.millis(), issued, jti, limited })
}

impl NumericDate {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; a date before 1970 reads as 1970"
    )]
    fn millis(self) -> UnixMillis {
        UnixMillis((self.0 * 1000.0) as u64)
    }
}

/// Claims of a user token, in the order in which they are written.
#[derive(Serialize)]
pub struct UserClaims<'a> {
    pub user_id: &'a str,
    pub sub: &'a str,
    pub roles: &'a str,
    pub iss: &'a str,
    pub aud: &'a str,
    pub iat: u64,
    pub exp: u64,
    pub jti: &'a str,
}

/// Claims of a service token.
#[derive(Serialize)]
pub struct ServiceClaims<'a> {
    pub sub: &'a str,
    pub roles: &'a str,
    pub iat: u64,
    pub exp: u64,
    pub jti: &'a str,
    /// The record of its `jti` contains what the token is limited to. Without that record, which a
    /// restored backup may be too old to have, the token is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
}

/// Signs claims, whose `exp` is `expires`, with the key that signs now. Blocks.
///
/// # Errors
/// When the ring is empty, when its key does not sign, or when it cannot be recorded how long the
/// key is needed.
pub fn sign(
    claims: &impl Serialize,
    ring: &KeyRing,
    now: UnixMillis,
    expires: u64,
) -> io::Result<String> {
    sign_as("JWT", claims, ring, now, expires)
}

/// As [`sign`], but works also while the disk takes no note of how long the key is needed. Only for
/// a ring that stays in memory, which remembers it until it is noted.
///
/// # Errors
/// When the ring is empty, or its key does not sign.
pub fn sign_meanwhile(
    claims: &impl Serialize,
    ring: &KeyRing,
    now: UnixMillis,
    expires: u64,
) -> io::Result<String> {
    encode("JWT", claims, &*ring.signer_meanwhile(now, expires)?)
}

/// As [`sign`], for a JWT whose type must tell it from a token (RFC 8725 section 3.11).
pub(super) fn sign_as(
    typ: &str,
    claims: &impl Serialize,
    ring: &KeyRing,
    now: UnixMillis,
    expires: u64,
) -> io::Result<String> {
    encode(typ, claims, &*ring.signer_until(now, expires)?)
}

fn encode(typ: &str, claims: &impl Serialize, key: &SigningKey) -> io::Result<String> {
    let mut header = Header::new(Algorithm::RS256);
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.private).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
