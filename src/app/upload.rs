//! Upload sessions: begin, receive parts, query, abort.

use std::sync::Arc;

use super::{
    App, Error, Result,
    access::asker,
    complete::address,
    incoming::{Incoming, check_digest},
    possession::Challenge,
};
use crate::{
    blob::{Purpose, Sealed},
    meta::{self, AppendTo, Batch, Removal},
    model::{
        digest::{ContentHash, Sha256},
        file::CallerMeta,
        id::{PartNumber, UploadId},
        limits::{BATCH_BYTES_MAX, BATCH_FILES_MAX, BATCH_LISTINGS_MAX},
        locator::Locator,
        name::{FileName, Folder, UserId},
        principal::Principal,
        time::UnixMillis,
        upload::{Mode, Part, Upload, UploadState},
    },
    sys::random,
};

/// One file of an init.
pub struct DeclaredFile {
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    pub mime: Option<Box<str>>,
    /// The BLAKE3 of content that the owner may have already.
    pub blake3: Option<ContentHash>,
    /// The SHA-256 that the whole file must have. The owner may have content of this digest, too.
    pub sha256: Option<Sha256>,
}

/// What a client declares at init.
pub struct Init {
    pub mode: Mode,
    pub files: Vec<DeclaredFile>,
    pub folder: Folder,
    pub meta: CallerMeta,
    /// The user a service acts for.
    pub user: Option<UserId>,
}

/// The sessions that an init opened.
pub struct Opened {
    /// The id of the session, or of the batch of sessions.
    pub id: UploadId,
    pub mode: Mode,
    /// The suggested size of a part, and how many such parts the largest file has.
    pub part_size: u64,
    pub parts: u64,
    pub expires: UnixMillis,
    /// Each file of a batch; empty otherwise.
    pub batch: Vec<(UploadId, FileName)>,
    /// What a client may prove instead of sending a file, in the order of the files.
    pub challenges: Vec<Option<Challenge>>,
}

/// A session and its recorded parts.
pub struct Status {
    pub upload: Upload,
    pub parts: Vec<Part>,
}

impl App {
    /// Opens one session, or one for each file of a batch, and reserves their sizes.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`], [`Error::Quota`]; [`Error::Unauthenticated`] for a
    /// user who is no longer admitted.
    pub async fn init_upload(&self, principal: &Principal, init: Init) -> Result<Opened> {
        let owner = self.acting_for(principal, init.user.clone(), false)?;
        self.check_scope(principal, &owner, &init.folder)?;
        self.check_declared(&init)?;
        let now = self.clock.now();
        let expires = now.after(self.policy().upload_ttl);
        let largest = init.files.iter().map(|file| file.size).max().unwrap_or(0);
        let hashes: Vec<_> = init.files.iter().map(|file| file.blake3).collect();
        let open = |file: DeclaredFile| Upload {
            id: random::upload_id(),
            owner: owner.clone(),
            name: file.name,
            folder: init.folder.clone(),
            mime: file.mime,
            size: file.size,
            mode: init.mode,
            sha256: file.sha256,
            meta: init.meta.clone(),
            expires,
            received: 0,
            revision: 0,
            state: UploadState::Open,
        };
        let uploads: Vec<Upload> = init.files.into_iter().map(open).collect();
        let batch = (init.mode == Mode::Batch).then(|| Batch {
            id: random::upload_id(),
            owner: owner.clone(),
            uploads: uploads.iter().map(|upload| upload.id).collect(),
        });
        let id = match (&batch, uploads.first()) {
            (Some(batch), _) => batch.id,
            (None, Some(upload)) => upload.id,
            (None, None) => return Err(Error::Internal("an init without a file".into())),
        };
        let mut challenges = Vec::with_capacity(uploads.len());
        for (upload, hash) in uploads.iter().zip(hashes) {
            challenges.push(self.challenge(principal, upload, hash).await?);
        }
        let named = uploads.iter().map(|upload| (upload.id, upload.name.clone()));
        let part_bytes_max = self.policy().part_bytes_max;
        let opened = Opened {
            id,
            mode: init.mode,
            part_size: init.mode.part_size(largest, part_bytes_max),
            parts: init.mode.parts(largest, part_bytes_max),
            expires,
            batch: if batch.is_some() { named.collect() } else { Vec::new() },
            challenges,
        };
        let (by, quota) = (asker(principal), self.policy().quota_bytes);
        self.meta.create_uploads(uploads, batch, by, now, quota).await?;
        Ok(opened)
    }

