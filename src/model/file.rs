//! An index entry, and what a list says of many.

use super::{
    digest::{ContentHash, Sha256},
    id::FileId,
    key::FileKey,
    name::{FileName, Folder, UserId},
};

/// One file of one user. Never changes once recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Carries the creation time, and with it the place in a list.
    pub id: FileId,
    pub owner: UserId,
    pub folder: Folder,
    pub name: FileName,
    pub key: FileKey,
    pub mime: Box<str>,
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub meta: CallerMeta,
}

/// The caller's own `meta`: a JSON object as text, or empty for none. Kept, never interpreted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallerMeta(pub Box<str>);

/// What a folder and everything beneath it hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
}
