//! Whether the daemon can do its work.

use super::{App, Result};
use crate::{meta::upkeep::ScrubState, model::time::UnixMillis};

/// What `/healthz` says.
pub struct Health {
    pub free_bytes: u64,
    /// The index takes writes.
    pub index: bool,
    /// The blob store takes writes.
    pub blobs: bool,
    /// `None` when the index cannot be read.
    pub content: Option<ContentHealth>,
}

/// Whether stored content is intact, as far as is known.
pub struct ContentHealth {
    pub damaged_blobs: u64,
    /// When the last pass over all content ended. It found whatever damage was not known before.
    pub scrub_completed: Option<UnixMillis>,
    pub scrub_running: bool,
    /// The last pass ended, or the first one began, longer ago than two passes should be apart.
    pub scrub_overdue: bool,
}

impl Health {
    /// Both stores take writes.
    pub fn writable(&self) -> bool {
        self.index && self.blobs
    }
}

impl App {
    pub async fn health(&self) -> Health {
        let index = self.meta.ready().await.is_ok();
        let content = self.content_health().await;
        let content = content
            .inspect_err(|error| tracing::warn!(%error, "the counts of damage cannot be read"))
            .ok();
        match self.blobs.space().await {
            Ok(space) => {
                Health { free_bytes: space.free_bytes, index, blobs: space.writable, content }
            }
            Err(error) => {
                tracing::warn!(%error, "the free space of the blob store cannot be read");
                Health { free_bytes: 0, index, blobs: false, content }
            }
        }
    }

    /// Takes the path of every write, and asks the disk. An error says what is wrong; if nothing
    /// returns, something hangs.
    pub async fn self_check(&self) -> Result<()> {
        self.blobs.space().await?;
        Ok(self.meta.probe().await?)
    }

    async fn content_health(&self) -> Result<ContentHealth> {
        let ScrubState { running, last } = self.meta.scrub_state().await?;
        // A first pass that does not end is overdue too.
        let since = match last {
            Some(last) => last.completed,
            None => running.map(|pass| pass.began),
        };
        let late =
            |since: UnixMillis| since.after(self.policy().scrub_every * 2) < self.clock.now();
        Ok(ContentHealth {
            damaged_blobs: self.meta.damaged_count().await?,
            scrub_completed: last.and_then(|last| last.completed),
            scrub_running: running.is_some(),
            scrub_overdue: since.is_some_and(late),
        })
    }
}