    fn check_declared(&self, init: &Init) -> Result<()> {
        let counts = if init.mode == Mode::Batch { 1..=BATCH_FILES_MAX } else { 1..=1 };
        if !counts.contains(&init.files.len()) {
            let detail = match init.mode {
                Mode::Batch => "A batch must have 1 to 1000 files.",
                _ => "This mode takes exactly one file.",
            };
            return Err(Error::invalid("invalid_files", detail));
        }
        let repeated = init.meta.0.len() + init.folder.as_str().len();
        let listings = init.files.len().saturating_mul(init.folder.lineage().count());
        let bytes = init.files.len().saturating_mul(repeated);
        let is_batch = init.mode == Mode::Batch;
        if is_batch && (listings > BATCH_LISTINGS_MAX || bytes > BATCH_BYTES_MAX) {
            let detail = "meta or folder is too long, or folder too deep, for so many files; \
                          make several batches.";
            return Err(Error::invalid("invalid_files", detail));
        }
        init.files.iter().try_for_each(|file| self.check_file_size(file.size))
    }

    pub(super) fn check_file_size(&self, size: u64) -> Result<()> {
        let limit = self.policy().file_bytes_max;
        if size > limit { Err(Error::TooLarge { what: "file", limit }) } else { Ok(()) }
    }

