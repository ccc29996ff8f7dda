//! The end of an upload: assemble, verify, publish.

use std::sync::Arc;

use super::{
    App, Error, Result,
    incoming::{Arriving, Incoming, check_digest},
    possession::Possession,
    publish::{Prepared, only},
    upload::upload_error,
};
use crate::{
    blob::{self, Address, Join, Purpose, Sealed},
    meta::{self, Asker, NewFile},
    metrics::stores,
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        id::UploadId,
        name::{FileName, Folder, UserId},
        principal::Principal,
        upload::{Completeness, Mode, Part, Upload, UploadState, completeness},
    },
};

/// What a client says when it completes an upload.
pub struct Completion {
    pub id: UploadId,
    pub sha256: Option<Sha256>,
    pub name: Option<FileName>,
    pub folder: Option<Folder>,
    /// The user whom a service names as the owner; must be the one named at init.
    pub user: Option<UserId>,
    /// Its members override those of init.
    pub meta: CallerMeta,
    /// Content that came with the request; ignored when parts were received.
    pub inline: Option<Incoming>,
    /// A proof of possession in place of content; ignored when parts were received.
    pub possession: Option<Possession>,
    /// The client sends its bytes in order, so what lies behind damage is of no use to it.
    pub in_order: bool,
}

/// The result of a completion.
pub enum Completed {
    One(Box<FileRecord>),
    Batch(Vec<FileRecord>),
}

/// A durable blob, and whether its bytes were just received or just read from the disk.
struct Whole {
    sealed: Sealed,
    is_checked: bool,
}

impl Whole {
    fn checked(sealed: Sealed) -> Self {
        Self { sealed, is_checked: true }
    }
}

impl App {
    /// Turns a session, or all sessions of a batch, into files: all of them or none. Idempotent.
    ///
    /// # Errors
    /// [`Error::PartsMissing`], [`Error::PartsDamaged`], [`Error::Conflict`], [`Error::Invalid`]
    /// for a wrong size or digest; the upload stays open then.
    pub async fn complete_upload(
        self: &Arc<Self>,
        principal: &Principal,
        completion: Completion,
    ) -> Result<Completed> {
        let named = self.naming(principal, completion.user.clone())?;
        let anybody = principal.naming_nobody();
        let (owner, batch) = match self.own_batch(&anybody, completion.id).await? {
            Some(batch) => (batch.owner.clone(), Some(batch)),
            None => (self.own_upload(&anybody, completion.id).await?.owner, None),
        };
        check_owner(&named, &owner)?;
        if let Some(folder) = &completion.folder {
            self.check_scope(principal, &owner, folder)?;
        }
        let of_batch = batch.iter().flat_map(|batch| &batch.uploads);
        let partials = self.meta.partials(completion.id).await?;
        let stay = self.keep(of_batch.chain(&partials).chain([&completion.id])).await?;
        // One completion of a session runs at a time; a second one finds the result. A batch locks
        // all of its sessions. The order does not matter, as no two batches share a session.
        let mut alone = vec![self.completing.lock(completion.id).await];
        for id in batch.iter().flat_map(|batch| &batch.uploads) {
            alone.push(self.completing.lock(*id).await);
        }
        let principal = principal.clone();
        self.detached(|app| async move {
            let (_alone, _stay) = (alone, stay);
            if let Some(batch) = batch {
                completion.check_for_batch()?;
                let files = app.complete_batch(&principal, &batch.uploads).await?;
                return Ok(Completed::Batch(files));
            }
            let file = app.complete_one(&principal, completion).await?;
            Ok(Completed::One(Box::new(file)))
        })
        .await
    }

