//! From durable bytes to a listed file: records the file, and discards what the record makes
//! needless.

use std::{sync::Arc, time::Duration};

use super::{App, Error, Result, access::asker, incoming::Incoming, upload::upload_error};
use crate::{
    blob::Sealed,
    meta::{self, Asker, NewFile},
    metrics::stores,
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        id::UploadId,
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        principal::Principal,
    },
    sys::random,
};

/// A whole file that is sent in one request.
pub struct NewContent {
    pub owner: UserId,
    pub name: FileName,
    pub folder: Folder,
    pub mime: Option<Box<str>>,
    pub sha256: Option<Sha256>,
    pub content: Incoming,
}

/// Durable bytes that wait for their record.
pub(super) struct Prepared {
    pub new: NewFile,
    /// The bytes lie where a part of the session lies: this completion must not discard them.
    pub lies_in_part: bool,
    /// The bytes came a moment ago, or were read since they came.
    pub is_checked: bool,
    /// Partial uploads that end with the record's session.
    pub partials: Vec<UploadId>,
}

/// Keys are random; this many collisions in a row do not happen.
const KEY_TRIES: usize = 8;
/// A completion can be repeated, with the same answer, for at least this long, even if uploads live
/// shorter.
const REPEATED_FOR: Duration = Duration::from_hours(24);

impl App {
    /// Stores a whole file that came in one request.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong digest, [`Error::Quota`]; [`Error::Unauthenticated`] for a
    /// user who is no longer admitted.
    pub async fn put_content(
        self: &Arc<Self>,
        principal: &Principal,
        new: NewContent,
    ) -> Result<FileRecord> {
        let by = asker(principal);
        self.detached(|app| async move {
            let NewContent { owner, name, folder, mime, sha256, mut content } = new;
            let sealed = app.seal_blob(&mut content, sha256, "digest_mismatch").await?;
            let meta = CallerMeta::default();
            let file = app.file_record(owner, folder, name, mime, &sealed, meta);
            let new = app.new_file(file, sealed.locator, by)?;
            let (lies_in_part, is_checked, partials) = (false, true, Vec::new());
            only(app.record(vec![Prepared { new, lies_in_part, is_checked, partials }]).await?)
        })
        .await
    }

    /// What is to be recorded: a file, and where its content lies.
    ///
    /// # Errors
    /// [`Error::Internal`] when the store says that `locator` is not the place of a blob. A place
    /// that belongs to a session is none: it goes with the session, and every file of that content
    /// with it.
    pub(super) fn new_file(
        &self,
        file: FileRecord,
        locator: Locator,
        by: Asker,
    ) -> Result<NewFile> {
        if self.blobs.holds_blob(&locator) {
            return Ok(NewFile { file, locator, is_known: false, by, upload: None });
        }
        Err(Error::Internal("the place of a part was to be recorded as a blob's".into()))
    }

    pub(super) fn file_record(
        &self,
        owner: UserId,
        folder: Folder,
        name: FileName,
        mime: Option<Box<str>>,
        sealed: &Sealed,
        meta: CallerMeta,
    ) -> FileRecord {
        FileRecord {
            id: self.ids.next(self.clock.now()),
            key: FileKey::new(&owner, &folder, random::salt(), &name),
            mime: mime.unwrap_or_else(|| guess_mime(&name)),
            owner,
            folder,
            name,
            size: sealed.size,
            blake3: sealed.blake3,
            sha256: sealed.sha256,
            meta,
        }
    }

    /// Records prepared files in one step, then discards what nothing refers to any more.
    pub(super) async fn record(&self, mut prepared: Vec<Prepared>) -> Result<Vec<FileRecord>> {
        let keep_until = self.clock.now().after(self.policy().upload_ttl.max(REPEATED_FOR));
        let mut tries = 0;
        let recorded = loop {
            let files = prepared.iter().map(|ready| ready.new.clone()).collect();
            match self.meta.record_files(files, keep_until, self.policy().quota_bytes).await {
                Err(meta::Error::Exists) if tries < KEY_TRIES => {
                    tries += 1;
                    prepared.iter_mut().for_each(Prepared::salt_again);
                }
                outcome => break outcome,
            }
        };
        match recorded {
            Ok(recorded) => {
                for (ready, recorded) in prepared.iter().zip(recorded) {
                    let own = &ready.new.locator;
                    let replaced = recorded.replaced.filter(|before| before != own);
                    let replaced = match replaced {
                        Some(before) if !ready.is_checked => self.worse(ready, before).await,
                        replaced => replaced,
                    };
                    // A part may have become the blob where it lies.
                    let parts = recorded.parts.iter().map(|part| &part.place);
                    let parts = parts.filter(|place| *place != own);
                    for locator in parts.chain(&replaced) {
                        self.discard(locator).await;
                    }
                    // For an upload of any size: parts that were replaced may have been larger.
                    if let Some((id, _)) = ready.new.upload {
                        self.end(id).await;
                        for partial in &ready.partials {
                            self.end(*partial).await;
                        }
                    }
                }
                Ok(prepared.into_iter().map(|ready| ready.new.file).collect())
            }
            Err(error) => {
                for ready in prepared.iter().filter(|ready| ready.has_own_bytes()) {
                    self.discard_unless_uncertain(&ready.new.locator, &error).await;
                }
                Err(upload_error(error))
            }
        }
    }

    /// Of two copies that were made at the same time, and of which neither was read: the one to
    /// discard. The later copy has the record. If it is found damaged or unreadable and the earlier
    /// one is good, the earlier one gets the record back. (After a crash before that, the later
    /// copy keeps the record; if it is damaged, whoever reads it marks it.)
    async fn worse(&self, ready: &Prepared, before: Locator) -> Option<Locator> {
        let (hash, own) = (&ready.new.file.blake3, &ready.new.locator);
        let Err(error) = self.reread(hash, own).await else { return Some(before) };
        if error.is_damage() {
            stores::DAMAGE_FOUND.of("complete").add(1);
            tracing::error!(blob = %hash, %error, "a new copy of stored content is damaged");
        } else {
            tracing::warn!(blob = %hash, %error, "a new copy of stored content cannot be read");
        }
        let is_good = self.reread(hash, &before).await.is_ok();
        // If neither is known to be good, both stay; gc finds the one that is litter.
        let is_back = is_good && self.meta.relocate_blob(hash, own, &before).await == Ok(true);
        is_back.then(|| own.clone())
    }

    /// Discards the bytes of a prepared file that no record refers to.
    pub(super) async fn discard_prepared(&self, ready: &Prepared) {
        if ready.has_own_bytes() {
            self.discard(&ready.new.locator).await;
        }
    }
}

impl Prepared {
    /// Whether its bytes must be discarded when it is not recorded.
    fn has_own_bytes(&self) -> bool {
        !self.lies_in_part && !self.new.is_known
    }

    fn salt_again(&mut self) {
        let file = &mut self.new.file;
        file.key = FileKey::new(&file.owner, &file.folder, random::salt(), &file.name);
    }
}

pub(super) fn only(files: Vec<FileRecord>) -> Result<FileRecord> {
    files.into_iter().next().ok_or_else(|| Error::Internal("nothing was recorded".into()))
}

/// The media type of the name's extension, else `application/octet-stream`.
pub(super) fn guess_mime(name: &FileName) -> Box<str> {
    mime_guess::from_path(name.as_str()).first_raw().unwrap_or("application/octet-stream").into()
}
