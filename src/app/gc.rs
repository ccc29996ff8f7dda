//! Garbage collection: bytes that a crash, or a removal that was held back, left without a record.
//!
//! Bytes are sealed before their record is there, maybe long before, so no age says that they are
//! litter. What no record names is only suspected at first. Then every step that has begun is
//! waited for, since one of them may have sealed the bytes and not recorded them yet; a later step
//! makes names of its own. What is still not named then goes: what the index shows is durable.
//!
//! Nothing from before the index was begun is touched: an index that stands in for a lost one
//! does not know what it should name.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{App, Result, archive::PLANS_BYTES_MAX};
use crate::{
    blob::upkeep::{Found, Owner, Shelf},
    model::{time::UnixMillis, upload::UploadState},
};

/// Suspects that are held in memory at a time.
const SUSPECTS_MAX: usize = 10_000;
/// With less than this free the disk is full, whoever can still write a little.
const FREE_BYTES_MIN: u64 = 128 << 20;

/// By how much clocks differ without a word.
const CLOCK_AHEAD_MAX: Duration = Duration::from_hours(24);

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Sessions that were over.
    pub sessions: usize,
    /// Service tokens that expired long ago.
    pub tokens: usize,
    /// Blobs that no file refers to any more.
    pub blobs: usize,
    /// Files that no record named.
    pub files: usize,
    /// Packs that held nothing that is named, or from which that was moved.
    pub packs: usize,
    /// Bytes that were moved out of packs.
    pub moved_bytes: u64,
    /// Room on the disk that files and packs gave back.
    pub freed_bytes: u64,
}

/// Who removes bytes shares this; who holds removals back has it alone.
#[derive(Default)]
pub struct Removals(RwLock<()>);

impl Removals {
    /// `None` while removals are held back.
    pub fn try_begin(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.0.try_read().ok()
    }

    /// Waits while removals are held back. They may be again a moment later.
    async fn allowed(&self) {
        drop(self.0.read().await);
    }
}

impl App {
    /// Holds back every removal until the answer is dropped, for a backup. What would have been
    /// discarded meanwhile becomes litter; [`App::gc`] waits, upkeep comes back in its next round.
    /// A second one waits for the first.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.removals.0.write().await
    }

    /// Collects everything that is due now, whatever the schedule says; times of grace are kept
    /// unless the disk is full. A step without room keeps none of the others from making some.
    ///
    /// # Errors
    /// What the stores say; what was done until then stays done.
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
            // Whatever began to hold them back may take hours: what is left is found next time.
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

    /// Waits for every step that has begun. When one of them left it open whether its record is
    /// there, which ends all writing, nobody may conclude anything from what is not named.
    pub(super) async fn settled(&self) -> Result<()> {
        self.epochs.wait().await;
        Ok(self.meta.ready().await?)
    }

    /// How long what nobody refers to stays; not at all on a full disk, where it keeps from users
    /// what they deleted to have.
    ///
    /// No step rests on it: a record goes before its bytes, whoever stores the same content again
    /// is told that it is not known any more, packs are walked behind every step that has begun,
    /// and a hold keeps the bytes themselves. Who reads a file has it open. Only archives and
    /// answers of several ranges open one thing after the other: see [`App::keep_deleted`].
    pub(super) async fn reclaim_grace(&self) -> Result<Duration> {
        let opens_more = self.archives.available_permits() < PLANS_BYTES_MAX;
        let is_full = self.blobs.space().await?.free_bytes < FREE_BYTES_MIN;
        let no_grace = is_full && !opens_more;
        Ok(if no_grace { Duration::ZERO } else { self.policy().reclaim_grace })
    }

    /// As long as this lives, what is deleted keeps its grace time, whoever needs the room: there
    /// is more to open. `None` where archives take all there is of it; they keep it then.
    pub fn keep_deleted(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.archives).try_acquire_owned().ok()
    }

    /// Bytes last changed between these two times may be collected.
    pub(super) async fn collectable(&self) -> Result<(UnixMillis, UnixMillis)> {
        let now = self.clock.now();
        let begun = self.meta.begun(now).await?;
        if begun > now.after(CLOCK_AHEAD_MAX) {
            // Or this one is behind: which, nobody can tell from one look.
            tracing::warn!(%begun, "the index was begun by another clock: litter stays until then");
        }
        Ok((begun, now.before(self.reclaim_grace().await?)))
    }
}
