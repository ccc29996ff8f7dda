//! The store of one machine: local files. See `docs/DESIGN.md` for the layout and its figures.

mod assemble;
mod assembly;
mod blocking;
mod buffers;
mod content;
mod copy;
mod lane;
mod layout;
mod look;
mod pack;
mod placed;
mod prove;
mod read;
mod running;
mod spill;
mod stage;
mod survey;
mod trailer;
mod vacate;
mod verify;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use rustix::fs::{StatVfsMountFlags, statvfs};
use tokio::sync::Semaphore;

use self::{
    assemble::Joining,
    assembly::{Assemblies, Member},
    blocking::blocking,
    buffers::Buffers,
    content::Content,
    layout::{Layout, Place, changed},
    pack::{PACK_BYTES_MAX, Packer, Packs},
    prove::hash_bare,
    stage::DiskStage,
    vacate::Vacating,
};
use super::{
    Address, Begun, BlobStore, Error, Join, Reader, Result, Space, Stage, Vacate,
    upkeep::{Copied, Found, Owner, Pace, Seen, Shelf, Survey},
};
use crate::{
    metrics::stores,
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
        range::Slice,
        time::UnixMillis,
    },
    sys::durable,
};

/// See the module.
pub struct DiskBlobs(Arc<Inner>);

/// State shared by stages and readers.
pub struct Inner {
    layout: Layout,
    health: Arc<Health>,
    packer: Packer,
    packs: Packs,
    /// Contents up to this size are packed.
    pack_bytes_max: usize,
    assembling: Semaphore,
    buffers: Arc<Buffers>,
    assemblies: Assemblies,
    /// Packed bytes that were discarded since the start.
    discarded: AtomicU64,
}

/// Whether the disk can still be trusted. After a failed sync the kernel may have dropped the
/// bytes, and a second sync would not report it. So after the first failure no write is taken until
/// a restart reads the disk anew.
#[derive(Default)]
pub struct Health(OnceLock<String>);

impl Health {
    fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |failure| Err(Error::Io(failure.clone())))
    }

    /// Records the outcome of a sync. A sync that found no room has lost only bytes that were not
    /// acknowledged; any other failure ends all writing.
    fn synced(&self, outcome: io::Result<()>) -> Result<()> {
        outcome.map_err(|error| {
            if Error::from(io::Error::from(error.kind())) == Error::NoSpace {
                return Error::NoSpace;
            }
            let failure = format!("a sync failed: {error}");
            if self.0.set(failure.clone()).is_ok() {
                tracing::error!(%error, "sync failed; no more blobs are taken until a restart");
            }
            Error::Io(failure)
        })
    }
}

impl Inner {
    fn file(&self, place: &Place) -> Result<PathBuf> {
        self.layout.file(place).ok_or_else(|| Error::Corrupt("not a file's locator".into()))
    }

    /// Makes the bytes of a file durable. Blocks.
    fn sync(&self, file: &File) -> Result<()> {
        self.health.synced(stores::SYNC_SECONDS.of("file").time(|| file.sync_data()))
    }

    /// Makes the name of a file durable. Blocks.
    fn sync_parent(&self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |dir| self.health.synced(durable::sync_dir(dir)))
    }
}

impl DiskBlobs {
    /// Opens or creates the store below `data_dir`. Blocks.
    ///
    /// # Errors
    /// When the directories cannot be created or read.
    pub fn open(data_dir: &Path, pack_bytes_max: usize) -> io::Result<Self> {
        Self::open_with(data_dir, pack_bytes_max, PACK_BYTES_MAX)
    }

    /// As [`DiskBlobs::open`], with packs that are closed at another length than usual, so that
    /// tests soon have many.
    ///
    /// # Errors
    /// As [`DiskBlobs::open`].
    pub fn open_with(
        data_dir: &Path,
        pack_bytes_max: usize,
        closed_at_bytes: u64,
    ) -> io::Result<Self> {
        let layout = Layout::prepare(data_dir)?;
        let health = Arc::new(Health::default());
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self(Arc::new(Inner {
            packer: Packer::start(layout.clone(), Arc::clone(&health), closed_at_bytes)?,
            packs: Packs::new(layout.clone()),
            layout,
            health,
            pack_bytes_max,
            assembling: Semaphore::new(cores),
            buffers: Arc::default(),
            assemblies: Assemblies::default(),
            discarded: AtomicU64::new(0),
        })))
    }

    /// Whether nothing is stored here: no blob, and no part of an upload. Blocks.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        let layout = &self.0.layout;
        let mut shelves = (0..=u8::MAX).map(Shelf::Blobs).chain([Shelf::Parts]);
        let holds_files = shelves.try_fold(false, |any, shelf| {
            Ok::<_, io::Error>(any || !layout.list(shelf)?.is_empty())
        })?;
        Ok(!holds_files && layout.packs_found()?.is_empty())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || job(&inner)).await
    }
}

