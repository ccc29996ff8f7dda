//! Files made of several uploads, as tus does it: partial uploads, written side by side, and a
//! final upload that becomes a file of their bytes once all of them are whole.

use std::sync::Arc;

use super::{
    App, Error, Result,
    append::Progress,
    complete::{Completed, Completion},
    upload::{DeclaredFile, Init, Status, upload_error},
};
use crate::{
    meta,
    model::{
        id::UploadId,
        limits::PARTIALS_MAX,
        principal::Principal,
        upload::{Mode, Part, Upload, UploadState, tail},
    },
    sys::random,
};

impl App {
    /// Opens the final upload of partial ones, and completes it at once if they are whole.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a partial upload that does not exist for this principal or belongs
    /// to another user, [`Error::Invalid`] for one that is not partial, [`Error::Conflict`] for one
    /// that is part of another final upload; [`Error::TooLarge`].
    pub async fn concatenate(
        self: &Arc<Self>,
        principal: &Principal,
        init: Init,
        partials: Vec<UploadId>,
    ) -> Result<Progress> {
        let owner = self.acting_for(principal, init.user, false)?;
        self.check_scope(principal, &owner, &init.folder)?;
        if !(1..=PARTIALS_MAX).contains(&partials.len()) {
            return Err(Error::invalid(INVALID, "A final upload needs 1 to 1000 partial uploads."));
        }
        for id in &partials {
            let partial = self.own_upload(principal, *id).await?;
            if partial.owner != owner {
                return Err(Error::NotFound("upload"));
            }
            if !partial.mode.is_partial() {
                let detail = format!("The upload {id} is not a partial upload.");
                return Err(Error::invalid(INVALID, detail));
            }
        }
        let Some(DeclaredFile { name, mime, .. }) = init.files.into_iter().next() else {
            return Err(Error::Internal("a final upload without a file".into()));
        };
        let now = self.clock.now();
        let upload = Upload {
            id: random::upload_id(),
            owner,
            name,
            folder: init.folder,
            mime,
            size: 0,
            mode: Mode::Final,
            sha256: None,
            meta: init.meta,
            expires: now.after(self.policy().upload_ttl),
            received: 0,
            revision: 0,
            state: UploadState::Open,
        };
        let created = self.meta.create_final(upload.clone(), partials, now).await;
        created.map_err(|error| match error {
            meta::Error::Exists => {
                let detail = "A partial upload can be part of one final upload only, once.";
                Error::conflict("upload_concatenated", detail)
            }
            error => upload_error(error),
        })?;
        let id = upload.id;
        let concluded = self.conclude(principal, upload).await;
        if concluded.is_err()
            && let Err(error) = self.abort_upload(principal, id).await
        {
            tracing::debug!(upload = %id, %error, "a failed new upload was not removed");
        }
        concluded
    }

    /// The uploads that a final one is made of.
    pub async fn partials(&self, id: UploadId) -> Result<Vec<UploadId>> {
        Ok(self.meta.partials(id).await?)
    }

    /// How far an open final upload has come: it becomes a file once nothing is missing.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        principal: &Principal,
        upload: Upload,
    ) -> Result<Progress> {
        let (mut offset, mut size, mut is_ready) = (0_u64, Some(0_u64), true);
        for id in self.meta.partials(upload.id).await? {
            // A partial upload that is gone is part of a file by now, or the completion will miss
            // it.
            let Some(Status { upload: partial, parts }) = self.standing(id).await? else {
                continue;
            };
            let tail = tail(&parts);
            is_ready &= tail.is_whole(&partial);
            offset = offset.saturating_add(tail.offset);
            size = size.zip(partial.declared()).and_then(|(sum, own)| sum.checked_add(own));
        }
        self.check_file_size(size.unwrap_or(offset))?;
        if !is_ready {
            return Ok(Progress { upload, offset, file: None, size });
        }
        match self.complete_upload(principal, Completion::of(upload.id)).await? {
            Completed::One(file) => Ok(Progress::ended(upload, *file)),
            Completed::Batch(_) => Err(Error::NotFound("upload")),
        }
    }

    /// Concludes the final upload that waits for a partial one. Whatever prevents this is told to
    /// those who ask for the final upload.
    pub(super) async fn conclude_final_of(self: &Arc<Self>, principal: &Principal, id: UploadId) {
        let concluded = async {
            let Some(of) = self.meta.final_of(id).await? else { return Ok(()) };
            let upload = self.own_upload(principal, of).await?;
            self.conclude(principal, upload).await.map(drop)
        };
        if let Err(error) = concluded.await {
            tracing::debug!(partial = %id, %error, "a final upload could not be completed yet");
        }
    }

    /// The parts that the file of a session is made of, which are its own or those of its partial
    /// uploads, and a revision that covers all of these sessions.
    pub(super) async fn sources(&self, upload: &Upload) -> Result<(Vec<Part>, u64)> {
        if upload.mode.is_partial() {
            return Err(is_partial());
        }
        let mut parts = self.meta.parts(upload.id).await?;
        let mut revision = upload.revision;
        for id in self.meta.partials(upload.id).await? {
            let partial = self.standing(id).await?.ok_or(Error::Gone("partial upload"))?;
            if !tail(&partial.parts).is_whole(&partial.upload) {
                let detail = "The partial uploads are not complete yet; the upload stays open.";
                return Err(Error::conflict("partials_unfinished", detail));
            }
            revision = revision.saturating_add(partial.upload.revision);
            parts.extend(partial.parts);
        }
        Ok((parts, revision))
    }

    /// As [`App::forget_damaged`], for the parts that [`App::sources`] returned.
    pub(super) async fn forget_damaged_sources(
        &self,
        upload: &Upload,
        parts: &[Part],
        in_order: bool,
    ) -> Result<()> {
        if upload.mode != Mode::Final {
            return self.forget_damaged(upload.id, parts, in_order).await;
        }
        // Each partial upload tells from then on where it continues; the error names the first one.
        let mut outcome = Ok(());
        for id in self.meta.partials(upload.id).await? {
            let parts = self.meta.parts(id).await?;
            match self.forget_damaged(id, &parts, true).await {
                Err(damage @ Error::PartsDamaged(_)) => {
                    outcome = outcome.and(Err(damage.of_upload(id)));
                }
                of_one => of_one?,
            }
        }
        outcome
    }
}

const INVALID: &str = "invalid_upload_concat";

/// The error for a partial upload that is to become a file by itself.
pub(super) fn is_partial() -> Error {
    let detail = "A partial upload becomes a file only as part of a final upload of tus.";
    Error::conflict("partial_upload", detail)
}
