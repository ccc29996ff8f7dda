//! What garbage collection and scrub ask of a store: which bytes are there, whether they are what
//! was stored, and how to free space that can only be freed by moving bytes.

use async_trait::async_trait;

use super::Result;
use crate::model::{
    digest::ContentHash,
    id::{PartNumber, UploadId},
    locator::Locator,
    time::UnixMillis,
};

/// A set of places to look for bytes, small enough to be listed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Parts of uploads.
    Parts,
    /// Blobs whose hash begins with this byte.
    Blobs(u8),
}

/// The record that would name these bytes, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Part(UploadId, PartNumber),
    Blob(ContentHash),
    /// Parts of an upload. They belong to it for as long as it is open.
    Upload(UploadId),
}

/// Bytes that lie under a name of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub owner: Owner,
    pub locator: Locator,
    /// When they were put there, by the clock of the disk.
    pub since: UnixMillis,
}

/// What can be told about bytes without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The file is long enough for the bytes, as far as their length is known. Of bytes that were
    /// stored before format 3 it is not known: only their file is there.
    Whole,
    /// The file is too short for the bytes.
    Short,
    Missing,
    /// The file cannot be inspected, and why.
    Unreadable(String),
}

/// Space that was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub packs: usize,
    pub bytes: u64,
}

/// The outcome of copying the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: usize,
    /// Files that were there already and were not copied.
    pub kept: usize,
    /// Source files and directories that could not be read and are missing in the copy.
    pub unreadable: usize,
    pub bytes: u64,
}

/// Slows down a long read.
#[async_trait]
pub trait Pace: Send + Sync {
    /// Called after each piece of at most a few MiB; the next piece is read when this returns.
    async fn took(&self, bytes: u64);
}

/// The packs as they were when the survey began. The caller names the bytes that a record names;
/// all others count as dead.
#[async_trait]
pub trait Survey: Send + Sync {
    /// Tells that a record names these bytes.
    fn keep(&mut self, locator: &Locator);
    /// Tells that a record names these bytes and that they must not be moved.
    fn pin(&mut self, locator: &Locator);
    /// Removes the packs in which no record names anything.
    async fn free_dead(&mut self) -> Result<Freed>;
    /// Whether there are packs with so few named bytes that moving those is worth while.
    fn has_sparse(&self) -> bool;
    /// Whether these bytes lie in such a pack.
    fn is_sparse(&self, locator: &Locator) -> bool;
    /// Copies packed bytes and checks them against their hash; answers their number and the locator
    /// of the copy.
    async fn copy(&self, hash: &ContentHash, locator: &Locator) -> Result<(u64, Locator)>;
}
