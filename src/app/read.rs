//! Opening content for a download.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{App, Error, Result};
use crate::{
    blob::{self, Address, BlobStore, Reader, proof::proof_bytes},
    meta::Metadata,
    metrics::stores,
    model::{digest::ContentHash, file::FileRecord, key::FileKey, locator::Locator, range::Slice},
    sys::clock::Clock,
};

impl App {
    /// The file of a key, for anybody: `None` unless public read is on and the file's owner is not
    /// excluded from it.
    pub async fn public_file(&self, key: &FileKey) -> Result<Option<FileRecord>> {
        if !self.policy().public_read {
            return Ok(None);
        }
        let Some(file) = self.meta.file(key).await? else { return Ok(None) };
        let owner = self.meta.user(&file.owner).await?;
        Ok(Some(file).filter(|_| owner.is_none_or(|owner| !owner.private)))
    }

    /// The file behind a link that was redeemed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn file_for_anyone(&self, key: &FileKey) -> Result<FileRecord> {
        self.meta.file(key).await?.ok_or(Error::NotFound("file"))
    }

    /// Opens a slice of a file's content.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the file was deleted meanwhile; [`Error::Damaged`] when its bytes
    /// are known or found to be damaged or missing.
    pub async fn open_content(&self, file: &FileRecord, slice: Slice) -> Result<Box<dyn Reader>> {
        self.open_blob(file.blake3, file.size, slice).await
    }

    /// Opens the proof of a slice. This is a slice of Bao, with which a client that knows the
    /// content's BLAKE3 can check the bytes without the rest of the content.
    ///
    /// # Errors
    /// As [`App::open_content`].
    pub async fn prove_content(&self, file: &FileRecord, slice: Slice) -> Result<Proof> {
        let reading = self.read(file.blake3, file.size, |blobs, blob| blobs.prove(blob, slice));
        let (reader, watch) = reading.await?;
        let bytes = proof_bytes(file.size, slice);
        Ok(Proof { reader: Box::new(Watched { reader, watch }), bytes })
    }

    /// As [`App::open_content`], for content whose file may be gone by now.
    pub(super) async fn open_blob(
        &self,
        hash: ContentHash,
        size: u64,
        slice: Slice,
    ) -> Result<Box<dyn Reader>> {
        let reading = self.read(hash, size, |blobs, blob| blobs.open(blob, slice));
        let (reader, watch) = reading.await?;
        Ok(Box::new(Watched { reader, watch }))
    }

    /// The CRC-32 of a content.
    pub(super) async fn crc32(&self, hash: ContentHash, size: u64) -> Result<u32> {
        let (crc32, _) = self.read(hash, size, |blobs, blob| blobs.crc32(blob)).await?;
        Ok(crc32)
    }

    /// Reads something of a blob at the place where it lies now.
    async fn read<T>(
        &self,
        hash: ContentHash,
        size: u64,
        step: impl for<'a> Fn(&'a dyn BlobStore, &'a Address) -> Step<'a, T>,
    ) -> Result<(T, Watch)> {
        let mut missing = None;
        loop {
            let record = self.meta.blob(&hash).await?.ok_or(Error::NotFound("file"))?;
            if record.damaged.is_some() {
                return Err(Error::Damaged(hash));
            }
            let watch = Watch {
                meta: Arc::clone(&self.meta),
                clock: Arc::clone(&self.clock),
                hash,
                locator: record.locator.clone(),
            };
            let address = Address { blake3: hash, size, locator: record.locator };
            match step(&*self.blobs, &address).await {
                Ok(read) => return Ok((read, watch)),
                // Between the two steps the bytes may move, or be removed with a deleted file. They
                // are missing only when the record names the same place again.
                Err(blob::Error::NotFound) if missing.as_ref() != Some(&address.locator) => {
                    missing = Some(address.locator);
                }
                Err(error) if error.is_damage() => {
                    watch.mark(&error).await;
                    return Err(Error::Damaged(hash));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

type Step<'a, T> = Pin<Box<dyn Future<Output = blob::Result<T>> + Send + 'a>>;

/// A proof and its length.
pub struct Proof {
    pub reader: Box<dyn Reader>,
    pub bytes: u64,
}

/// Identifies the bytes that a reader reads, so that they can be marked as damaged.
struct Watch {
    meta: Arc<dyn Metadata>,
    clock: Arc<dyn Clock>,
    hash: ContentHash,
    locator: Locator,
}

impl Watch {
    /// Marks the bytes as damaged, so that they are served to nobody. A blob that moved meanwhile
    /// is not marked: its new bytes were checked.
    async fn mark(&self, damage: &blob::Error) {
        let blob = self.hash;
        stores::DAMAGE_FOUND.of("read").add(1);
        tracing::error!(%blob, %damage, "damaged blob found by a reader");
        let now = self.clock.now();
        if let Err(error) = self.meta.mark_damaged(&blob, &self.locator, now).await {
            tracing::warn!(%blob, %error, "a damaged blob was not marked as damaged");
        }
    }
}

/// A reader that marks the blob when it finds damage.
struct Watched {
    reader: Box<dyn Reader>,
    watch: Watch,
}

#[async_trait]
impl Reader for Watched {
    async fn next(&mut self) -> blob::Result<Option<Bytes>> {
        let next = self.reader.next().await;
        if let Err(damage @ blob::Error::Corrupt(_)) = &next {
            self.watch.mark(damage).await;
        }
        next
    }
}
