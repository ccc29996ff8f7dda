//! The commit: assemble, verify, publish, record.

use std::sync::Arc;

use super::{
    App, Error, Result, detached,
    upload::{Incoming, check_digest, upload_error},
};
use crate::{
    blob::{Address, Purpose, Sealed},
    meta::{self, NewFile, Part},
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        id::UploadId,
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        principal::Principal,
        upload::{Completeness, Upload, UploadState, completeness},
    },
    sys::random,
};

/// What a client says at the end of an upload.
pub struct Completion {
    pub id: UploadId,
    pub sha256: Option<Sha256>,
    pub name: Option<FileName>,
    pub folder: Option<Folder>,
    /// Who a service says the file is for; must be who init said.
    pub user: Option<UserId>,
    /// Takes the place of what init said, when it says anything.
    pub meta: CallerMeta,
    /// Content that came with the request.
    pub inline: Option<Incoming>,
}

/// What became of it.
pub enum Completed {
    One(Box<FileRecord>),
    Batch(Vec<FileRecord>),
}

/// A file in one request.
pub struct NewContent {
    pub user: Option<UserId>,
    pub name: FileName,
    pub folder: Folder,
    pub mime: Option<Box<str>>,
    pub sha256: Option<Sha256>,
    pub content: Incoming,
}

/// Durable bytes that wait for their record, and the record's session.
struct Prepared {
    file: FileRecord,
    locator: Locator,
    /// The bytes lie where a part of the session lies: they are not this completion's to drop.
    lies_in_part: bool,
    upload: Option<(UploadId, u64)>,
}

/// Keys are random; this many collisions in a row do not happen.
const KEY_TRIES: usize = 8;

impl App {
    /// Turns a session, or all sessions of a batch, into files: all or none. Idempotent.
    ///
    /// # Errors
    /// [`Error::PartsMissing`], [`Error::Invalid`] for a wrong size or digest,
    /// [`Error::Conflict`]; the upload stays open then.
    pub async fn complete_upload(
        self: &Arc<Self>,
        principal: &Principal,
        completion: Completion,
    ) -> Result<Completed> {
        if let Some(batch) = self.own_batch(principal, completion.id).await? {
            let app = Arc::clone(self);
            check_owner(principal, &batch.owner, completion.user.as_ref())?;
            let files = detached(async move { app.complete_batch(&batch.uploads).await }).await?;
            return Ok(Completed::Batch(files));
        }
        let upload = self.own_upload(principal, completion.id).await?;
        check_owner(principal, &upload.owner, completion.user.as_ref())?;
        let app = Arc::clone(self);
        detached(async move {
            let file = match app.completed(&upload).await? {
                Some(file) => file,
                None => app.complete_open(upload, completion).await?,
            };
            Ok(Completed::One(Box::new(file)))
        })
        .await
    }

    /// Stores a whole file that came in one request.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong digest, [`Error::Quota`].
    pub async fn put_content(
        self: &Arc<Self>,
        principal: &Principal,
        new: NewContent,
    ) -> Result<FileRecord> {
        let owner = self.acting_for(principal, new.user, false)?;
        let app = Arc::clone(self);
        detached(async move {
            let sealed = new.content.seal(Purpose::Blob).await?;
            if let Err(mismatch) = check_digest(new.sha256, sealed.sha256, "digest_mismatch") {
                app.discard(&sealed.locator).await;
                return Err(mismatch);
            }
            let mime = new.mime.unwrap_or_else(|| guess_mime(&new.name));
            let file =
                app.new_file(owner, new.folder, new.name, mime, &sealed, CallerMeta::default());
            let prepared =
                Prepared { file, locator: sealed.locator, lies_in_part: false, upload: None };
            only(app.record(vec![prepared]).await?)
        })
        .await
    }

