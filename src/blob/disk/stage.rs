//! Bytes on their way in: small ones stay in memory and go into a pack, larger ones into a file
//! of their own. Hashing and writing run on the blocking pool while the next bytes arrive, with
//! one buffer in each place.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Inner, layout::Place, trailer};
use crate::{
    blob::{Digests, Error, Hasher, Purpose, Result, Sealed, Stage},
    metrics::stores,
    model::limits::TRANSFER_BUFFER_BYTES,
    sys::{durable, fault, random},
};

/// Small contents up to this size are hashed where they are; larger ones leave the reactor.
pub const HASH_INLINE_BYTES_MAX: usize = 16 << 10;

/// See the module.
pub struct DiskStage {
    store: Arc<Inner>,
    bytes: Arriving,
}

enum Arriving {
    Small(BytesMut),
    Large(Spill),
}

impl DiskStage {
    pub fn new(store: Arc<Inner>) -> Self {
        Self { store, bytes: Arriving::Small(BytesMut::new()) }
    }
}

#[async_trait]
impl Stage for DiskStage {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.bytes {
            Arriving::Small(held) if held.len() + bytes.len() <= self.store.pack_bytes_max => {
                held.extend_from_slice(&bytes);
                Ok(())
            }
            Arriving::Small(held) => {
                let held = std::mem::take(held).freeze();
                let mut spill = Spill::begin(&self.store).await?;
                spill.write(held).await?;
                let outcome = spill.write(bytes).await;
                self.bytes = Arriving::Large(spill);
                outcome
            }
            Arriving::Large(spill) => spill.write(bytes).await,
        }
    }

    async fn seal(self: Box<Self>, purpose: Purpose) -> Result<Sealed> {
        match self.bytes {
            Arriving::Small(content) => seal_small(&self.store, content.freeze()).await,
            Arriving::Large(spill) => spill.seal(&self.store, purpose).await,
        }
    }
}

/// Packs bytes that are held in memory.
pub async fn seal_small(store: &Inner, content: Bytes) -> Result<Sealed> {
    let digests = {
        let content = content.clone();
        move || {
            let mut hasher = Hasher::default();
            hasher.update(&content);
            hasher.finish()
        }
    };
    let digests = if content.len() <= HASH_INLINE_BYTES_MAX {
        digests()
    } else {
        joined(spawn_blocking(move || Ok(digests())).await)?
    };
    let place = store.packer.append(digests.blake3, content).await?;
    Ok(digests.sealed(place.locator()?))
}

/// A file that takes bytes. Its temporary name goes when it is dropped unsealed.
struct Spill {
    temporary: Temporary,
    waiting: BytesMut,
    writing: JoinHandle<Result<Work>>,
}

struct Work {
    file: File,
    hasher: Hasher,
}

impl Work {
    fn take(mut self, bytes: &[u8]) -> Result<Self> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        Ok(self)
    }
}

impl Spill {
    async fn begin(store: &Inner) -> Result<Self> {
        store.health.check()?;
        let path = store.layout.temporary();
        let create = {
            let path = path.clone();
            move || Ok(Work { file: durable::create_new(&path)?, hasher: Hasher::default() })
        };
        Ok(Self {
            temporary: Temporary(path),
            waiting: BytesMut::with_capacity(TRANSFER_BUFFER_BYTES),
            writing: spawn_blocking(create),
        })
    }

    /// Gathers bytes, however small they come, and hands them on a buffer at a time.
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = TRANSFER_BUFFER_BYTES - self.waiting.len();
            self.waiting.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.waiting.len() == TRANSFER_BUFFER_BYTES {
                let empty = BytesMut::with_capacity(TRANSFER_BUFFER_BYTES);
                let full = std::mem::replace(&mut self.waiting, empty);
                let work = joined((&mut self.writing).await)?;
                self.writing = spawn_blocking(move || work.take(&full));
            }
        }
        Ok(())
    }

    /// Content synced, then its name: the order that leaves no name without bytes.
    async fn seal(self, store: &Arc<Inner>, purpose: Purpose) -> Result<Sealed> {
        let Self { temporary, waiting, writing, .. } = self;
        let work = joined(writing.await)?;
        let store = Arc::clone(store);
        let seal = move || {
            let Work { file, hasher } = work.take(&waiting)?;
            publish(&store, file, temporary, purpose, &hasher.finish())
        };
        joined(spawn_blocking(seal).await)
    }
}

/// Puts the trailer behind a written file, syncs both and gives them their final name, durably.
/// Blocks.
pub fn publish(
    store: &Inner,
    mut file: File,
    temporary: Temporary,
    purpose: Purpose,
    digests: &Digests,
) -> Result<Sealed> {
    file.write_all(&trailer::encode(&digests.tree, digests.crc32))?;
    let (nonce, size) = (random::nonce(), digests.size);
    let place = match purpose {
        Purpose::Blob => Place::Blob { hash: digests.blake3, nonce, size },
        Purpose::Part(upload, number) => Place::Part { upload, number, nonce, size },
    };
    fault::point("file: written");
    store.health.synced(stores::SYNC_SECONDS.of("file").time(|| file.sync_data()))?;
    fault::point("file: durable");
    let path = store.file(&place)?;
    fs::rename(&temporary.0, &path)?;
    temporary.keep();
    fault::point("file: named");
    store.sync_parent(&path)?;
    fault::point("file: name durable");
    Ok(digests.sealed(place.locator()?))
}

/// A temporary file name, removed when dropped.
pub struct Temporary(pub PathBuf);

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
        let remove = move || {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, "temporary file not removed; the next start does it");
            }
        };
        // Removing a large file takes a while: not on the reactor.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// The outcome of a blocking job; one that panicked is an I/O failure of its caller only.
pub fn joined<T>(outcome: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(Error::Io(error.to_string())))
}
