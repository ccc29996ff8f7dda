//! Tokens of batch downloads: whoever has one may fetch the files that it stands for. A token
//! contains its expiry. Its selection of files is stored under its digest only.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    model::{id::SelectionId, time::UnixMillis},
    sys::random,
};

const DIGEST_CONTEXT: &str = "streamlined 2026-11-24 batch download token";
const TIME_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A new token, and the id of its selection. The token has 54 characters that need no encoding in a
/// URL.
pub fn generate(expires: UnixMillis) -> (Zeroizing<String>, SelectionId) {
    let mut bytes = Zeroizing::new(Vec::with_capacity(TIME_BYTES + SECRET_BYTES));
    bytes.extend_from_slice(&expires.0.to_be_bytes());
    bytes.extend_from_slice(&*Zeroizing::new(random::bytes::<SECRET_BYTES>()));
    (Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes)), id(expires, &bytes))
}

/// The id of a token's selection; `None` for text that is no token.
pub fn parse(token: &str) -> Option<SelectionId> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(token).ok()?);
    let (time, secret) = bytes.split_first_chunk::<TIME_BYTES>()?;
    let expires = UnixMillis(u64::from_be_bytes(*time));
    (secret.len() == SECRET_BYTES).then(|| id(expires, &bytes))
}

fn id(expires: UnixMillis, bytes: &[u8]) -> SelectionId {
    let hash = blake3::derive_key(DIGEST_CONTEXT, bytes);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash[..16]);
    SelectionId { expires, digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_what_it_is_kept_by() {
        let (token, id) = generate(UnixMillis(77));
        assert_eq!((parse(&token), id.expires, token.len()), (Some(id), UnixMillis(77), 54));
        assert_ne!(parse(&generate(UnixMillis(77)).0), Some(id));
        for wrong in ["", "A", &token[1..], &format!("{}A", &*token), "....", "ä"] {
            assert_ne!(parse(wrong), Some(id), "{wrong}");
        }
    }
}
