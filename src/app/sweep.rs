//! Sweep: removes what nobody will ask for again. These are expired sessions and selections,
//! unreferenced blobs, and service tokens that expired long ago.

use std::time::Duration;

use super::{App, Result, gc::Collected};
use crate::{
    meta::{self, Removal},
    model::{id::UploadId, time::UnixMillis},
};

/// Records taken in one round; the rest waits for the next one.
const ROUND_MAX: usize = 256;
/// How long a token stays listed after its expiry, for whoever investigates what happened.
const EXPIRED_TOKENS_KEPT: Duration = Duration::from_hours(90 * 24);

impl App {
    /// Sweeps until nothing that is due is left.
    ///
    /// # Errors
    /// Those of the stores; what was done before stays done.
    pub async fn sweep(&self, collected: &mut Collected) -> Result<()> {
        while self.sweep_round(collected).await? {}
        Ok(())
    }

    /// One round. Returns whether something is left for the next one.
    async fn sweep_round(&self, collected: &mut Collected) -> Result<bool> {
        let now = self.clock.now();
        // Blobs first, and whatever becomes of the others: they give room back, and the disk may be
        // full.
        let blobs = self.sweep_blobs(now, collected).await;
        if !self.trusts_clock() {
            return blobs;
        }
        let sessions = self.sweep_sessions(now, collected).await;
        let long_ago = now.before(EXPIRED_TOKENS_KEPT);
        let tokens = self.meta.forget_expired_tokens(long_ago, ROUND_MAX).await?;
        collected.tokens += tokens;
        let selections = self.meta.forget_selections(now, ROUND_MAX).await?;
        let (blobs, sessions) = (blobs?, sessions?);
        Ok(blobs || sessions || selections || tokens == ROUND_MAX)
    }

    async fn sweep_sessions(&self, now: UnixMillis, collected: &mut Collected) -> Result<bool> {
        let expired = self.meta.collect_expired(now, ROUND_MAX).await?;
        let before = collected.sessions;
        for id in expired.ids {
            match self.expire(id, now, collected).await {
                Ok(true) => collected.sessions += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(upload = %id, %error, "an expired upload was not removed");
                }
            }
        }
        // Sessions that cannot be removed wait for the next sweep.
        Ok(expired.more && collected.sessions > before)
    }

    async fn sweep_blobs(&self, now: UnixMillis, collected: &mut Collected) -> Result<bool> {
        let before = now.before(self.reclaim_grace().await?);
        let unreferenced = self.meta.unreferenced_blobs(before, ROUND_MAX).await?;
        let more = unreferenced.len() == ROUND_MAX;
        for hash in unreferenced {
            // The record first: a crash in between leaves bytes without a name.
            if let Some(locator) = self.meta.forget_blob(&hash, before).await? {
                collected.freed_bytes += self.discard(&locator).await;
                collected.blobs += 1;
            }
        }
        Ok(more)
    }

    /// Removes an expired session or batch. Returns whether it is gone; one for which bytes are
    /// arriving stays.
    async fn expire(
        &self,
        id: UploadId,
        now: UnixMillis,
        collected: &mut Collected,
    ) -> Result<bool> {
        let batch = self.meta.batch(id).await?;
        let alone = [id];
        let uploads = batch.as_ref().map_or(&alone[..], |batch| &batch.uploads);
        if uploads.iter().any(|upload| self.arrivals.has(*upload)) {
            return Ok(false);
        }
        let removed = match batch {
            None => self.meta.remove_upload(id, Removal::ExpiredBy(now)).await,
            Some(_) => self.meta.remove_batch(id).await.map(|()| Vec::new()),
        };
        match removed {
            Ok(parts) => {
                collected.freed_bytes += self.discard_parts(&parts).await + self.end(id).await;
            }
            // Gone already, or a part came a moment ago, so that the session lives on.
            Err(meta::Error::NotFound | meta::Error::Changed) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }
}
