//! A store that does what another store does, until it is told to fail.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use streamlined::{
    blob::{
        Address, Begun, BlobStore, Error, Join, Purpose, Reader, Result, Sealed, Site, Space,
        Stage, Vacate,
        upkeep::{Found, Freed, Pace, Seen, Shelf, Survey},
    },
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
        range::Slice,
        time::UnixMillis,
    },
};

pub struct Faulty {
    pub store: Box<dyn BlobStore>,
    /// How many copies a survey can still make before the disk is full.
    pub copies: Arc<AtomicUsize>,
    /// Whether every verification fails with an I/O error.
    pub unreadable: AtomicBool,
    /// How many blobs can still be verified. The next verification notifies `stuck` and never ends.
    pub verified_max: AtomicUsize,
    pub stuck: tokio::sync::Notify,
    /// Runs once, before the next open of a blob: after its record was read from the index.
    pub before_open: Mutex<Option<BoxFuture<'static, ()>>>,
    /// Run once, before the next part begins and before the next parts are joined.
    pub before_part: Mutex<Option<BoxFuture<'static, ()>>>,
    pub before_join: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    pub seals: Arc<Seals>,
}

/// Stops callers between a seal and the record that follows.
#[derive(Default)]
pub struct Seals {
    pub pause: AtomicBool,
    pub sealed: AtomicUsize,
    pub go_on: tokio::sync::Notify,
}

impl Faulty {
    pub fn new(store: impl BlobStore + 'static) -> Self {
        let copies = Arc::new(AtomicUsize::new(usize::MAX));
        Self {
            store: Box::new(store),
            copies,
            unreadable: AtomicBool::new(false),
            verified_max: AtomicUsize::new(usize::MAX),
            stuck: tokio::sync::Notify::new(),
            before_open: Mutex::default(),
            before_part: Mutex::default(),
            before_join: Arc::default(),
            seals: Arc::default(),
        }
    }
}

#[async_trait]
impl BlobStore for Faulty {
    async fn stage(&self) -> Result<Box<dyn Stage>> {
        let stage = self.store.stage().await?;
        Ok(Box::new(Paused { stage, seals: Arc::clone(&self.seals) }))
    }

    async fn stage_part(&self, upload: UploadId, number: PartNumber) -> Result<Begun> {
        let before = self.before_part.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        let Begun { stage, lowest } = self.store.stage_part(upload, number).await?;
        let stage = Box::new(Paused { stage, seals: Arc::clone(&self.seals) });
        Ok(Begun { stage, lowest })
    }

    async fn join(&self, upload: UploadId) -> Result<Box<dyn Join>> {
        let join = self.store.join(upload).await?;
        Ok(Box::new(Delayed { join, before: Arc::clone(&self.before_join) }))
    }

    async fn open(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        let before = self.before_open.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        self.store.open(blob, slice).await
    }

    async fn prove(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        self.store.prove(blob, slice).await
    }

    async fn crc32(&self, blob: &Address) -> Result<u32> {
        self.store.crc32(blob).await
    }

    fn holds_blob(&self, locator: &Locator) -> bool {
        self.store.holds_blob(locator)
    }

    async fn discard(&self, locator: &Locator) -> Result<u64> {
        self.store.discard(locator).await
    }

    async fn vacate(&self, part: &Locator) -> Result<Option<Box<dyn Vacate>>> {
        self.store.vacate(part).await
    }

    async fn end(&self, upload: UploadId) -> Result<u64> {
        self.store.end(upload).await
    }

    async fn space(&self) -> Result<Space> {
        self.store.space().await
    }

    async fn verify(&self, hash: &ContentHash, locator: &Locator, pace: &dyn Pace) -> Result<u64> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(Error::Io("Input/output error (os error 5)".into()));
        }
        let left = |left: usize| left.checked_sub(1);
        let max = &self.verified_max;
        if max.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            self.stuck.notify_one();
            std::future::pending::<()>().await;
        }
        self.store.verify(hash, locator, pace).await
    }

    async fn look(&self, blobs: Vec<Locator>) -> Result<Vec<Seen>> {
        self.store.look(blobs).await
    }

    async fn list(&self, shelf: Shelf) -> Result<Vec<Found>> {
        self.store.list(shelf).await
    }

    async fn copy(
        &self,
        to: &std::path::Path,
        changed: &std::path::Path,
    ) -> Result<streamlined::blob::upkeep::Copied> {
        self.store.copy(to, changed).await
    }

    async fn survey(
        &self,
        after: UnixMillis,
        before: UnixMillis,
    ) -> Result<Option<Box<dyn Survey>>> {
        let Some(survey) = self.store.survey(after, before).await? else { return Ok(None) };
        Ok(Some(Box::new(FullDisk { survey, copies: Arc::clone(&self.copies) })))
    }

    fn discarded_bytes(&self) -> u64 {
        self.store.discarded_bytes()
    }
}

struct Delayed {
    join: Box<dyn Join>,
    before: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
}

impl Delayed {
    async fn join(self) -> Box<dyn Join> {
        let before = self.before.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        self.join
    }
}

#[async_trait]
impl Join for Delayed {
    async fn assemble(self: Box<Self>, parts: Vec<Address>, may_overwrite: bool) -> Result<Sealed> {
        (*self).join().await.assemble(parts, may_overwrite).await
    }

    async fn promote(self: Box<Self>, part: &Address) -> Result<Locator> {
        (*self).join().await.promote(part).await
    }
}

struct Paused {
    stage: Box<dyn Stage>,
    seals: Arc<Seals>,
}

#[async_trait]
impl Stage for Paused {
    fn place(&mut self, site: Site) {
        self.stage.place(site);
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.stage.write(bytes).await
    }

    async fn seal(&mut self, purpose: Purpose) -> Result<Sealed> {
        let sealed = self.stage.seal(purpose).await;
        let seals = &self.seals;
        if seals.pause.load(Ordering::SeqCst) {
            let go_on = seals.go_on.notified();
            tokio::pin!(go_on);
            go_on.as_mut().enable();
            seals.sealed.fetch_add(1, Ordering::SeqCst);
            go_on.await;
        }
        sealed
    }
}

struct FullDisk {
    survey: Box<dyn Survey>,
    copies: Arc<AtomicUsize>,
}

#[async_trait]
impl Survey for FullDisk {
    fn keep(&mut self, locator: &Locator) {
        self.survey.keep(locator);
    }

    fn pin(&mut self, locator: &Locator) {
        self.survey.pin(locator);
    }

    async fn free_dead(&mut self) -> Result<Freed> {
        self.survey.free_dead().await
    }

    fn has_sparse(&self) -> bool {
        self.survey.has_sparse()
    }

    fn is_sparse(&self, locator: &Locator) -> bool {
        self.survey.is_sparse(locator)
    }

    async fn copy(&self, hash: &ContentHash, locator: &Locator) -> Result<(u64, Locator)> {
        let left = |left: usize| left.checked_sub(1);
        match self.copies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => self.survey.copy(hash, locator).await,
            Err(_) => Err(Error::NoSpace),
        }
    }
}
