//! What nobody will ask for again: expired sessions, unreferenced blobs, litter of a crash.

use super::{App, Result, upload::upload_error};
use crate::{
    meta,
    model::{time::UnixMillis, upload::UploadState},
};

/// Records taken in one round; the rest waits for the next one.
const ROUND_MAX: usize = 256;

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub uploads: usize,
    pub blobs: usize,
}

impl App {
    /// One round over what is due. Call again while it does anything.
    ///
    /// # Errors
    /// What the stores say; what was done until then stays done.
    pub async fn sweep(&self) -> Result<Swept> {
        let now = self.clock.now();
        let mut swept = Swept::default();
        for id in self.meta.expired(now, ROUND_MAX).await? {
            match self.meta.upload(id).await? {
                Some(upload) => {
                    match self.meta.remove_upload(id).await {
                        Ok(parts) => self.discard_parts(&parts).await,
                        Err(meta::Error::NotFound) => continue,
                        Err(error) => return Err(upload_error(error)),
                    }
                    swept.uploads += usize::from(upload.state == UploadState::Open);
                }
                None => self.meta.remove_batch(id).await?,
            }
        }
        let grace = u64::try_from(self.policy.reclaim_grace.as_millis()).unwrap_or(u64::MAX);
        let before = UnixMillis(now.0.saturating_sub(grace));
        for hash in self.meta.unreferenced_blobs(before, ROUND_MAX).await? {
            // The record first: a crash in between leaves bytes without a name.
            if let Some(locator) = self.meta.forget_blob(&hash).await? {
                self.discard(&locator).await;
                swept.blobs += 1;
            }
        }
        Ok(swept)
    }

    /// Removes parts that a crash left without a session. At start only: later, a part is in the
    /// store a moment before its record.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn sweep_litter(&self) -> Result<usize> {
        let mut removed = 0;
        for (upload, number, locator) in self.blobs.stored_parts().await? {
            if !self.meta.refers_to_part(upload, number, &locator).await? {
                self.discard(&locator).await;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
