//! What garbage collection and scrub ask of the index: walks in pages, blobs that move, blobs and
//! parts that are damaged, how far a scrub came.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BlobRecord, Part, Result};
use crate::model::{
    digest::ContentHash,
    id::{PartNumber, UploadId},
    locator::Locator,
    time::UnixMillis,
};

/// One walk of a scrub over all blobs. Is stored as it stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPass {
    pub began: UnixMillis,
    /// When it went through the last blob.
    pub completed: Option<UnixMillis>,
    /// The last blob that was looked at; they are walked in order of their hashes.
    pub position: Option<ContentHash>,
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs that are not what was stored, or not there.
    pub damaged: u64,
    /// Blobs that could not be read to the end; nobody knows what they hold.
    pub unreadable: u64,
}

impl ScrubPass {
    /// A pass that has looked at nothing yet.
    pub fn new(began: UnixMillis) -> Self {
        let (completed, position) = (None, None);
        Self { began, completed, position, blobs: 0, bytes: 0, damaged: 0, unreadable: 0 }
    }
}

/// The pass that goes on, over restarts too, and the last one that came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    pub running: Option<ScrubPass>,
    pub last: Option<ScrubPass>,
}

/// See the module. The promises of [`super::Metadata`] hold here too.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// When this index was begun: `now` when nobody asked before. Bytes from before are not its to
    /// judge: it may stand in for one that was lost.
    async fn begun(&self, now: UnixMillis) -> Result<UnixMillis>;
    /// Takes a step that changes nothing to the disk and back.
    async fn probe(&self) -> Result<()>;

    /// Where parts lie, in order of session and number, after `after`, at most `limit`.
    async fn parts_after(
        &self,
        after: Option<(UploadId, PartNumber)>,
        limit: usize,
    ) -> Result<Vec<((UploadId, PartNumber), Locator)>>;
    /// Blobs in order of their hashes, after `after`, at most `limit`.
    async fn blobs_after(
        &self,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Vec<(ContentHash, BlobRecord)>>;
    /// Points a blob's record at a copy that was checked a moment ago, which ends a mark as
    /// damaged; `false` when the record does not name `from` any more.
    async fn relocate_blob(&self, hash: &ContentHash, from: &Locator, to: &Locator)
    -> Result<bool>;

    /// Marks a blob whose bytes at `locator` are not what was stored; one that is marked keeps its
    /// time. The mark goes with those bytes: when the record names others, or is forgotten.
    /// `false` when the record does not name `locator`.
    async fn mark_damaged(
        &self,
        hash: &ContentHash,
        locator: &Locator,
        now: UnixMillis,
    ) -> Result<bool>;
    /// Takes a mark away; `false` when there is none, or the record does not name `locator`.
    async fn unmark_damaged(&self, hash: &ContentHash, locator: &Locator) -> Result<bool>;
    /// How many blobs are marked.
    async fn damaged_count(&self) -> Result<u64>;

    /// Forgets those of an open session's parts that are still recorded as in `parts`, as their
    /// bytes are not what was stored, and answers them; the client may send them again.
    ///
    /// # Errors
    /// [`super::Error::NotFound`], [`super::Error::Closed`].
    async fn forget_parts(&self, id: UploadId, parts: Vec<Part>) -> Result<Vec<Part>>;

    /// Holds the index against itself, reads what it can be made anew from, and answers what does
    /// not agree or is damaged, a line each. Walks everything.
    async fn check(&self) -> Result<Vec<String>>;

    async fn scrub_state(&self) -> Result<ScrubState>;
    /// Keeps a pass: as the running one, or as the last one and none running when it completed.
    async fn save_scrub(&self, pass: ScrubPass) -> Result<()>;
}
