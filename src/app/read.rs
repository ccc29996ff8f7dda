//! Opening content for a download.

use super::{App, Error, Result};
use crate::{
    blob::{self, Address, Reader},
    model::{file::FileRecord, key::FileKey, range::Slice},
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
    /// [`Error::NotFound`] when the file was deleted meanwhile; [`Error::Internal`] when its
    /// bytes are damaged.
    pub async fn open_content(&self, file: &FileRecord, slice: Slice) -> Result<Box<dyn Reader>> {
        // The bytes may move, or go with a deleted file, between the two steps: look again once.
        for _ in 0..2 {
            let record = self.meta.blob(&file.blake3).await?.ok_or(Error::NotFound("file"))?;
            let (blake3, size, locator) = (file.blake3, file.size, record.locator);
            match self.blobs.open(&Address { blake3, size, locator }, slice).await {
                Err(blob::Error::NotFound) => {}
                outcome => return Ok(outcome?),
            }
        }
        Err(blob::Error::NotFound.into())
    }
}