    /// Keeps sessions from expiring, if they are not over yet.
    async fn keep<'a>(&self, ids: impl Iterator<Item = &'a UploadId>) -> Result<Vec<Arriving>> {
        let mut kept = Vec::new();
        for id in ids {
            if self.live(*id).await?.is_some() {
                kept.push(self.arriving(*id));
            }
        }
        Ok(kept)
    }

    /// The file of a completed session. It may lie in another folder than init said.
    pub(super) async fn completed(
        &self,
        principal: &Principal,
        upload: &Upload,
    ) -> Result<Option<FileRecord>> {
        match upload.state {
            UploadState::Completed(file) => {
                let file = self.meta.file_by_id(file).await?.ok_or(Error::Gone("file"))?;
                self.check_scope(principal, &file.owner, &file.folder)?;
                Ok(Some(file))
            }
            UploadState::Open => Ok(None),
        }
    }

    async fn complete_one(
        &self,
        principal: &Principal,
        completion: Completion,
    ) -> Result<FileRecord> {
        let upload = self.session(completion.id).await?;
        if let Some(file) = self.completed(principal, &upload).await? {
            check_digest(completion.sha256, file.sha256, "sha256_mismatch")?;
            return Ok(file);
        }
        let revision = upload.revision;
        let id = upload.id;
        let outcome = match self.prepare(principal, upload, completion).await {
            Ok(prepared) => self.record(vec![prepared]).await.and_then(only),
            Err(error) => Err(error),
        };
        match outcome {
            Err(Error::PartsDamaged(_)) => outcome,
            // A part that was sent again meanwhile removed bytes that this completion was made of.
            Err(_) if self.session(id).await?.revision != revision => {
                Err(meta::Error::Changed.into())
            }
            outcome => outcome,
        }
    }

    /// The files of a batch in the order of its init: all of them, or none.
    async fn complete_batch(
        &self,
        principal: &Principal,
        ids: &[UploadId],
    ) -> Result<Vec<FileRecord>> {
        // Missing parts are found before any bytes are copied.
        for id in ids {
            let upload = self.session(*id).await.map_err(|error| error.of_upload(*id))?;
            if upload.state == UploadState::Open {
                let limit = self.policy().part_bytes_max;
                let complete = check_complete(&upload, &self.meta.parts(*id).await?, limit);
                complete.map_err(|error| error.of_upload(*id))?;
            }
        }
        let (mut files, mut prepared) = (Vec::new(), Vec::new());
        for id in ids {
            match self.prepare_of_batch(principal, *id, &mut prepared).await {
                Ok(file) => files.push(file),
                Err(error) => {
                    for ready in prepared {
                        self.discard_prepared(&ready).await;
                    }
                    return Err(error.of_upload(*id));
                }
            }
        }
        if !prepared.is_empty() {
            let pending = files.iter_mut().filter(|file| file.is_none());
            for (file, recorded) in pending.zip(self.record(prepared).await?) {
                *file = Some(recorded);
            }
        }
        Ok(files.into_iter().flatten().collect())
    }

    /// Returns the file of an upload that was completed before. Any other upload is added to
    /// `prepared`, to be recorded.
    async fn prepare_of_batch(
        &self,
        principal: &Principal,
        id: UploadId,
        prepared: &mut Vec<Prepared>,
    ) -> Result<Option<FileRecord>> {
        let upload = self.session(id).await?;
        let done = self.completed(principal, &upload).await?;
        if done.is_none() {
            prepared.push(self.prepare(principal, upload, Completion::of(id)).await?);
        }
        Ok(done)
    }

    async fn session(&self, id: UploadId) -> Result<Upload> {
        self.live(id).await?.ok_or(Error::NotFound("upload"))
    }

    /// Makes one durable blob of what arrived and checks it against what was declared.
    async fn prepare(
        &self,
        principal: &Principal,
        upload: Upload,
        completion: Completion,
    ) -> Result<Prepared> {
        let meta = completion.meta.before(&upload.meta).ok_or_else(|| {
            let detail = "meta must be at most 4 KiB of JSON, including that of init.";
            Error::invalid("meta_too_large", detail)
        })?;
        // Before the parts are read: it closes the assembly, so that a part recorded after the read
        // lies where nothing is written.
        let joining = self.blobs.join(upload.id).await?;
        let (parts, revision) = self.sources(&upload).await?;
        let inline = completion.inline.filter(|_| parts.is_empty() && upload.mode != Mode::Final);
        let possession = completion.possession.filter(|_| parts.is_empty());
        let partials = self.meta.partials(upload.id).await?;
        let Whole { sealed, is_checked } = match inline {
            _ if let Some(possession) = &possession => {
                Whole::checked(self.proven(principal, &upload, possession).await?)
            }
            Some(mut inline) => {
                check_size(upload.declared(), inline.received())?;
                Whole::checked(inline.seal(Purpose::Blob).await?)
            }
            None => {
                let in_order = completion.in_order || upload.mode.is_in_order();
                self.join(joining, &upload, &parts, revision, in_order).await?
            }
        };
        let name = completion.name.unwrap_or(upload.name);
        let folder = completion.folder.unwrap_or(upload.folder);
        let file = self.file_record(upload.owner, folder, name, upload.mime, &sealed, meta);
        let prepared = Prepared {
            lies_in_part: parts.iter().any(|part| part.place == sealed.locator),
            new: NewFile {
                is_known: possession.is_some(),
                upload: Some((upload.id, revision)),
                ..self.new_file(file, sealed.locator, Asker::Service)?
            },
            is_checked,
            partials,
        };
        for expected in [upload.sha256, completion.sha256] {
            if let Err(mismatch) = check_digest(expected, sealed.sha256, "sha256_mismatch") {
                self.discard_prepared(&prepared).await;
                return Err(mismatch);
            }
        }
        Ok(prepared)
    }

    /// Makes one blob of all parts. The bytes of a single part are not touched.
    async fn join(
        &self,
        joining: Box<dyn Join>,
        upload: &Upload,
        parts: &[Part],
        revision: u64,
        in_order: bool,
    ) -> Result<Whole> {
        if upload.declared().is_none() {
            let sizes = parts.iter().map(|part| part.size);
            self.check_file_size(sizes.fold(0, u64::saturating_add))?;
        }
        check_complete(upload, parts, self.policy().part_bytes_max)?;
        let joined = if let [part] = parts {
            let Part { size, blake3, sha256, .. } = *part;
            let promoted = joining.promote(&address(part)).await;
            promoted.map(|locator| Sealed { size, blake3, sha256, locator })
        } else {
            // What a backup has just listed must not be written over.
            let allowed = self.removals.try_begin();
            let parts = parts.iter().map(address).collect();
            joining.assemble(parts, allowed.is_some()).await
        };
        let joined = match joined {
            Ok(sealed) => self.read_duplicate(sealed).await?,
            Err(damage) => Err(damage),
        };
        match joined {
            Err(damage) if damage.is_damage() => {
                self.forget_damaged_sources(upload, parts, in_order).await?;
                // A part that was sent again meanwhile removed bytes that the blob was to be made
                // of.
                let (_, now) = self.sources(&self.session(upload.id).await?).await?;
                Err(if now == revision { damage.into() } else { meta::Error::Changed.into() })
            }
            joined => Ok(joined?),
        }
    }

    /// A new copy of content that is stored already replaces the earlier copy, for every file of
    /// that content. The digests of the new copy were computed as its bytes came, maybe long ago,
    /// so it is read from the disk first.
    async fn read_duplicate(&self, sealed: Sealed) -> Result<blob::Result<Whole>> {
        if self.meta.blob(&sealed.blake3).await?.is_none() {
            return Ok(Ok(Whole { sealed, is_checked: false }));
        }
        match self.reread(&sealed.blake3, &sealed.locator).await {
            Ok(_) => Ok(Ok(Whole::checked(sealed))),
            Err(damage) => {
                self.discard(&sealed.locator).await;
                Ok(Err(damage))
            }
        }
    }

    /// Forgets the parts whose bytes are no longer those that were acknowledged, so that the client
    /// can send them again. A client that sends `in_order` continues where the first of them began,
    /// so what lies behind that one is forgotten too.
    ///
    /// # Errors
    /// [`Error::PartsDamaged`] with the numbers of all parts that were forgotten, if any.
    pub(super) async fn forget_damaged(
        &self,
        id: UploadId,
        parts: &[Part],
        in_order: bool,
    ) -> Result<()> {
        let mut damaged: Vec<Part> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            match self.reread(&part.blake3, &part.place).await {
                Ok(_) => {}
                Err(error) if error.is_damage() && in_order => {
                    damaged.extend_from_slice(&parts[at..]);
                    break;
                }
                Err(error) if error.is_damage() => damaged.push(part.clone()),
                Err(error) => return Err(error.into()),
            }
        }
        // A part that was sent again meanwhile is not forgotten.
        let forgotten = self.meta.forget_parts(id, damaged).await.map_err(upload_error)?;
        let numbers: Vec<u32> = forgotten.iter().map(|part| part.number.0).collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        let count = numbers.len();
        let found = if in_order { 1 } else { count as u64 };
        stores::DAMAGE_FOUND.of("complete").add(found);
        let said = "damaged parts; the client has to send them again";
        tracing::error!(upload = %id, first, last, count, "{said}");
        self.discard_parts(&forgotten).await;
        Err(Error::PartsDamaged(numbers))
    }
}