    /// The file of a completed session.
    async fn completed(&self, upload: &Upload) -> Result<Option<FileRecord>> {
        match upload.state {
            UploadState::Completed(file) => {
                self.meta.file_by_id(file).await?.map(Some).ok_or(Error::Gone("file"))
            }
            UploadState::Open if upload.expires <= self.clock.now() => {
                Err(Error::NotFound("upload"))
            }
            UploadState::Open => Ok(None),
        }
    }

    async fn complete_open(&self, upload: Upload, completion: Completion) -> Result<FileRecord> {
        let id = upload.id;
        let prepared = self.prepare(upload, completion).await?;
        match self.record(vec![prepared]).await {
            // A parallel completion was first: its result is the result.
            Err(Error::Conflict { code: "upload_completed", .. }) => {
                let upload = self.meta.upload(id).await?.ok_or(Error::NotFound("upload"))?;
                self.completed(&upload).await?.ok_or(Error::NotFound("upload"))
            }
            outcome => only(outcome?),
        }
    }

    async fn complete_batch(&self, uploads: &[UploadId]) -> Result<Vec<FileRecord>> {
        let mut files = Vec::new();
        let mut prepared = Vec::new();
        for id in uploads {
            let outcome = self.prepare_of_batch(*id).await;
            match outcome {
                Ok(Ok(file)) => files.push(file),
                Ok(Err(ready)) => prepared.push(*ready),
                Err(error) => {
                    for ready in prepared {
                        self.discard_prepared(&ready).await;
                    }
                    return Err(error);
                }
            }
        }
        if !prepared.is_empty() {
            files.extend(self.record(prepared).await?);
        }
        Ok(files)
    }

    /// The file of one upload of a batch, or what is needed to make it.
    async fn prepare_of_batch(
        &self,
        id: UploadId,
    ) -> Result<std::result::Result<FileRecord, Box<Prepared>>> {
        let upload = self.meta.upload(id).await?.ok_or(Error::NotFound("upload"))?;
        if let Some(file) = self.completed(&upload).await? {
            return Ok(Ok(file));
        }
        let completion = Completion {
            id,
            sha256: None,
            name: None,
            folder: None,
            user: None,
            meta: CallerMeta::default(),
            inline: None,
        };
        Ok(Err(Box::new(self.prepare(upload, completion).await?)))
    }

    /// Makes one durable blob of what arrived and checks it against what was declared.
    async fn prepare(&self, upload: Upload, completion: Completion) -> Result<Prepared> {
        let parts = self.meta.parts(upload.id).await?;
        let inline = completion.inline.filter(|_| parts.is_empty());
        let sealed = match inline {
            Some(inline) => {
                check_size(upload.size, inline.received())?;
                inline.seal(Purpose::Blob).await?
            }
            None => self.join(&upload, &parts).await?,
        };
        let mime = upload.mime.clone();
        let name = completion.name.unwrap_or(upload.name);
        let mime = mime.unwrap_or_else(|| guess_mime(&name));
        let folder = completion.folder.unwrap_or(upload.folder);
        let meta = if completion.meta.0.is_empty() { upload.meta } else { completion.meta };
        let prepared = Prepared {
            file: self.new_file(upload.owner, folder, name, mime, &sealed, meta),
            lies_in_part: parts.iter().any(|part| part.place == sealed.locator),
            locator: sealed.locator,
            upload: Some((upload.id, upload.revision)),
        };
        if let Err(mismatch) = check_digest(completion.sha256, sealed.sha256, "sha256_mismatch") {
            self.discard_prepared(&prepared).await;
            return Err(mismatch);
        }
        Ok(prepared)
    }

