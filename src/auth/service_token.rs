//! Opaque service tokens: recognizable and checkable as text, stored only as a digest.

use zeroize::Zeroizing;

use crate::{model::digest, sys::random};

/// Tells our tokens from other strings, for people and for leak scanners.
const PREFIX: &str = "slt_";
const JTI_CONTEXT: &str = "streamlined 2026-11-24 jti of a service token";
const DIGEST_CONTEXT: &str = "streamlined 2026-11-22 opaque service token";

/// A new token: `slt_`, 64 hex digits of secret, and 8 hex digits of a checksum over the secret.
pub fn generate() -> Zeroizing<String> {
    let secret = Zeroizing::new(random::bytes::<32>());
    let mut token = Zeroizing::new(String::with_capacity(PREFIX.len() + 72));
    token.push_str(PREFIX);
    let hex = Zeroizing::new(digest::hex(&*secret));
    token.push_str(&hex);
    token.push_str(&digest::hex(&blake3::hash(&*secret).as_bytes()[..4]));
    token
}

/// Whether a text contains a token of [`generate`], or the beginning of one.
pub fn looks_like_one(text: &str) -> bool {
    text.contains(PREFIX)
}

/// The words of a text that may be a token. Each comes also without what may surround a copied
/// token: quotes, the name of a header, a scheme.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_around = |c| matches!(c, '"' | '\'' | '`' | ',' | ';');
    text.split_whitespace().flat_map(move |word| {
        let value = word.split_once(':').map_or(word, |(_, value)| value);
        [word, word.trim_matches(is_around), value.trim_matches(is_around)]
    })
}

/// What is stored and compared in place of a token.
pub fn digest(token: &str) -> [u8; 32] {
    blake3::derive_key(DIGEST_CONTEXT, token.as_bytes())
}

/// What is stored and compared in place of a JWT's `jti`.
pub fn jti_digest(jti: &str) -> [u8; 32] {
    blake3::derive_key(JTI_CONTEXT, jti.as_bytes())
}

/// The token that the public integration document prints, so that everybody knows it.
pub const PUBLIC: &str = "ee6d52ece4fa6c4c8836820d2eb7feeb6c78cbf2e2661ef76c9f5a805fc16340";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::is_acceptable_token;

    #[test]
    fn tokens_differ_and_are_acceptable() {
        let (one, two) = (generate(), generate());
        assert_ne!(*one, *two);
        assert_ne!(digest(&one), digest(&two));
        assert!(looks_like_one(&one) && one.len() == 76 && is_acceptable_token(&one));
    }

    #[test]
    fn a_token_is_found_in_what_stands_around_it() {
        let token = "a:b.c\"d";
        for around in ["@", " @\n", "\"@\",", "Bearer @", "x-token:@", "-H 'x-token: @'", "\"x:@\""]
        {
            let text = around.replace('@', token);
            assert!(words(&text).any(|word| word == token), "{around}");
        }
        assert_eq!(words(" \n").next(), None);
    }
}