impl Completion {
    /// A completion that names the upload and says nothing else.
    pub fn of(id: UploadId) -> Self {
        let (sha256, name, folder, user) = (None, None, None, None);
        let (meta, inline, possession, in_order) = (CallerMeta::default(), None, None, false);
        Self { id, sha256, name, folder, user, meta, inline, possession, in_order }
    }

    /// Refuses what belongs to one file and cannot be said of several.
    fn check_for_batch(&self) -> Result<()> {
        let Self { sha256, name, folder, meta, inline, possession, .. } = self;
        let of_one = sha256.is_some() || name.is_some() || folder.is_some();
        let of_content = inline.is_some() || possession.is_some();
        if of_one || of_content || !meta.0.is_empty() {
            let detail = "A whole batch takes no sha256, parts, known or meta: complete its \
                          uploads one by one.";
            return Err(Error::invalid("not_for_a_batch", detail));
        }
        Ok(())
    }
}

pub(super) fn address(part: &Part) -> Address {
    Address { blake3: part.blake3, size: part.size, locator: part.place.clone() }
}

fn check_complete(upload: &Upload, parts: &[Part], limit: u64) -> Result<()> {
    match completeness(upload, parts, limit) {
        Completeness::Complete => Ok(()),
        Completeness::Missing(numbers) => Err(Error::PartsMissing(numbers)),
        Completeness::SizeDiffers { declared, received } => check_size(Some(declared), received),
    }
}

fn check_size(declared: Option<u64>, received: u64) -> Result<()> {
    let Some(declared) = declared.filter(|declared| *declared != received) else { return Ok(()) };
    let detail = format!("{declared} bytes were declared, {received} were received.");
    Err(Error::invalid("size_mismatch", detail))
}

/// Refuses a service that names another user at complete than at init.
fn check_owner(principal: &Principal, owner: &UserId) -> Result<()> {
    if principal.named().is_some_and(|named| named != owner) {
        let detail = "The upload belongs to another user, the one named at init.";
        return Err(Error::conflict("owner_mismatch", detail));
    }
    Ok(())
}
