//! What garbage collection and scrub need of the index: walks in pages, blobs that move, damaged
//! blobs and parts, and the progress of a scrub.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BlobRecord, Part, Result};
use crate::model::{
    digest::ContentHash,
    id::{PartNumber, UploadId},
    locator::Locator,
    time::UnixMillis,
};

/// One pass of a scrub over all blobs. Stored exactly as declared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubPass {
    pub began: UnixMillis,
    /// When the pass finished the last blob.
    pub completed: Option<UnixMillis>,
    /// The last blob that was checked. Blobs are checked in order of their hashes.
    pub position: Option<ContentHash>,
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs whose bytes are not what was stored, or are missing.
    pub damaged: u64,
    /// Blobs that could not be read to the end, so that their content is unknown.
    pub unreadable: u64,
}

impl ScrubPass {
    /// A pass that has checked nothing yet.
    pub fn new(began: UnixMillis) -> Self {
        let (completed, position) = (None, None);
        Self { began, completed, position, blobs: 0, bytes: 0, damaged: 0, unreadable: 0 }
    }
}

/// The running pass, which continues after a restart, and the last completed pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    pub running: Option<ScrubPass>,
    pub last: Option<ScrubPass>,
}

/// See the module. The promises of [`super::Metadata`] hold here too.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// When this index was begun. The first call sets this time to `now`. Bytes that are older must
    /// not be collected for lack of a record: this index may replace one that was lost.
    async fn begun(&self, now: UnixMillis) -> Result<UnixMillis>;
    /// Commits a step that changes nothing, all the way to the disk and back.
    async fn probe(&self) -> Result<()>;

    /// The locators of parts, in order of session and number, after `after`, at most `limit`.
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
    /// Points a blob's record from `from` to `to`, a copy that was checked a moment ago, and
    /// removes the blob's damage mark. Returns `false` when the record no longer names `from`.
    async fn relocate_blob(&self, hash: &ContentHash, from: &Locator, to: &Locator)
    -> Result<bool>;

    /// Marks a blob whose bytes at `locator` are not what was stored. A blob that is already marked
    /// keeps the time of its mark. The mark is removed when the record names other bytes, or is
    /// removed itself. Returns `false` when the record does not name `locator`.
    async fn mark_damaged(
        &self,
        hash: &ContentHash,
        locator: &Locator,
        now: UnixMillis,
    ) -> Result<bool>;
    /// Removes a blob's damage mark. Returns `false` when there is none, or the record does not
    /// name `locator`.
    async fn unmark_damaged(&self, hash: &ContentHash, locator: &Locator) -> Result<bool>;
    /// The number of blobs that are marked as damaged.
    async fn damaged_count(&self) -> Result<u64>;

    /// Removes, from an open session, those of `parts` that are still recorded exactly as given,
    /// and returns them. Their bytes are not what was stored, or they follow such a part in a
    /// session that is written in order. The client may send them again.
    ///
    /// # Errors
    /// [`super::Error::NotFound`], [`super::Error::Closed`].
    async fn forget_parts(&self, id: UploadId, parts: Vec<Part>) -> Result<Vec<Part>>;

    /// Checks the index against itself, reads what it can be rebuilt from, and returns what does
    /// not agree or is damaged, a line each. Walks everything.
    async fn check(&self) -> Result<Vec<String>>;

    async fn scrub_state(&self) -> Result<ScrubState>;
    /// Saves a pass: as the running one, or, if it is completed, as the last one; then no pass is
    /// running.
    async fn save_scrub(&self, pass: ScrubPass) -> Result<()>;
}
