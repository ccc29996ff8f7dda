//! Digests that clients send with a body (RFC 9530).

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_RANGE, HeaderName},
};

use crate::{app::Error, model::digest::Sha256};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The SHA-256 that `Content-Digest` or `Repr-Digest` announces for a raw body. It must be the
/// content as it is, so that both speak of the same bytes: a coded body or a piece of one would be
/// stored for the whole. Other algorithms are passed over (RFC 9530 section 2).
///
/// # Errors
/// [`Error::Invalid`] for a `sha-256` that cannot be read, two that differ, a content coding, or a
/// range.
pub fn announced(headers: &HeaderMap) -> Result<Option<Sha256>, Error> {
    let invalid = || Error::invalid("invalid_digest", "sha-256 must be :base64 of 32 bytes:.");
    let coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| {
        !coding.is_empty() && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    });
    if coded || headers.contains_key(CONTENT_RANGE) {
        let detail = "The body must be the content as it is: no Content-Encoding or Content-Range.";
        return Err(Error::invalid("encoded_content", detail));
    }
    let mut announced = None;
    for name in [CONTENT_DIGEST, REPR_DIGEST] {
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
    }
    Ok(announced)
}

/// RFC 9651 section 3.3.5, without parameters.
fn byte_sequence(item: &str) -> Option<Sha256> {
    let encoded = item.strip_prefix(':')?.split_once(':')?.0;
    STANDARD.decode(encoded).ok()?.try_into().ok().map(Sha256)
}
