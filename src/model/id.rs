//! Identifiers of files, uploads, selections, service tokens and parts.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    digest::{as_hex, hex, parse_hex},
    time::UnixMillis,
};

/// Identity of an index entry: a `UUIDv7` (RFC 9562 section 5.7), so ids sort by creation time.
///
/// The first 48 bits are the creation time in milliseconds, then come a 12-bit counter that keeps
/// ids of one millisecond in order (section 6.2, method 1) and 62 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub [u8; 16]);

impl FileId {
    /// Lays out a version 7 UUID. `counter` uses its low 12 bits, `random` its low 62.
    pub fn new(created: UnixMillis, counter: u16, random: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&created.0.to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | (counter & 0x0fff)).to_be_bytes());
        bytes[8..].copy_from_slice(&(1 << 63 | (random & (u64::MAX >> 2))).to_be_bytes());
        Self(bytes)
    }

    /// The time at which the file was recorded.
    pub fn created(&self) -> UnixMillis {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0[..6]);
        UnixMillis(u64::from_be_bytes(millis))
    }

    /// Reads the hyphenated form that [`fmt::Display`] writes; hyphens may be left out.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 36 {
            return None;
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        parse_hex(&digits).map(Self)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex(&self.0);
        let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        f.write_str(&groups.join("-"))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

/// Identity of an upload session or of a batch of sessions: 128 random bits, written as 32 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId(pub [u8; 16]);

as_hex!(UploadId, TokenId);

/// Identity of a selection of files that are fetched together. It is stored in place of the token
/// that stands for the selection. Ids sort by expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectionId {
    pub expires: UnixMillis,
    pub digest: [u8; 16],
}

/// Identity of a service token: the beginning of the token's digest, written as 16 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; 8]);

impl TokenId {
    pub fn of(digest: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }
}

/// Position of a part in its upload. Clients count from 0 or from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartNumber(pub u32);

impl PartNumber {
    /// Accepts 0 to [`super::limits::PART_NUMBER_MAX`].
    pub fn new(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        (number <= super::limits::PART_NUMBER_MAX).then_some(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_ids_are_version_7_uuids_that_sort_by_time() {
        let early = FileId::new(UnixMillis(1_700_000_000_000), 0, u64::MAX);
        let next = FileId::new(UnixMillis(1_700_000_000_000), 1, 0);
        let late = FileId::new(UnixMillis(1_700_000_000_001), 0, 0);
        assert!(early < next && next < late);
        assert_eq!(late.created(), UnixMillis(1_700_000_000_001));
        let text = early.to_string();
        assert_eq!((&text[14..15], &text[19..20]), ("7", "b"));
        assert_eq!(FileId::parse(&text), Some(early));
        assert_eq!(FileId::parse("nonsense"), None);
    }
}
