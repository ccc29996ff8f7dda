//! Import of files from another server, under the keys that they have there.

use std::sync::Arc;

use super::{App, Error, Result, incoming::Incoming, publish::guess_mime};
use crate::{
    blob::Sealed,
    meta::{self, Asker},
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        id::FileId,
        key::FileKey,
        name::{FileName, Folder, UserId},
        time::UnixMillis,
    },
    sys::random,
};

/// A file as it was on the other server.
pub struct ForeignFile {
    pub key: FileKey,
    pub owner: UserId,
    pub folder: Folder,
    pub name: FileName,
    pub mime: Option<Box<str>>,
    /// When it was created; a time in the future counts as now.
    pub created: UnixMillis,
    pub meta: CallerMeta,
    pub sha256: Option<Sha256>,
}

impl App {
    /// The files with these keys, in order; `None` for a key without a file.
    pub async fn files(&self, keys: &[FileKey]) -> Result<Vec<Option<FileRecord>>> {
        let mut files = Vec::with_capacity(keys.len());
        for key in keys {
            files.push(self.meta.file(key).await?);
        }
        Ok(files)
    }

    /// Begins to receive the content of a foreign file, whatever its size.
    pub async fn begin_import(&self) -> Result<Incoming> {
        // This may be the first request to a new store. A store with content but no commit is taken
        // for one that lost its records, and no daemon starts on it.
        self.meta.begun(self.clock.now()).await?;
        self.begin("file", u64::MAX).await
    }

    /// Lists a foreign file. The default quota does not apply, since the file exists already and
    /// was within the rules of its time; a quota that was set for its owner does apply. A file that
    /// is listed already is returned as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong digest, [`Error::Conflict`] when the key holds other content,
    /// [`Error::Quota`].
    pub async fn import(
        self: &Arc<Self>,
        foreign: ForeignFile,
        mut content: Incoming,
    ) -> Result<FileRecord> {
        self.detached(|app| async move {
            let (expected, code) = (foreign.sha256, "sha256_mismatch");
            let sealed = app.seal_blob(&mut content, expected, code).await?;
            let file = foreign.listed(app.clock.now(), &sealed);
            let new = app.new_file(file.clone(), sealed.locator.clone(), Asker::Service)?;
            match app.meta.record_files(vec![new], app.clock.now(), u64::MAX).await {
                Ok(recorded) => {
                    for replaced in recorded.iter().filter_map(|done| done.replaced.as_ref()) {
                        app.discard(replaced).await;
                    }
                    Ok(file)
                }
                Err(error) => {
                    app.discard_unless_uncertain(&sealed.locator, &error).await;
                    match error {
                        meta::Error::Exists => app.listed_already(&file).await,
                        error => Err(error.into()),
                    }
                }
            }
        })
        .await
    }

    async fn listed_already(&self, file: &FileRecord) -> Result<FileRecord> {
        let listed = self.meta.file(&file.key).await?.ok_or(Error::NotFound("file"))?;
        if listed.blake3 == file.blake3 {
            return Ok(listed);
        }
        let detail = "The key already has other content, which stays.";
        Err(Error::conflict("key_taken", detail))
    }
}

impl ForeignFile {
    fn listed(self, now: UnixMillis, sealed: &Sealed) -> FileRecord {
        // Ids of the same millisecond are in no order here; their random part keeps them apart.
        let [low, high, ..] = random::salt().to_le_bytes();
        let counter = u16::from_le_bytes([low, high]);
        FileRecord {
            id: FileId::new(self.created.min(now), counter, random::nonce()),
            mime: self.mime.unwrap_or_else(|| guess_mime(&self.name)),
            owner: self.owner,
            folder: self.folder,
            name: self.name,
            key: self.key,
            size: sealed.size,
            blake3: sealed.blake3,
            sha256: sealed.sha256,
            meta: self.meta,
        }
    }
}
