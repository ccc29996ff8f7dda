//! The reference store: all bytes in a map in memory.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Address, Begun, BlobStore, Error, Hasher, Join, Purpose, Reader, Result, Sealed, Site, Space,
    Stage, Vacate, held,
    proof::Prover,
    tree::TreeHasher,
    upkeep::{Copied, Found, Pace, Seen, Shelf, Survey},
};
use crate::model::{
    digest::ContentHash,
    id::{PartNumber, UploadId},
    locator::Locator,
    range::Slice,
    time::UnixMillis,
};

#[derive(Default)]
struct State {
    next: u64,
    stored: HashMap<Locator, Bytes>,
}

type Shared = Arc<Mutex<State>>;

fn locked(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(state: &Shared, bytes: Bytes) -> Sealed {
    let digests = Hasher::default().and(&bytes).finish();
    let mut state = locked(state);
    state.next += 1;
    let locator = Locator(state.next.to_be_bytes().into());
    state.stored.insert(locator.clone(), bytes);
    digests.sealed(locator)
}

/// See the module.
#[derive(Default)]
pub struct MemoryBlobs(Shared);

impl MemoryBlobs {
    fn bytes(&self, blob: &Address) -> Result<Bytes> {
        self.checked(&blob.blake3, &blob.locator)
    }

    fn checked(&self, hash: &ContentHash, locator: &Locator) -> Result<Bytes> {
        let state = locked(&self.0);
        let bytes = state.stored.get(locator).ok_or(Error::NotFound)?;
        if blake3::hash(bytes) != hash.0 {
            return Err(Error::Corrupt(hash.to_string()));
        }
        Ok(bytes.clone())
    }

    /// Flips a bit of the bytes at `locator`, as a failing disk does.
    pub fn damage(&self, locator: &Locator) {
        if let Some(bytes) = locked(&self.0).stored.get_mut(locator) {
            let mut damaged = bytes.to_vec();
            if let Some(byte) = damaged.first_mut() {
                *byte ^= 1;
            }
            *bytes = damaged.into();
        }
    }
}

#[async_trait]
impl Join for MemoryBlobs {
    async fn assemble(self: Box<Self>, parts: Vec<Address>, _: bool) -> Result<Sealed> {
        let mut whole = Vec::new();
        for part in &parts {
            whole.extend_from_slice(&self.bytes(part)?);
        }
        Ok(keep(&self.0, whole.into()))
    }

    async fn promote(self: Box<Self>, part: &Address) -> Result<Locator> {
        let bytes = self.bytes(part)?;
        Ok(keep(&self.0, bytes).locator)
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn stage(&self) -> Result<Box<dyn Stage>> {
        Ok(Box::new(MemoryStage { state: Arc::clone(&self.0), bytes: Vec::new() }))
    }

    async fn stage_part(&self, _: UploadId, number: PartNumber) -> Result<Begun> {
        Ok(Begun { stage: self.stage().await?, lowest: number })
    }

    async fn join(&self, _: UploadId) -> Result<Box<dyn Join>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }

    async fn open(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        Ok(held(&self.bytes(blob)?, slice))
    }

    async fn prove(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        let bytes = self.bytes(blob)?;
        let mut hasher = TreeHasher::default();
        hasher.update(&bytes);
        let (root, tree) = hasher.finish();
        let mut prover = Prover::new(bytes, root, blob.size, slice, tree);
        let mut proof = Vec::new();
        while let Some(piece) = prover.next_piece()? {
            proof.extend_from_slice(&piece);
        }
        let whole = Slice::whole(proof.len() as u64);
        Ok(held(&proof.into(), whole))
    }

    async fn crc32(&self, blob: &Address) -> Result<u32> {
        Ok(crc32fast::hash(&self.bytes(blob)?))
    }

    fn holds_blob(&self, _: &Locator) -> bool {
        true
    }

    async fn discard(&self, locator: &Locator) -> Result<u64> {
        locked(&self.0).stored.remove(locator);
        Ok(0)
    }

    async fn vacate(&self, _: &Locator) -> Result<Option<Box<dyn Vacate>>> {
        Ok(None)
    }

    async fn end(&self, _: UploadId) -> Result<u64> {
        Ok(0)
    }

    async fn space(&self) -> Result<Space> {
        Ok(Space { free_bytes: u64::MAX, writable: true })
    }

    async fn verify(&self, hash: &ContentHash, locator: &Locator, pace: &dyn Pace) -> Result<u64> {
        let bytes = self.checked(hash, locator)?.len() as u64;
        pace.took(bytes).await;
        Ok(bytes)
    }

    async fn look(&self, blobs: Vec<Locator>) -> Result<Vec<Seen>> {
        let state = locked(&self.0);
        let seen = |blob| {
            if state.stored.contains_key(blob) { Seen::Whole } else { Seen::Missing }
        };
        Ok(blobs.iter().map(seen).collect())
    }

    /// Nothing outlives the process here, so nothing is litter.
    async fn list(&self, _: Shelf) -> Result<Vec<Found>> {
        Ok(Vec::new())
    }

    async fn copy(&self, _: &Path, _: &Path) -> Result<Copied> {
        Err(Error::Io("the reference store keeps nothing".into()))
    }

    async fn survey(&self, _: UnixMillis, _: UnixMillis) -> Result<Option<Box<dyn Survey>>> {
        Ok(None)
    }

    fn discarded_bytes(&self) -> u64 {
        0
    }
}

struct MemoryStage {
    state: Shared,
    bytes: Vec<u8>,
}

#[async_trait]
impl Stage for MemoryStage {
    fn place(&mut self, _: Site) {}

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn seal(&mut self, _: Purpose) -> Result<Sealed> {
        Ok(keep(&self.state, std::mem::take(&mut self.bytes).into()))
    }
}
