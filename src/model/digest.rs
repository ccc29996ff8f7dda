//! Content digests: BLAKE3 names a blob, SHA-256 is what clients compare.

use serde::{Deserialize, Serialize};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(byte & 0xf)]);
    }
    text
}

/// Reads exactly `N` bytes of hex, either case.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Implements hex for types that consist of bytes: `parse` reads either case, `Display` writes
/// lower case.
macro_rules! as_hex {
    ($($name:ident),+) => {$(
        impl $name {
            /// Reads two digits for each byte.
            pub fn parse(text: &str) -> Option<Self> {
                $crate::model::digest::parse_hex(text).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::model::digest::hex(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    )+};
}
pub(super) use as_hex;

/// BLAKE3-256 of a blob: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

/// SHA-256 of a blob (FIPS 180-4), the digest that clients send and expect.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha256(pub [u8; 32]);

as_hex!(ContentHash, Sha256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_in_either_case_and_refuses_the_rest() {
        let hash = Sha256([0xab; 32]);
        assert_eq!(Sha256::parse(&hash.to_string()), Some(hash));
        assert_eq!(Sha256::parse(&hash.to_string().to_uppercase()), Some(hash));
        assert_eq!(Sha256::parse(""), None);
        assert_eq!(Sha256::parse(&"+1".repeat(32)), None);
        assert_eq!(Sha256::parse(&"é".repeat(32)), None);
    }
}
