//! What garbage collection and scrub ask of a store: what lies there, whether it is what was
//! stored, and room that can be had back only by moving bytes.

use async_trait::async_trait;

use super::Result;
use crate::model::{
    digest::ContentHash,
    id::{PartNumber, UploadId},
    locator::Locator,
    time::UnixMillis,
};

/// Where to look for bytes: each is small enough to be listed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Parts of uploads.
    Parts,
    /// Blobs whose hash begins with this byte.
    Blobs(u8),
}

/// Whose record would name these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Part(UploadId, PartNumber),
    Blob(ContentHash),
    /// Parts of an upload, as long as it is open.
    Upload(UploadId),
}

/// Bytes that lie under a name of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub owner: Owner,
    pub locator: Locator,
    /// When they came there, by the clock of the disk.
    pub since: UnixMillis,
}

/// What shows of bytes without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There are as many as there should be, as far as that is known. Of those that were stored
    /// before format 3 it is not: what they lie in is there.
    Whole,
    /// What they lie in is too short for them.
    Short,
    Missing,
    /// What they lie in cannot be looked at, and why.
    Unreadable(String),
}

/// Room that was had back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub packs: usize,
    pub bytes: u64,
}

/// What a copy of the store came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: usize,
    /// Files that were there already.
    pub kept: usize,
    /// Files and directories that could not be read here, and are not in the copy.
    pub unreadable: usize,
    pub bytes: u64,
}

/// Slows a long read down.
#[async_trait]
pub trait Pace: Send + Sync {
    /// Called after each piece of at most a few MiB; the next one is read when it is through.
    async fn took(&self, bytes: u64);
}

/// Bytes that share a pack with others, as they lay when the survey began. The caller tells which
/// a record names; what it does not tell is taken for dead.
#[async_trait]
pub trait Survey: Send + Sync {
    /// A record names these bytes.
    fn keep(&mut self, locator: &Locator);
    /// A record names these bytes and they must stay where they are.
    fn pin(&mut self, locator: &Locator);
    /// Gives back what holds nothing that is named.
    async fn free_dead(&mut self) -> Result<Freed>;
    /// Some packs hold so little that is named that moving it is worth while.
    fn has_sparse(&self) -> bool;
    /// Whether these bytes lie in such a pack.
    fn is_sparse(&self, locator: &Locator) -> bool;
    /// Copies packed bytes, checked against their hash, and answers how many there are and where
    /// the copy lies.
    async fn copy(&self, hash: &ContentHash, locator: &Locator) -> Result<(u64, Locator)>;
}
