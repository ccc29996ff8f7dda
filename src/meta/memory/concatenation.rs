//! Concatenations in the reference engine.

use async_trait::async_trait;

use super::{MemoryMetadata, State};
use crate::{
    meta::{Concatenations, Error, Part, Result},
    model::{
        id::UploadId,
        time::UnixMillis,
        upload::{Upload, UploadState},
    },
};

impl State {
    fn partials(&self, id: UploadId) -> Vec<UploadId> {
        self.concatenations.get(&id).cloned().unwrap_or_default()
    }

    fn final_of(&self, id: UploadId) -> Option<UploadId> {
        let is_open = |of: &UploadId| {
            self.uploads.get(of).is_some_and(|upload| upload.state == UploadState::Open)
        };
        let mut all = self.concatenations.iter();
        all.find(|(of, ids)| is_open(of) && ids.contains(&id)).map(|(of, _)| *of)
    }

    /// The sum of the revisions of a session's partial sessions.
    pub(super) fn revision_of_partials(&self, id: UploadId) -> Result<u64> {
        let partials = self.partials(id).into_iter();
        partials.map(|id| self.open_upload(id).map(|partial| partial.revision)).sum()
    }

    /// Ends the partial sessions of a session and returns the bytes that they reserved, and their
    /// parts.
    pub(super) fn end_partials(&mut self, id: UploadId) -> (u64, Vec<Part>) {
        let (mut released, mut parts) = (0, Vec::new());
        for id in self.partials(id) {
            released += self.uploads.remove(&id).map_or(0, |partial| partial.reserved());
            parts.extend(self.remove_parts(id));
        }
        (released, parts)
    }
}

#[async_trait]
impl Concatenations for MemoryMetadata {
    async fn create_final(
        &self,
        upload: Upload,
        partials: Vec<UploadId>,
        now: UnixMillis,
    ) -> Result<()> {
        self.step(|state| {
            state.user(&upload.owner, now);
            for (at, id) in partials.iter().enumerate() {
                let partial = state.open_upload(*id).map_err(|_| Error::NotFound)?;
                if partial.owner != upload.owner || !partial.mode.is_partial() {
                    return Err(Error::NotFound);
                }
                if partials[..at].contains(id) || state.final_of(*id).is_some() {
                    return Err(Error::Exists);
                }
            }
            state.concatenations.insert(upload.id, partials);
            state.uploads.insert(upload.id, upload);
            Ok(())
        })
    }

    async fn partials(&self, id: UploadId) -> Result<Vec<UploadId>> {
        Ok(self.read().partials(id))
    }

    async fn final_of(&self, id: UploadId) -> Result<Option<UploadId>> {
        Ok(self.read().final_of(id))
    }
}
