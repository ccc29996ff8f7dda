//! Garbage collection: removes bytes without a record, which a crash or a held-back removal left.
//!
//! Bytes are sealed before their record exists, maybe long before, so no age proves that they are
//! litter. Bytes that no record names are only suspects at first. Then the collection waits for
//! every step that has begun, since one of them may have sealed the bytes and not recorded them
//! yet; a later step makes names of its own. Suspects that are still not named are removed: what
//! the index shows is durable.
//!
//! Nothing from before the index was begun is touched: an index that replaces a lost one does not
//! know what it should name.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{App, Result, archive::PLANS_BYTES_MAX};
use crate::{
    blob::upkeep::{Found, Owner, Shelf},
    model::{time::UnixMillis, upload::UploadState},
};

/// Most suspects held in memory at a time.
const SUSPECTS_MAX: usize = 10_000;
/// With fewer free bytes than this the disk counts as full, even if small writes still succeed.
const FREE_BYTES_MIN: u64 = 128 << 20;

/// The largest difference between clocks that causes no warning.
const CLOCK_AHEAD_MAX: Duration = Duration::from_hours(24);

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Sessions whose time was over.
    pub sessions: usize,
    /// Service tokens that expired long ago.
    pub tokens: usize,
    /// Blobs that no file refers to any more.
    pub blobs: usize,
    /// Files on the disk that no record named.
    pub files: usize,
    /// Packs that held nothing named, or whose named bytes were moved out.
    pub packs: usize,
    /// Bytes that were moved out of packs.
    pub moved_bytes: u64,
    /// Disk space that files and packs gave back.
    pub freed_bytes: u64,
}

/// A lock that removers share; a caller that holds removals back has it exclusively.
#[derive(Default)]
pub struct Removals(RwLock<()>);

impl Removals {
    /// `None` while removals are held back.
    pub fn try_begin(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.0.try_read().ok()
    }

    /// Waits while removals are held back. They may be held back again a moment later.
    async fn allowed(&self) {
        drop(self.0.read().await);
    }
}

impl App {
    /// Holds back every removal until the guard is dropped, for a backup. Bytes that would have
    /// been discarded meanwhile become litter. [`App::gc`] waits for the guard; upkeep tries again
    /// in its next round. A second call waits for the first guard.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.removals.0.write().await
    }

    /// Collects everything that is due now, whatever the schedule says. Grace times are kept,
    /// except that of unreferenced content on a full disk (see `reclaim_grace`). A step that
    /// finds no room does not keep the others from making some.
    ///
    /// # Errors
    /// Those of the stores; what was done before stays done.
    pub async fn gc(self: &Arc<Self>) -> Result<Collected> {
        let mut collected = Collected::default();
        let swept = self.sweep(&mut collected).await;
        self.removals.allowed().await;
        let cleared = self.collect_litter(&mut collected).await;
        let compacted = self.compact(&mut collected).await;
        swept.and(cleared).and(compacted).map(|()| collected)
    }

    /// Removes files that no record names.
    pub(super) async fn collect_litter(&self, collected: &mut Collected) -> Result<()> {
        let _alone = self.upkeep.alone().await;
        let now = self.clock.now();
        let begun = self.meta.begun(now).await?;
        let mut shelves = (0..=u8::MAX).map(Shelf::Blobs).chain([Shelf::Parts]).peekable();
        while shelves.peek().is_some() {
            let mut suspects = Vec::new();
            while suspects.len() < SUSPECTS_MAX
                && let Some(shelf) = shelves.next()
            {
                let old_enough = begun..now.before(match shelf {
                    Shelf::Blobs(_) => self.policy().reclaim_grace,
                    Shelf::Parts => self.policy().upload_ttl,
                });
                for found in self.blobs.list(shelf).await? {
                    if old_enough.contains(&found.since) && !self.is_named(&found).await? {
                        suspects.push(found);
                    }
                }
            }
            if !suspects.is_empty() {
                self.remove_litter(suspects, collected).await?;
            }
        }
        Ok(())
    }

    async fn remove_litter(&self, suspects: Vec<Found>, collected: &mut Collected) -> Result<()> {
        self.settled().await?;
        let mut litter = Vec::new();
        for found in suspects {
            if !self.is_named(&found).await? {
                litter.push(found);
            }
        }
        for found in litter {
            // Removals may be held back for hours: the next collection finds the rest.
            let Some(_allowed) = self.removals.try_begin() else { break };
            collected.freed_bytes += self.blobs.discard(&found.locator).await?;
            collected.files += 1;
        }
        Ok(())
    }

    /// Whether the record of these bytes' owner names them.
    async fn is_named(&self, found: &Found) -> Result<bool> {
        Ok(match found.owner {
            Owner::Blob(hash) => {
                let blob = self.meta.blob(&hash).await?;
                blob.is_some_and(|blob| blob.locator == found.locator)
            }
            Owner::Part(upload, number) => {
                self.meta.refers_to_part(upload, number, &found.locator).await?
            }
            Owner::Upload(upload) => {
                let upload = self.meta.upload(upload).await?;
                upload.is_some_and(|upload| upload.state == UploadState::Open)
            }
        })
    }

    /// Waits for every step that has begun. If one of them left it open whether its record exists,
    /// the index takes no more writes, and this fails: then nothing may be concluded from unnamed
    /// bytes.
    pub(super) async fn settled(&self) -> Result<()> {
        self.epochs.wait().await;
        Ok(self.meta.ready().await?)
    }

    /// How long unreferenced content stays. On a full disk it does not stay at all, as it would
    /// keep from users the room that their deletions should free.
    ///
    /// No step relies on this time: a record is removed before its bytes; a request that stores the
    /// same content again is told that the content is no longer known; packs are walked only after
    /// every step that had begun has ended; and a hold keeps the bytes themselves. A reader has its
    /// file open. Only archives and answers of several ranges open one thing after the other: see
    /// [`App::keep_deleted`].
    pub(super) async fn reclaim_grace(&self) -> Result<Duration> {
        let opens_more = self.archives.available_permits() < PLANS_BYTES_MAX;
        let is_full = self.blobs.space().await?.free_bytes < FREE_BYTES_MIN;
        let no_grace = is_full && !opens_more;
        Ok(if no_grace { Duration::ZERO } else { self.policy().reclaim_grace })
    }

    /// While this permit lives, deleted content keeps its grace time even on a full disk, since its
    /// holder has more to open. `None` when archives hold all permits; then they keep the grace
    /// time.
    pub fn keep_deleted(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.archives).try_acquire_owned().ok()
    }

    /// The two times between which bytes must have last changed to be collected.
    pub(super) async fn collectable(&self) -> Result<(UnixMillis, UnixMillis)> {
        let now = self.clock.now();
        let begun = self.meta.begun(now).await?;
        if begun > now.after(CLOCK_AHEAD_MAX) {
            // Or this clock is behind: one look cannot tell which.
            tracing::warn!(
                %begun,
                "by this clock, the index was begun in the future: litter stays until then"
            );
        }
        Ok((begun, now.before(self.reclaim_grace().await?)))
    }
}