    /// Checks that this upload or batch exists for this principal, in whatever state.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn check_upload(&self, principal: &Principal, id: UploadId) -> Result<()> {
        if self.own_batch(principal, id).await?.is_none() {
            self.own_upload(principal, id).await?;
        }
        Ok(())
    }

    /// Checks whether a part may come, before its bytes are received.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown or foreign upload, [`Error::Conflict`] for a closed one,
    /// [`Error::Invalid`] for a batch.
    pub async fn check_part(&self, principal: &Principal, id: UploadId) -> Result<Upload> {
        let upload = match self.own_upload(principal, id).await {
            Err(Error::NotFound(_)) if self.own_batch(principal, id).await?.is_some() => {
                let detail = "A batch takes no parts: send each part to the uploadId of its file.";
                return Err(Error::invalid("not_for_a_batch", detail));
            }
            upload => upload?,
        };
        if upload.mode == Mode::Final {
            return Err(Error::FinalUpload);
        }
        if upload.state != UploadState::Open {
            return Err(meta::Error::Closed.into());
        }
        Ok(upload)
    }

    /// Seals what arrived and records it as a part. A part that is sent again replaces the first.
    ///
    /// # Errors
    /// As [`App::check_part`]; [`Error::Invalid`] when `sha256` is not that of the bytes;
    /// [`Error::Quota`] when more bytes came than were declared and they do not fit.
    pub async fn finish_part(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
        number: PartNumber,
        incoming: Incoming,
        sha256: Option<Sha256>,
    ) -> Result<u64> {
        self.check_part(principal, id).await?;
        self.keep_part(id, number, incoming, sha256, None).await
    }

    /// Seals a part and records it; with `to`, only if the session has not changed since `to` was
    /// read.
    pub(super) async fn keep_part(
        self: &Arc<Self>,
        id: UploadId,
        number: PartNumber,
        mut incoming: Incoming,
        sha256: Option<Sha256>,
        to: Option<AppendTo>,
    ) -> Result<u64> {
        self.detached(|app| async move {
            let sealed = incoming.seal(Purpose::Part(id, number)).await?;
            let Sealed { size, blake3, sha256: own, locator } = sealed;
            if let Err(mismatch) = check_digest(sha256, own, "digest_mismatch") {
                drop(incoming);
                app.discard_part(id, &locator).await;
                return Err(mismatch);
            }
            let part = Part { number, size, blake3, sha256: own, place: locator.clone() };
            let expires = app.clock.now().after(app.policy().upload_ttl);
            let quota = app.policy().quota_bytes;
            match app.meta.record_part(id, part, to, expires, quota).await {
                Ok(replaced) => {
                    if let Some(old) = replaced {
                        app.discard_part(id, &old.place).await;
                    }
                    Ok(size)
                }
                Err(error) => {
                    // Unless the record may be on the disk in spite of the failed commit.
                    if !error.is_uncertain() {
                        drop(incoming);
                        app.discard_part(id, &locator).await;
                    }
                    Err(upload_error(error))
                }
            }
        })
        .await
    }

    /// # Errors
    /// [`Error::NotFound`].
    pub async fn upload_status(&self, principal: &Principal, id: UploadId) -> Result<Status> {
        self.own_upload(principal, id).await?;
        self.standing(id).await?.ok_or(Error::NotFound("upload"))
    }

    /// The sessions of a batch, in the order of its init; `None` when `id` names no batch.
    pub async fn batch_status(
        &self,
        principal: &Principal,
        id: UploadId,
    ) -> Result<Option<Vec<Upload>>> {
        let Some(batch) = self.own_batch(principal, id).await? else { return Ok(None) };
        Ok(Some(self.left_of(&batch.uploads).await?))
    }

    /// The sessions of a batch that still exist, except those whose file was deleted.
    async fn left_of(&self, batch: &[UploadId]) -> Result<Vec<Upload>> {
        let mut uploads = Vec::with_capacity(batch.len());
        for id in batch {
            let Some(upload) = self.live(*id).await? else { continue };
            if !self.is_gone(&upload).await? {
                uploads.push(upload);
            }
        }
        Ok(uploads)
    }

    /// Ends a session, or every open session of a batch. Completed files stay.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for a completed upload, or a batch in which every
    /// upload is completed.
    pub async fn abort_upload(self: &Arc<Self>, principal: &Principal, id: UploadId) -> Result<()> {
        let batch = self.own_batch(principal, id).await?;
        if batch.is_none() {
            self.own_upload(principal, id).await?;
        }
        self.detached(|app| async move {
            let Some(batch) = batch else { return app.remove_open_upload(id).await };
            let mut aborted = Err(Error::NotFound("upload"));
            for upload in app.left_of(&batch.uploads).await? {
                match app.remove_open_upload(upload.id).await {
                    Ok(()) => aborted = Ok(()),
                    // Completed: this is the answer if there is nothing else to abort.
                    conflict @ Err(Error::Conflict { .. }) if aborted.is_err() => {
                        aborted = conflict;
                    }
                    Err(Error::Conflict { .. } | Error::NotFound(_)) => {}
                    error => return error,
                }
            }
            // If nothing was aborted, the batch stays, so that its completion can be repeated.
            aborted?;
            app.meta.remove_batch(id).await.map_err(upload_error)
        })
        .await
    }

    /// A page of a user's open sessions, in order of their ids. Some may have expired.
    ///
    /// # Errors
    /// As [`App::acting_for`].
    pub async fn list_uploads(
        &self,
        principal: &Principal,
        named: Option<UserId>,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let owner = self.acting_for(principal, named, true)?;
        Ok(self.meta.uploads_of(&owner, after, limit).await?)
    }

    /// The parts of an upload of [`App::list_uploads`]. `None` for an upload that has expired or
    /// ended since, or that lies in a folder which the token does not grant.
    pub async fn listed_parts(
        &self,
        principal: &Principal,
        listed: &Upload,
    ) -> Result<Option<Vec<Part>>> {
        if !principal.reaches(&listed.owner, &listed.folder) {
            return Ok(None);
        }
        Ok(self.standing(listed.id).await?.map(|status| status.parts))
    }

    /// A session, unless it has expired.
    pub(super) async fn live(&self, id: UploadId) -> Result<Option<Upload>> {
        Ok(self.meta.upload(id).await?.filter(|upload| !self.is_over(upload)))
    }

    /// A session and its parts, read at one moment; `None` if the session has expired.
    pub(super) async fn standing(&self, id: UploadId) -> Result<Option<Status>> {
        loop {
            let Some(upload) = self.live(id).await? else { return Ok(None) };
            let parts = self.meta.parts(id).await?;
            // If the session changed between the two reads, these parts are not those of `upload`.
            if self.meta.upload(id).await?.as_ref() == Some(&upload) {
                return Ok(Some(Status { upload, parts }));
            }
        }
    }

    pub(super) async fn remove_open_upload(&self, id: UploadId) -> Result<()> {
        let parts = self.meta.remove_upload(id, Removal::Open).await.map_err(upload_error)?;
        self.discard_parts(&parts).await;
        self.end(id).await;
        Ok(())
    }

    /// Whether an open session has expired, swept or not. Bytes that are arriving keep it.
    fn is_over(&self, upload: &Upload) -> bool {
        upload.state == UploadState::Open
            && upload.expires <= self.clock.now()
            && !self.arrivals.has(upload.id)
    }

    /// Whether the file that a session became was deleted. Nothing is told of the session then: its
    /// owner may have been deleted too, and somebody else may have that id by now.
    async fn is_gone(&self, upload: &Upload) -> Result<bool> {
        match upload.state {
            UploadState::Open => Ok(false),
            UploadState::Completed(file) => Ok(self.meta.file_by_id(file).await?.is_none()),
        }
    }

    /// The session, for those who may touch it. An id does not tell whose session it is, so the
    /// session does not exist for anybody else.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Gone`] when the file that it became was deleted.
    pub(super) async fn own_upload(&self, principal: &Principal, id: UploadId) -> Result<Upload> {
        let is_own = |upload: &Upload| {
            principal.may_touch_upload(&upload.owner)
                && principal.reaches(&upload.owner, &upload.folder)
        };
        let upload = self.live(id).await?.filter(is_own).ok_or(Error::NotFound("upload"))?;
        if self.is_gone(&upload).await? { Err(Error::Gone("file")) } else { Ok(upload) }
    }

    pub(super) async fn own_batch(
        &self,
        principal: &Principal,
        id: UploadId,
    ) -> Result<Option<Batch>> {
        let batch = self.meta.batch(id).await?;
        let Some(batch) = batch.filter(|batch| principal.may_touch_upload(&batch.owner)) else {
            return Ok(None);
        };
        let mut is_granted = principal.reaches_user(&batch.owner);
        // All of its uploads lie in one folder; some may be gone.
        for id in &batch.uploads {
            if let Some(upload) = self.meta.upload(*id).await? {
                is_granted &= principal.reaches(&batch.owner, &upload.folder);
                break;
            }
        }
        Ok(Some(batch).filter(|_| is_granted))
    }

    /// Discards parts. Returns how many bytes of the disk were freed.
    pub(super) async fn discard_parts(&self, parts: &[Part]) -> u64 {
        let mut freed = 0;
        for part in parts {
            freed += self.discard(&part.place).await;
        }
        freed
    }

    /// Discards a part that is no longer recorded, or never was, even where it lies among others.
    async fn discard_part(&self, id: UploadId, place: &Locator) {
        self.discard(place).await;
        let Some(_allowed) = self.removals.try_begin() else { return };
        let vacated = async {
            let Some(vacate) = self.blobs.vacate(place).await? else { return Ok(()) };
            let upload = self.meta.upload(id).await?;
            if upload.is_none_or(|upload| upload.state != UploadState::Open) {
                // The part may have come after the end of the upload.
                self.blobs.end(id).await?;
                return Ok(());
            }
            let parts = self.meta.parts(id).await?;
            Result::Ok(vacate.unless_taken(parts.iter().map(address).collect()).await?)
        };
        if let Err(error) = vacated.await {
            tracing::warn!(upload = %id, %error, "the space of an unused part was not freed");
        }
    }

    /// Removes what is left of an upload of which no part is recorded any more. Returns how many
    /// bytes of the disk were freed.
    pub(super) async fn end(&self, id: UploadId) -> u64 {
        let Some(_allowed) = self.removals.try_begin() else { return 0 };
        self.blobs.end(id).await.unwrap_or_else(|error| {
            tracing::warn!(upload = %id, %error, "the remains of an upload were not removed");
            0
        })
    }
}

pub(super) fn upload_error(error: meta::Error) -> Error {
    match error {
        meta::Error::NotFound => Error::NotFound("upload"),
        error => error.into(),
    }
}
