//! Bytes on their way into a file: hashing and writing run in parallel, each in a [`Lane`], while
//! the next bytes arrive.
//!
//! A part that was told its place is written there, into the assembly of its upload; everything
//! else is written into a file of its own. A part that is expected to be the whole content begins
//! in a file of its own too, which is all that a blob needs; if it turns out to be shorter, that
//! file becomes the assembly.

use std::{
    fs::{self, File},
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};

use super::{
    Inner,
    blocking::{blocking, off_the_reactor},
    buffers::Gatherer,
    lane::Lane,
    layout::Place,
    placed::{Placed, Whereabouts},
    trailer,
};
use crate::{
    blob::{Digests, Hasher, Purpose, Result, Sealed},
    sys::{durable, fault, random},
};

/// After so many bytes the kernel is told to start writing them to the disk while more arrive, so
/// that the sync at the end has little left to wait for.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// A file that takes bytes. Dropped unsealed, it removes what it holds. After a `write` that failed
/// or was cancelled, it can only be dropped.
pub struct Spill {
    gatherer: Gatherer,
    writing: Lane<Work>,
    hashing: Lane<Hasher>,
}

impl Spill {
    pub fn begin(store: &Arc<Inner>, part: Option<Whereabouts>) -> Result<Self> {
        store.health.check()?;
        let gatherer = Gatherer::new(&store.buffers);
        let store = Arc::clone(store);
        Ok(Self {
            gatherer,
            writing: Lane::begin(move || Work::begin(store, part), Work::take),
            hashing: Lane::begin(|| Ok(Hasher::default()), |hasher, bytes| Ok(hasher.and(bytes))),
        })
    }

    /// Gathers bytes, however small the pieces, and hands them on a buffer at a time.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.gatherer.fill(&mut bytes) {
                let full = self.gatherer.full().await?;
                self.writing.push(full.clone()).await?;
                self.hashing.push(full).await?;
            }
        }
        Ok(())
    }

    pub async fn seal(self, purpose: Purpose) -> Result<Sealed> {
        let Self { gatherer, writing, hashing } = self;
        let rest = gatherer.rest();
        let work = writing.finish().await?;
        let hasher = hashing.finish().await?;
        let seal = move || work.take(&rest)?.seal(purpose, hasher.and(&rest));
        blocking(seal).await
    }
}

struct Work {
    store: Arc<Inner>,
    target: Target,
    written: u64,
}

enum Target {
    Own(OwnFile, Option<Whereabouts>),
    Assembly(Placed),
}

impl Work {
    fn begin(store: Arc<Inner>, part: Option<Whereabouts>) -> Result<Self> {
        let target = match part {
            Some(part) if !part.is_whole => Target::Assembly(Placed::open(part)?),
            part => Target::Own(OwnFile::create(&store)?, part),
        };
        Ok(Self { store, target, written: 0 })
    }

    fn take(mut self, bytes: &[u8]) -> Result<Self> {
        let end = self.written + bytes.len() as u64;
        if let Target::Assembly(placed) = &mut self.target {
            placed.recount()?;
        }
        if let Target::Assembly(placed) = &self.target
            && end > placed.room()
        {
            // The bytes do not fit into the place: from here on it is a part in a file of its own.
            self.target = Target::Own(placed.copy_out(&self.store)?, None);
        }
        match &mut self.target {
            Target::Own(own, _) => own.file.write_all_at(bytes, self.written)?,
            Target::Assembly(placed) => placed.write(bytes)?,
        }
        self.write_back(end);
        self.written = end;
        Ok(self)
    }

    /// Starts the write-back of the blocks of [`WRITE_BACK_BYTES`] that are complete at `end`.
    fn write_back(&self, end: u64) {
        let [from, to] = [self.written, end].map(|at| at - at % WRITE_BACK_BYTES);
        let Some(length) = NonZeroU64::new(to - from) else { return };
        let (file, start) = match &self.target {
            Target::Own(own, _) => (&own.file, 0),
            Target::Assembly(placed) => (placed.file(), placed.start()),
        };
        // This is advice, which a file system may ignore. The sync reports bytes that failed to be
        // written.
        let _ = fadvise(file, start + from, Some(length), Advice::DontNeed);
    }

    fn seal(self, purpose: Purpose, hasher: Hasher) -> Result<Sealed> {
        let Self { store, target, written } = self;
        let is_part = matches!(purpose, Purpose::Part(..));
        let own = match target {
            Target::Assembly(placed) if is_part => return placed.seal(&store, hasher),
            Target::Assembly(ref placed) => placed.copy_out(&store)?,
            Target::Own(own, Some(part)) if is_part && part.is_less(written) => {
                match part.begin_assembly(&store, &own, &hasher)? {
                    Some(sealed) => return Ok(sealed),
                    None => own,
                }
            }
            Target::Own(own, _) => own,
        };
        own.publish(&store, purpose, &hasher.finish())
    }
}

/// A file of its own, under a temporary name until it is published.
pub struct OwnFile {
    pub file: File,
    name: Temporary,
}

impl OwnFile {
    pub fn create(store: &Inner) -> Result<Self> {
        let name = Temporary(store.layout.temporary());
        Ok(Self { file: durable::create_new(&name.0)?, name })
    }

    pub fn path(&self) -> &Path {
        &self.name.0
    }

    /// Writes the trailer behind the content, syncs the file and then gives it its final name,
    /// durably: in this order there is never a name without bytes. Blocks.
    pub fn publish(self, store: &Inner, purpose: Purpose, digests: &Digests) -> Result<Sealed> {
        let Self { file, name } = self;
        file.write_all_at(&trailer::encode(&digests.tree, digests.crc32), digests.size)?;
        let (nonce, size) = (random::nonce(), digests.size);
        let place = match purpose {
            Purpose::Blob => Place::Blob { hash: digests.blake3, nonce, size },
            Purpose::Part(upload, number) => Place::Part { upload, number, nonce, size },
        };
        fault::point("file: written");
        store.sync(&file)?;
        fault::point("file: durable");
        let path = store.file(&place)?;
        fs::rename(&name.0, &path)?;
        name.keep();
        fault::point("file: named");
        store.sync_parent(&path)?;
        fault::point("file: name durable");
        Ok(digests.sealed(place.locator()?))
    }
}

/// A temporary file name, removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        if path.as_os_str().is_empty() {
            return;
        }
        off_the_reactor(move || {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, "temporary file not removed; the next start removes it");
            }
        });
    }
}
