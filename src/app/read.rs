//! Opening content for a download.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{App, Error, Result};
use crate::{
    blob::{self, Address, Reader},
    meta::Metadata,
    model::{digest::ContentHash, file::FileRecord, key::FileKey, locator::Locator, range::Slice},
    sys::clock::Clock,
};

impl App {
    /// The file behind a key that needs no credential: public read, or a link that was redeemed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn file_for_anyone(&self, key: &FileKey) -> Result<FileRecord> {
        self.meta.file(key).await?.ok_or(Error::NotFound("file"))
    }

    /// Opens a slice of a file's content.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the file was deleted meanwhile; [`Error::Damaged`] when its
    /// bytes are not those that were stored, or not there, as far as that is known by now.
    pub async fn open_content(&self, file: &FileRecord, slice: Slice) -> Result<Box<dyn Reader>> {
        let mut missing = None;
        loop {
            let record = self.meta.blob(&file.blake3).await?.ok_or(Error::NotFound("file"))?;
            if record.damaged.is_some() {
                return Err(Error::Damaged(file.blake3));
            }
            let watch = Watch {
                meta: Arc::clone(&self.meta),
                clock: Arc::clone(&self.clock),
                hash: file.blake3,
                locator: record.locator.clone(),
            };
            let address = Address { blake3: file.blake3, size: file.size, locator: record.locator };
            match self.blobs.open(&address, slice).await {
                Ok(reader) => return Ok(Box::new(Watched { reader, watch })),
                // The bytes may move, or go with a deleted file, between the two steps. They are
                // missing when the record names the same place again.
                Err(blob::Error::NotFound) if missing.as_ref() != Some(&address.locator) => {
                    missing = Some(address.locator);
                }
                Err(error @ (blob::Error::NotFound | blob::Error::Corrupt(_))) => {
                    watch.mark(&error).await;
                    return Err(Error::Damaged(file.blake3));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What is known of the bytes that a reader reads.
struct Watch {
    meta: Arc<dyn Metadata>,
    clock: Arc<dyn Clock>,
    hash: ContentHash,
    locator: Locator,
}

impl Watch {
    /// Remembers that the bytes are not those that were stored, so that nobody is served them. A
    /// blob that moved meanwhile is not marked: its new bytes were checked.
    async fn mark(&self, damage: &blob::Error) {
        let blob = self.hash;
        tracing::error!(%blob, %damage, "damaged blob found by a reader");
        let now = self.clock.now();
        if let Err(error) = self.meta.mark_damaged(&blob, &self.locator, now).await {
            tracing::warn!(%blob, %error, "a damaged blob was not marked");
        }
    }
}

/// A reader that tells when it finds damage.
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