/// Removes a file if it exists; answers how many bytes of disk this freed. That is 0 for a file
/// that has another name, as a part that became a blob has.
fn remove(path: &Path) -> io::Result<u64> {
    let room = |file: fs::Metadata| if file.nlink() > 1 { 0 } else { file.blocks() * 512 };
    let bytes = fs::metadata(path).map_or(0, room);
    durable::remove_file(path)?;
    Ok(bytes)
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn stage(&self) -> Result<Box<dyn Stage>> {
        self.0.health.check()?;
        Ok(Box::new(DiskStage::new(Arc::clone(&self.0), None)))
    }

    async fn stage_part(&self, upload: UploadId, number: PartNumber) -> Result<Begun> {
        self.0.health.check()?;
        let (member, lowest) = Member::enter(&self.0, upload, number);
        let stage = Box::new(DiskStage::new(Arc::clone(&self.0), Some(member)));
        Ok(Begun { stage, lowest })
    }

    async fn join(&self, upload: UploadId) -> Result<Box<dyn Join>> {
        Ok(Box::new(Joining::begin(&self.0, upload)))
    }

    async fn open(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        read::open(&self.0, blob, slice).await
    }

    async fn prove(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        prove::open(&self.0, blob, slice).await
    }

    async fn crc32(&self, blob: &Address) -> Result<u32> {
        let (place, blob) = (Place::parse(&blob.locator)?, blob.clone());
        self.blocking(move |inner| {
            if let Some(packed) = place.packed() {
                return Ok(crc32fast::hash(&inner.packs.read(packed, blob.size)?));
            }
            let content = Content::open(inner, &place, &blob)?;
            match place.bytes_before_trailer() {
                Some(size) => trailer::crc32(&content.file, size),
                None => Ok(hash_bare(&content, blob.size)?.crc32),
            }
        })
        .await
    }

    fn holds_blob(&self, locator: &Locator) -> bool {
        Place::parse(locator).is_ok_and(|place| place.holds_blob())
    }

    /// Packed bytes stay until their pack is compacted. A part in an assembly stays until the
    /// assembly is removed or the part's space is freed (`vacate`).
    async fn discard(&self, locator: &Locator) -> Result<u64> {
        let place = Place::parse(locator)?;
        if let Some(packed) = place.packed() {
            let bytes = packed.length.map_or(0, u64::from);
            self.0.discarded.fetch_add(bytes, Ordering::Relaxed);
            return Ok(0);
        }
        match place {
            Place::Assembled { .. } => return Ok(0),
            Place::Assembly { upload } => return self.end(upload).await,
            _ => {}
        }
        self.blocking(move |inner| {
            let freed = remove(&inner.file(&place)?)?;
            if let Place::Blob { nonce, .. } = place {
                inner.assemblies.open_again(nonce);
            }
            Ok(freed)
        })
        .await
    }

    async fn vacate(&self, part: &Locator) -> Result<Option<Box<dyn Vacate>>> {
        let vacating = Vacating::begin(&self.0, part)?;
        Ok(vacating.map(|vacating| Box::new(vacating) as Box<dyn Vacate>))
    }

    async fn end(&self, upload: UploadId) -> Result<u64> {
        self.blocking(move |inner| {
            let freed = remove(&inner.layout.assembly(upload))?;
            inner.assemblies.forget(upload);
            Ok(freed)
        })
        .await
    }

    async fn space(&self) -> Result<Space> {
        self.blocking(|inner| {
            let stat = statvfs(inner.layout.data_dir()).map_err(io::Error::from)?;
            let read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY);
            Ok(Space {
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                writable: !read_only && inner.health.check().is_ok(),
            })
        })
        .await
    }

    async fn verify(&self, hash: &ContentHash, locator: &Locator, pace: &dyn Pace) -> Result<u64> {
        verify::verify(&self.0, hash, locator, pace).await
    }

    async fn look(&self, blobs: Vec<Locator>) -> Result<Vec<Seen>> {
        self.blocking(move |inner| Ok(look::look(inner, &blobs))).await
    }

    async fn list(&self, shelf: Shelf) -> Result<Vec<Found>> {
        self.blocking(move |inner| {
            let mut found = Vec::new();
            for place in inner.layout.list(shelf)? {
                let owner = match place {
                    Place::Part { upload, number, .. } | Place::BarePart { upload, number, .. } => {
                        Owner::Part(upload, number)
                    }
                    Place::Blob { hash, .. } | Place::BareBlob { hash, .. } => Owner::Blob(hash),
                    Place::Assembly { upload } => Owner::Upload(upload),
                    Place::Packed { .. } | Place::Record { .. } | Place::Assembled { .. } => {
                        continue;
                    }
                };
                // A file that has gone meanwhile was not litter.
                let Ok(metadata) = fs::metadata(inner.file(&place)?) else { continue };
                found.push(Found { owner, locator: place.locator()?, since: changed(&metadata) });
            }
            Ok(found)
        })
        .await
    }

    async fn copy(&self, to: &Path, changed: &Path) -> Result<Copied> {
        let (to, changed) = (to.to_owned(), changed.to_owned());
        self.blocking(move |inner| Ok(copy::copy(&inner.layout, &to, &changed)?)).await
    }

    async fn survey(
        &self,
        after: UnixMillis,
        before: UnixMillis,
    ) -> Result<Option<Box<dyn Survey>>> {
        let inner = Arc::clone(&self.0);
        let survey = blocking(move || survey::survey(inner, after, before)).await?;
        Ok(survey.map(|survey| Box::new(survey) as Box<dyn Survey>))
    }

    fn discarded_bytes(&self) -> u64 {
        self.0.discarded.load(Ordering::Relaxed)
    }
}
