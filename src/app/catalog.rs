//! The list of files, their metadata, and their deletion.

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
    /// [`Error::NotFound`], also for a file of another user. [`Error::OutOfScope`] for a key whose
    /// user or folder the token does not grant: the key tells this, whether the file exists or not.
    pub async fn file(&self, principal: &Principal, key: &FileKey) -> Result<FileRecord> {
        if !principal.may_reach(key) {
            return Err(Error::OutOfScope("file"));
        }
        visible(principal, self.meta.file(key).await?)
    }

    /// # Errors
    /// [`Error::NotFound`], also for a file of another user or one that the token does not grant.
    pub async fn file_by_id(&self, principal: &Principal, id: FileId) -> Result<FileRecord> {
        visible(principal, self.meta.file_by_id(id).await?)
    }

    /// The count and size of the files in a folder and everything beneath it.
    pub async fn totals(&self, listing: &Listing) -> Result<Totals> {
        Ok(self.meta.totals(&listing.owner, &listing.folder).await?)
    }

    /// At most `limit` files older than `after`, newest first.
    pub async fn list_files(
        &self,
        listing: &Listing,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<FileRecord>> {
        Ok(self.meta.list_files(&listing.owner, &listing.folder, after, limit).await?)
    }

    /// Unlists a file. Its content is removed later, when no other file refers to it.
    ///
    /// # Errors
    /// As [`App::file`].
    pub async fn delete_file(
        self: &Arc<Self>,
        principal: &Principal,
        key: FileKey,
    ) -> Result<FileKey> {
        self.file(principal, &key).await?;
        self.detached(|app| async move {
            match app.meta.remove_file(&key, app.clock.now()).await {
                Ok(_) => Ok(key),
                Err(meta::Error::NotFound) => Err(Error::NotFound("file")),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

/// A file that the principal must not see is reported as not found: nobody learns what exists for
/// others.
fn visible(principal: &Principal, file: Option<FileRecord>) -> Result<FileRecord> {
    let is_seen = |file: &FileRecord| {
        principal.sees(&file.owner) && principal.reaches(&file.owner, &file.folder)
    };
    file.filter(is_seen).ok_or(Error::NotFound("file"))
}
