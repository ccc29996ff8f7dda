//! Upkeep on the reference engine.

use async_trait::async_trait;

use super::{BlobRecord, MemoryMetadata, Part, Result, State, behind};
use crate::{
    meta::upkeep::{ScrubPass, ScrubState, Upkeep},
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
        time::UnixMillis,
    },
};

/// The record of a blob, if it names `locator`.
fn lying_at<'a>(
    state: &'a mut State,
    hash: &ContentHash,
    locator: &Locator,
) -> Option<&'a mut BlobRecord> {
    state.blobs.get_mut(hash).filter(|blob| blob.locator == *locator)
}

#[async_trait]
impl Upkeep for MemoryMetadata {
    async fn begun(&self, now: UnixMillis) -> Result<UnixMillis> {
        self.step(|state| Ok(*state.begun.get_or_insert(now)))
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }

    async fn parts_after(
        &self,
        after: Option<(UploadId, PartNumber)>,
        limit: usize,
    ) -> Result<Vec<((UploadId, PartNumber), Locator)>> {
        let state = self.read();
        let parts = state.parts.range(behind(after)).take(limit);
        Ok(parts.map(|(key, part)| (*key, part.place.clone())).collect())
    }

    async fn blobs_after(
        &self,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Vec<(ContentHash, BlobRecord)>> {
        let state = self.read();
        let blobs = state.blobs.range(behind(after)).take(limit);
        Ok(blobs.map(|(hash, blob)| (*hash, blob.clone())).collect())
    }

    async fn relocate_blob(
        &self,
        hash: &ContentHash,
        from: &Locator,
        to: &Locator,
    ) -> Result<bool> {
        self.step(|state| {
            let Some(blob) = lying_at(state, hash, from) else { return Ok(false) };
            *blob = BlobRecord { locator: to.clone(), damaged: None, ..*blob };
            Ok(true)
        })
    }

    async fn mark_damaged(
        &self,
        hash: &ContentHash,
        locator: &Locator,
        now: UnixMillis,
    ) -> Result<bool> {
        self.step(|state| {
            let Some(blob) = lying_at(state, hash, locator) else { return Ok(false) };
            blob.damaged.get_or_insert(now);
            Ok(true)
        })
    }

    async fn unmark_damaged(&self, hash: &ContentHash, locator: &Locator) -> Result<bool> {
        self.step(|state| {
            let blob = lying_at(state, hash, locator);
            Ok(blob.and_then(|blob| blob.damaged.take()).is_some())
        })
    }

    async fn damaged_count(&self) -> Result<u64> {
        Ok(self.read().blobs.values().filter(|blob| blob.damaged.is_some()).count() as u64)
    }

    async fn forget_parts(&self, id: UploadId, parts: Vec<Part>) -> Result<Vec<Part>> {
        self.step(|state| {
            let mut upload = state.open_upload(id)?;
            let before = upload.reserved();
            let mut forgotten = Vec::new();
            for part in parts {
                if state.parts.get(&(id, part.number)) == Some(&part) {
                    state.parts.remove(&(id, part.number));
                    upload.received -= part.size;
                    upload.revision += 1;
                    forgotten.push(part);
                }
            }
            state.reserved_changes(&upload.owner, before, upload.reserved());
            state.uploads.insert(id, upload);
            Ok(forgotten)
        })
    }

    async fn check(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn scrub_state(&self) -> Result<ScrubState> {
        Ok(self.read().scrub)
    }

    async fn save_scrub(&self, pass: ScrubPass) -> Result<()> {
        self.step(|state| {
            state.scrub = match pass.completed {
                Some(_) => ScrubState { running: None, last: Some(pass) },
                None => ScrubState { running: Some(pass), ..state.scrub },
            };
            Ok(())
        })
    }
}
