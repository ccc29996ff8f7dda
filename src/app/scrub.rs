//! Scrub: reads all stored content again, so that damage is found while another copy of the content
//! exists somewhere.
//!
//! A pass walks all blobs in order of their hashes and keeps its place in the index, so that it
//! continues there after a restart. A blob that does not match its hash, or is missing, is damaged:
//! it is marked, and refused to readers from then on. A blob that cannot be read to its end is only
//! reported. A disk that failed once may succeed the next time, a reader is refused by the failure
//! itself, and a mark would outlive the trouble until the next pass.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{App, Error, Result};
use crate::{
    blob::{self, upkeep::Pace},
    meta::{
        BlobRecord,
        upkeep::{ScrubPass, ScrubState},
    },
    metrics::stores,
    model::{digest::ContentHash, locator::Locator},
};

/// Blobs read from the index at a time.
const PAGE: usize = 200;
/// A pass saves its place after so many blobs, or after so much time.
const KEEP_BLOBS: u64 = 1000;
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Limits how fast a pass reads.
struct Throttle {
    bytes_per_second: u64,
    began: Instant,
    next: Mutex<Duration>,
}

/// Time without reading, up to this much, may be made up for.
const CREDIT: Duration = Duration::from_secs(1);

impl Throttle {
    fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1);
        Self { bytes_per_second, began: Instant::now(), next: Mutex::default() }
    }

    /// How long to wait at `now` after `bytes` were read.
    fn wait(&self, now: Duration, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now.saturating_sub(CREDIT)).saturating_add(cost);
        next.saturating_sub(now)
    }
}

#[async_trait]
impl Pace for Throttle {
    async fn took(&self, bytes: u64) {
        let wait = self.wait(self.began.elapsed(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The result of checking one blob.
enum Checked {
    Good(u64),
    Damaged,
    Unreadable,
    /// Its record names other, newer bytes by now, or it is gone.
    Moved,
}

impl App {
    /// Continues a pass, or begins one when it is due, and returns zero at its end. If none is due,
    /// returns how long it is until the next one.
    ///
    /// # Errors
    /// Those of the index; the pass continues from its last place when this is called again.
    pub async fn scrub_when_due(&self) -> Result<Duration> {
        let state = self.meta.scrub_state().await?;
        let now = self.clock.now();
        let pass = match (state.running, state.last) {
            (Some(pass), _) => pass,
            (None, Some(last)) => {
                let due = last.began.after(self.policy().scrub_every);
                // A clock that stepped back must not put the next pass off for ever.
                if last.began <= now && now < due {
                    return Ok(Duration::from_millis(due.0 - now.0));
                }
                ScrubPass::new(now)
            }
            (None, None) => ScrubPass::new(now),
        };
        self.run_scrub(pass, self.policy().scrub_bytes_per_second, true).await?;
        Ok(Duration::ZERO)
    }

    /// How far the current pass is, and what the last one found.
    pub async fn scrub_state(&self) -> Result<ScrubState> {
        Ok(self.meta.scrub_state().await?)
    }

    /// Reads everything again, now and from the start, at `bytes_per_second` at most.
    ///
    /// # Errors
    /// [`Error::Conflict`] while another such pass runs; the errors of the index.
    pub async fn scrub_now(&self, bytes_per_second: u64) -> Result<ScrubPass> {
        let _alone = self.scrubbing.try_lock().map_err(|_| {
            Error::conflict("scrub_running", "A scrub is running; try again when it is done.")
        })?;
        self.run_scrub(ScrubPass::new(self.clock.now()), bytes_per_second, false).await
    }

    async fn run_scrub(
        &self,
        mut pass: ScrubPass,
        bytes_per_second: u64,
        keeps_place: bool,
    ) -> Result<ScrubPass> {
        let pace = Throttle::new(bytes_per_second);
        tracing::info!(began = %pass.began, blobs = pass.blobs, "scrub begins");
        let (mut kept, mut kept_at) = (pass.blobs, Instant::now());
        loop {
            let page = self.meta.blobs_after(pass.position, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for (hash, blob) in page {
                match self.check_blob(&hash, &blob, &pace).await? {
                    Checked::Good(bytes) => pass.bytes = pass.bytes.saturating_add(bytes),
                    Checked::Damaged => pass.damaged += 1,
                    Checked::Unreadable => pass.unreadable += 1,
                    Checked::Moved => {}
                }
                pass.blobs += 1;
                pass.position = Some(hash);
                let is_time = pass.blobs - kept >= KEEP_BLOBS || kept_at.elapsed() >= KEEP_EVERY;
                if keeps_place && is_time {
                    self.meta.save_scrub(pass).await?;
                    (kept, kept_at) = (pass.blobs, Instant::now());
                }
            }
        }
        pass.completed = Some(self.clock.now());
        self.meta.save_scrub(pass).await?;
        let ScrubPass { blobs, bytes, damaged, unreadable, .. } = pass;
        tracing::info!(began = %pass.began, blobs, bytes, damaged, unreadable, "scrub ends");
        Ok(pass)
    }

    /// Reads a blob again from the disk, at full speed.
    pub(super) async fn reread(&self, hash: &ContentHash, at: &Locator) -> blob::Result<u64> {
        self.blobs.verify(hash, at, &Throttle::new(u64::MAX)).await
    }

    async fn check_blob(
        &self,
        hash: &ContentHash,
        blob: &BlobRecord,
        pace: &dyn Pace,
    ) -> Result<Checked> {
        match self.blobs.verify(hash, &blob.locator, pace).await {
            Ok(bytes) => {
                if blob.damaged.is_some() && self.meta.unmark_damaged(hash, &blob.locator).await? {
                    tracing::info!(blob = %hash, "the bytes of a damaged blob are good after all");
                }
                Ok(Checked::Good(bytes))
            }
            Err(error) if error.is_damage() => {
                if !self.meta.mark_damaged(hash, &blob.locator, self.clock.now()).await? {
                    return Ok(Checked::Moved);
                }
                stores::DAMAGE_FOUND.of("scrub").add(1);
                tracing::error!(blob = %hash, %error, "damaged blob found by scrub");
                Ok(Checked::Damaged)
            }
            Err(error) => {
                tracing::error!(blob = %hash, %error, "a blob cannot be read");
                Ok(Checked::Unreadable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_waits_as_long_as_the_bytes_should_take() {
        let seconds = Duration::from_secs;
        let throttle = Throttle::new(100);
        assert_eq!(throttle.wait(seconds(0), 200), seconds(2));
        assert_eq!(throttle.wait(seconds(2), 100), seconds(1));
        // Unused time counts for one second at most.
        assert_eq!(throttle.wait(seconds(60), 100), seconds(0));
        assert_eq!(throttle.wait(seconds(60), 100), seconds(1));
        assert_eq!(Throttle::new(u64::MAX).wait(seconds(0), 1 << 30), seconds(0));
    }
}
