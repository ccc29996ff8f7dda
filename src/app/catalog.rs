//! The list of files, their metadata, their end.

use std::sync::Arc;

use super::{App, Error, Result};
use crate::{
    meta,
    model::{
        file::{FileRecord, Totals},
        id::FileId,
        key::FileKey,
        name::{Folder, UserId},
        principal::Principal,
    },
};

/// Which files a list is about.
#[derive(Clone, Debug)]
pub struct Listing {
    pub owner: UserId,
    pub folder: Folder,
}

impl App {
    /// # Errors
    /// [`Error::NotFound`] also for a file of somebody else; [`Error::OutOfScope`].
    pub async fn file(&self, principal: &Principal, key: &FileKey) -> Result<FileRecord> {
        self.visible(principal, self.meta.file(key).await?)
    }

    /// # Errors
    /// As [`App::file`].
    pub async fn file_by_id(&self, principal: &Principal, id: FileId) -> Result<FileRecord> {
        self.visible(principal, self.meta.file_by_id(id).await?)
    }

    /// # Errors
    /// What the store says.
    pub async fn totals(&self, listing: &Listing) -> Result<Totals> {
        Ok(self.meta.totals(&listing.owner, &listing.folder).await?)
    }

    /// Files newest first, older than `after`, at most `limit`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list_files(
        &self,
        listing: &Listing,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<FileRecord>> {
        Ok(self.meta.list_files(&listing.owner, &listing.folder, after, limit).await?)
    }

    /// Unlists a file. Its content goes later, when no other file holds the same.
    ///
    /// # Errors
    /// As [`App::file`].
    pub async fn delete_file(
        self: &Arc<Self>,
        principal: &Principal,
        key: FileKey,
    ) -> Result<FileKey> {
        self.file(principal, &key).await?;
        let app = Arc::clone(self);
        self.detached(async move {
            match app.meta.remove_file(&key, app.clock.now()).await {
                Ok(_) => Ok(key),
                Err(meta::Error::NotFound) => Err(Error::NotFound("file")),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    fn visible(&self, principal: &Principal, file: Option<FileRecord>) -> Result<FileRecord> {
        let file =
            file.filter(|file| principal.sees(&file.owner)).ok_or(Error::NotFound("file"))?;
        self.check_scope(principal, &file.owner, &file.folder)?;
        Ok(file)
    }
}