    /// One blob of all parts; of a single one without touching its bytes.
    async fn join(&self, upload: &Upload, parts: &[Part]) -> Result<Sealed> {
        match completeness(upload.mode, upload.size, parts) {
            Completeness::Complete => {}
            Completeness::Missing(numbers) => return Err(Error::PartsMissing(numbers)),
            Completeness::SizeDiffers { declared, received } => {
                check_size(declared, received)?;
            }
        }
        if let [part] = parts {
            let locator = self.blobs.promote(&address(part)).await?;
            let Part { size, blake3, sha256, .. } = *part;
            return Ok(Sealed { size, blake3, sha256, locator });
        }
        Ok(self.blobs.assemble(parts.iter().map(address).collect()).await?)
    }

    fn new_file(
        &self,
        owner: UserId,
        folder: Folder,
        name: FileName,
        mime: Box<str>,
        sealed: &Sealed,
        meta: CallerMeta,
    ) -> FileRecord {
        FileRecord {
            id: self.ids.next(self.clock.now()),
            key: FileKey::compose(&owner, &folder, random::salt(), &name),
            owner,
            folder,
            name,
            mime,
            size: sealed.size,
            blake3: sealed.blake3,
            sha256: sealed.sha256,
            meta,
        }
    }

    /// Records prepared files in one step, then lets go of what nothing refers to any more.
    async fn record(&self, mut prepared: Vec<Prepared>) -> Result<Vec<FileRecord>> {
        let keep_until = self.clock.now().after(self.policy.upload_ttl);
        let mut tries = 0;
        let recorded = loop {
            let files = prepared.iter().map(Prepared::new_file).collect();
            match self.meta.record_files(files, keep_until, self.policy.quota_bytes).await {
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
                    let is_blob = |part: &Part| part.place == ready.locator && !recorded.duplicate;
                    for part in recorded.parts.iter().filter(|part| !is_blob(part)) {
                        self.discard(&part.place).await;
                    }
                    if recorded.duplicate {
                        self.discard_prepared(ready).await;
                    }
                }
                Ok(prepared.into_iter().map(|ready| ready.file).collect())
            }
            Err(error) => {
                let uncertain =
                    matches!(error, meta::Error::Unavailable(_) | meta::Error::Corrupt(_));
                for ready in prepared.iter().filter(|_| !uncertain) {
                    self.discard_prepared(ready).await;
                }
                Err(upload_error(error))
            }
        }
    }

    /// Drops a blob that no record refers to.
    async fn discard_prepared(&self, ready: &Prepared) {
        if !ready.lies_in_part {
            self.discard(&ready.locator).await;
        }
    }
}

impl Prepared {
    fn new_file(&self) -> NewFile {
        let Self { file, locator, upload, .. } = self;
        NewFile { file: file.clone(), locator: locator.clone(), upload: *upload }
    }

    fn salt_again(&mut self) {
        let FileRecord { owner, folder, name, .. } = &self.file;
        self.file.key = FileKey::compose(owner, folder, random::salt(), name);
    }
}

fn address(part: &Part) -> Address {
    Address { blake3: part.blake3, size: part.size, locator: part.place.clone() }
}

fn check_size(declared: u64, received: u64) -> Result<()> {
    if declared == received {
        return Ok(());
    }
    let detail = format!("Init declared {declared} bytes, {received} were received.");
    Err(Error::invalid("size_mismatch", detail))
}

/// A service that names another user at complete than at init is mistaken.
fn check_owner(principal: &Principal, owner: &UserId, named: Option<&UserId>) -> Result<()> {
    let names_other = named.is_some_and(|named| named != owner);
    if matches!(principal, Principal::Service { .. }) && names_other {
        let detail = "The upload belongs to the user named at init, who is another one.";
        return Err(Error::conflict("owner_mismatch", detail));
    }
    Ok(())
}

fn only(files: Vec<FileRecord>) -> Result<FileRecord> {
    files.into_iter().next().ok_or_else(|| Error::Internal("nothing was recorded".into()))
}

/// What the name's extension says, else `application/octet-stream`.
fn guess_mime(name: &FileName) -> Box<str> {
    mime_guess::from_path(name.as_str()).first_raw().unwrap_or("application/octet-stream").into()
}
