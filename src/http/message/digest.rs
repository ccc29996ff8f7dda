//! Digests of content (RFC 9530): those that clients send with a body, and whether a client wants
//! ours.

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_RANGE, HeaderName},
};

use crate::{app::Error, model::digest::Sha256};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");

/// `Repr-Digest` of content, unless `Want-Repr-Digest` says by a weight of 0 that SHA-256 is not
/// wanted (section 4). A client that wants only other algorithms is sent SHA-256 all the same,
/// because there is no other.
pub fn wanted(headers: &HeaderMap, sha256: &Sha256) -> Option<String> {
    let lines = headers.get_all(WANT_REPR_DIGEST).iter().filter_map(|line| line.to_str().ok());
    let weights = lines.flat_map(|line| line.split(',')).filter_map(|it| it.trim().split_once('='));
    // Of members with one name, the last one counts (RFC 9651 section 4.2.2).
    let weight = weights.rev().find(|(name, _)| *name == "sha-256");
    let bare = |weight: &str| weight.split(';').next().is_some_and(|weight| weight.trim() == "0");
    let unwanted = weight.is_some_and(|(_, weight)| bare(weight));
    (!unwanted).then(|| format!("sha-256=:{}:", STANDARD.encode(sha256.0)))
}

/// The SHA-256 that `Content-Digest` or `Repr-Digest` announces for a raw body. The body is the
/// whole content, so both describe the same bytes.
///
/// # Errors
/// As [`of_content`] and [`of_representation`]; also when the two differ.
pub fn announced(headers: &HeaderMap) -> Result<Option<Sha256>, Error> {
    match (of_content(headers)?, of_representation(headers)?) {
        (Some(one), Some(other)) if one != other => Err(invalid()),
        (one, other) => Ok(one.or(other)),
    }
}

/// The SHA-256 that `Content-Digest` announces for the bytes of this request. They must be the
/// content as it is: an encoded body, or a piece of the content, would be stored as the whole.
/// Several lines of `Content-Encoding` are one list (RFC 9110 section 5.3). Algorithms other than
/// SHA-256 are ignored (RFC 9530 section 2).
///
/// # Errors
/// [`Error::Invalid`] for a `sha-256` that cannot be read, two that differ, a content coding, or a
/// `Content-Range`.
pub fn of_content(headers: &HeaderMap) -> Result<Option<Sha256>, Error> {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    let is_coded = codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    if is_coded || headers.contains_key(CONTENT_RANGE) {
        let detail = "The body must be the content as it is: no Content-Encoding or Content-Range.";
        return Err(Error::invalid("encoded_content", detail));
    }
    sha256(headers, &CONTENT_DIGEST)
}

/// The SHA-256 that `Repr-Digest` announces for the whole content, of which the request may bring
/// only a piece.
///
/// # Errors
/// [`Error::Invalid`] for a `sha-256` that cannot be read, and for two that differ.
pub fn of_representation(headers: &HeaderMap) -> Result<Option<Sha256>, Error> {
    sha256(headers, &REPR_DIGEST)
}

fn sha256(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Sha256>, Error> {
    let mut announced = None;
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_| invalid())?;
        for member in value.split(',') {
            let Some((algorithm, digest)) = member.trim().split_once('=') else { continue };
            if algorithm != "sha-256" {
                continue;
            }
            let digest = byte_sequence(digest).ok_or_else(invalid)?;
            if announced.replace(digest).is_some_and(|other| other != digest) {
                return Err(invalid());
            }
        }
    }
    Ok(announced)
}

fn invalid() -> Error {
    let detail =
        "A sha-256 must be sent as sha-256=:BASE64: of 32 bytes, and all sent must be equal.";
    Error::invalid("invalid_digest", detail)
}

/// A byte sequence (RFC 9651 section 3.3.5), without parameters.
fn byte_sequence(item: &str) -> Option<Sha256> {
    let encoded = item.strip_prefix(':')?.split_once(':')?.0;
    STANDARD.decode(encoded).ok()?.try_into().ok().map(Sha256)
}
