//! Uploads that are written in order, as tus and the IETF draft do it. Each request continues where
//! the one before stopped. The last byte, or the request that says it is the last, completes the
//! file.
//!
//! What a client sent before it vanished is kept. Of two requests for one upload the newer one
//! wins, since the client of the older one may be long gone: the older request records what it has
//! and ends.

use std::{slice, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use super::{
    App, Error, Result,
    checksum::{Checksum, Digest},
    complete::{Completed, Completion, address},
    concatenate::is_partial,
    incoming::Incoming,
    lease::Lease,
    upload::{Init, Status, upload_error},
};
use crate::{
    blob,
    meta::{self, AppendTo, Declared},
    model::{
        digest::Sha256,
        file::FileRecord,
        id::{PartNumber, UploadId},
        limits::{PART_NUMBER_MAX, TAIL_BYTES_MIN},
        principal::Principal,
        range::Slice,
        upload::{Mode, Part, Tail, Upload, UploadState, tail},
    },
};

/// How long an older request may take to release the upload. It syncs what it has first.
const LET_GO: Duration = Duration::from_secs(30);

/// One item of what a client sends.
pub enum Arrival {
    Bytes(Bytes),
    /// The digest of all bytes before it.
    Digest(Digest),
}

/// The bytes of a piece as they arrive, optionally followed by their digest.
pub trait Content: Stream<Item = Result<Arrival>> + Send + Unpin + 'static {}

impl<S: Stream<Item = Result<Arrival>> + Send + Unpin + 'static> Content for S {}

/// What completes an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The last byte of the upload.
    Itself,
    /// The end of this piece.
    Here,
    /// Not this piece, even if it brings the last byte.
    Later,
}

/// What a client declares about a piece.
#[derive(Clone, Copy)]
pub struct Claim {
    /// Where the piece begins.
    pub offset: u64,
    /// The size of the whole upload, when it is declared only now.
    pub size: Option<u64>,
    /// The number of bytes that will come.
    pub announced: Option<u64>,
    pub ends: Ends,
    /// The digest that the whole file must have. It is checked when the upload is completed.
    pub whole: Option<Sha256>,
}

/// What one request appends to an upload.
pub struct Piece<C> {
    pub claim: Claim,
    pub checksum: Option<Checksum>,
    pub content: C,
}

/// How far an upload has come.
pub struct Progress {
    pub upload: Upload,
    pub offset: u64,
    /// The file that the upload became.
    pub file: Option<FileRecord>,
    /// The size of the whole upload, once it is known.
    pub size: Option<u64>,
}

impl Progress {
    fn open(upload: Upload, offset: u64) -> Self {
        Self { size: upload.declared(), upload, offset, file: None }
    }

    pub(super) fn ended(upload: Upload, file: FileRecord) -> Self {
        Self { upload, offset: file.size, size: Some(file.size), file: Some(file) }
    }
}

/// How the body of a piece ended.
enum End {
    Whole,
    /// The client is gone, or another request came: no more is read.
    Cut(Error),
}

impl App {
    /// Opens a session and writes to it at once. If that fails, the session is not kept, since the
    /// client never learns of it.
    ///
    /// # Errors
    /// As [`App::init_upload`] and [`App::append`].
    pub async fn create_upload(
        self: &Arc<Self>,
        principal: &Principal,
        init: Init,
        piece: Option<Piece<impl Content>>,
    ) -> Result<Progress> {
        let principal = principal.clone();
        self.to_its_end(|app| async move {
            let id = app.init_upload(&principal, init).await?.id;
            let written = match piece {
                Some(piece) => app.write(&principal, id, piece).await,
                None => app.settle(&principal, id, Ends::Itself, None).await,
            };
            if written.is_err()
                && let Err(error) = app.abort_upload(&principal, id).await
            {
                tracing::debug!(upload = %id, %error, "a failed new upload was not removed");
            }
            written
        })
        .await
    }

    /// Writes a piece at the end of the upload, and completes the upload when the piece says so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::OffsetDiffers`] when the upload ends elsewhere;
    /// [`Error::TooLarge`], [`Error::Quota`], [`Error::ChecksumDiffers`]: nothing of the piece is
    /// kept. With [`Error::BodyAborted`], [`Error::BodyTimeout`], and [`Error::Conflict`] when a
    /// newer request came, what arrived is kept, unless the piece has a checksum.
    pub async fn append(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
        piece: Piece<impl Content>,
    ) -> Result<Progress> {
        self.own_upload(principal, id).await?;
        let principal = principal.clone();
        self.to_its_end(|app| async move { app.write(&principal, id, piece).await }).await
    }

    /// How far an upload has come, after any older request has released it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn progress(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
    ) -> Result<Progress> {
        self.own_upload(principal, id).await?;
        drop(self.take_over(id).await?);
        self.settle(principal, id, Ends::Later, None).await
    }

    /// The file that an upload became, after any older request has released the upload.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Gone`] when that file was deleted.
    pub async fn file_of(&self, principal: &Principal, id: UploadId) -> Result<Option<FileRecord>> {
        self.own_upload(principal, id).await?;
        drop(self.take_over(id).await?);
        self.completed(principal, &self.own_upload(principal, id).await?).await
    }

    /// As [`App::abort_upload`], after any older request has released the upload.
    ///
    /// # Errors
    /// As [`App::abort_upload`].
    pub async fn terminate_upload(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
    ) -> Result<()> {
        self.own_upload(principal, id).await?;
        let _lease = self.take_over(id).await?;
        self.abort_upload(principal, id).await
    }

    async fn take_over(&self, id: UploadId) -> Result<Lease> {
        timeout(LET_GO, self.appending.take_over(id)).await.map_err(|_| Error::Busy)
    }

    async fn write(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
        mut piece: Piece<impl Content>,
    ) -> Result<Progress> {
        let claim = piece.claim;
        let lease = self.take_over(id).await?;
        let (upload, tail, last) = self.end_of(principal, id).await?;
        if upload.mode == Mode::Final {
            return Err(Error::FinalUpload);
        }
        if upload.mode.is_partial() && claim.ends == Ends::Here {
            return Err(is_partial());
        }
        if let UploadState::Completed(_) = upload.state {
            let progress = self.settle(principal, id, Ends::Later, None).await?;
            // No piece can change a completed upload, so no other request needs to wait.
            drop(lease);
            return check_nothing_more(piece, progress.offset).await.map(|()| progress);
        }
        let (upload, to) = self.check_claim(upload, &tail, claim).await?;
        let may_grow = 1..self.tail_bytes(&upload);
        let last = last.filter(|last| may_grow.contains(&last.size));
        let (number, mut incoming) =
            self.begin_piece(&upload, &tail, last.as_ref(), claim.announced).await?;
        let end = receive(&mut piece, &mut incoming, &lease).await?;
        let holds = match (piece.checksum, &end) {
            (Some(checksum), End::Whole) => {
                checksum.holds().then_some(()).ok_or(Error::ChecksumDiffers)
            }
            // The checksum is that of the whole piece; a part of the piece cannot be checked.
            (Some(_), End::Cut(why)) => Err(why.clone()),
            (None, _) => Ok(()),
        };
        holds?;
        self.check_standing(principal).await?;
        if let (Ends::Here, End::Whole, Some(size)) = (claim.ends, &end, upload.declared())
            && tail.offset + incoming.received() != size
        {
            return Err(inconsistent_length());
        }
        if incoming.received() > 0 {
            self.keep_part(id, number, incoming, None, Some(to)).await?;
        } else if let Some(declared) = to.declares {
            self.declare_size(id, declared, to.revision).await?;
        }
        drop(lease);
        match end {
            End::Whole => self.settle(principal, id, claim.ends, claim.whole).await,
            End::Cut(error) => Err(error),
        }
    }

    /// A session, where it ends, and its last part. The other parts are not kept in memory: they
    /// may be many, and receiving the next piece takes as long as its client does.
    async fn end_of(
        &self,
        principal: &Principal,
        id: UploadId,
    ) -> Result<(Upload, Tail, Option<Part>)> {
        let _look = self.look().await?;
        let Status { upload, mut parts } = self.upload_status(principal, id).await?;
        Ok((upload, tail(&parts), parts.pop()))
    }

    /// Checks whether the piece fits. Returns the session as it will be, and what the piece is
    /// appended to. A size that is declared with the piece takes effect when the piece does.
    async fn check_claim(
        &self,
        upload: Upload,
        tail: &Tail,
        claim: Claim,
    ) -> Result<(Upload, AppendTo)> {
        if !tail.missing.is_empty() {
            return Err(Error::PartsMissing(tail.missing.clone()));
        }
        check_offset(tail.offset, claim.offset)?;
        let declared = claim.size.or(upload.declared());
        let differs = upload.declared().is_some_and(|known| declared != Some(known));
        if differs || declared.is_some_and(|size| size < tail.offset) {
            return Err(inconsistent_length());
        }
        self.check_file_size(declared.unwrap_or(0))?;
        let limit = declared.unwrap_or(self.policy().file_bytes_max);
        check_fits(claim.announced, tail.offset, limit)?;
        let mut to = AppendTo { revision: upload.revision, declares: None };
        let (Some(size), None) = (claim.size, upload.declared()) else {
            if upload.declared().is_none() {
                self.check_room(&upload.owner, claim.announced.unwrap_or(0)).await?;
            }
            return Ok((upload, to));
        };
        let mode = match (upload.mode, claim.ends) {
            (Mode::GrowingPartial, _) => Mode::Partial,
            (_, Ends::Itself) => Mode::Stream,
            _ => Mode::Single,
        };
        to.declares = Some(Declared { size, mode });
        let before = upload.reserved();
        let upload = Upload { size, mode, ..upload };
        self.check_room(&upload.owner, upload.reserved().saturating_sub(before)).await?;
        Ok((upload, to))
    }

    async fn declare_size(&self, id: UploadId, declared: Declared, revision: u64) -> Result<()> {
        let quota = self.policy().quota_bytes;
        let declared = self.meta.declare_size(id, declared, revision, quota).await;
        declared.map(drop).map_err(upload_error)
    }

    /// The size up to which a last part grows, so that the part numbers suffice for pieces of any
    /// size.
    fn tail_bytes(&self, upload: &Upload) -> u64 {
        let whole = upload.declared().unwrap_or(self.policy().file_bytes_max);
        whole.div_ceil(PART_NUMBER_MAX.into()).max(TAIL_BYTES_MIN)
    }

    /// Begins the part that the piece becomes. It starts with the bytes of `last`, which it
    /// replaces.
    async fn begin_piece(
        &self,
        upload: &Upload,
        tail: &Tail,
        last: Option<&Part>,
        announced: Option<u64>,
    ) -> Result<(PartNumber, Incoming)> {
        let whole = upload.declared().unwrap_or(self.policy().file_bytes_max);
        let limit = whole.saturating_sub(tail.offset).min(self.policy().part_bytes_max);
        let begin =
            |number| self.begin_placed(upload.id, number, "request body", limit, announced, last);
        if let Some(last) = last {
            let mut incoming = begin(last.number).await?;
            self.precede(upload.id, &mut incoming, last).await?;
            return Ok((last.number, incoming));
        }
        let number = PartNumber::new(tail.next).ok_or_else(|| {
            let detail = "The upload has the maximum number of parts, and the last one is full.";
            Error::invalid("too_many_parts", detail)
        })?;
        Ok((number, begin(number).await?))
    }

    /// Puts the bytes of `last` in front. Damaged bytes are forgotten, so that the client sends
    /// them again.
    async fn precede(&self, id: UploadId, incoming: &mut Incoming, last: &Part) -> Result<()> {
        let stored = match self.blobs.open(&address(last), Slice::whole(last.size)).await {
            Ok(stored) => incoming.precede(stored).await,
            Err(error) => Err(error),
        };
        if stored.as_ref().is_err_and(blob::Error::is_damage) {
            self.forget_damaged(id, slice::from_ref(last), true).await?;
            // The part was sent again meanwhile, which removed these bytes.
            if !self.meta.parts(id).await?.contains(last) {
                return Err(meta::Error::Changed.into());
            }
        }
        Ok(stored?)
    }

    /// How far the upload has come. The upload becomes a file where `ends` says so, and also where
    /// its last byte should have completed it but a crash prevented this.
    async fn settle(
        self: &Arc<Self>,
        principal: &Principal,
        id: UploadId,
        ends: Ends,
        whole: Option<Sha256>,
    ) -> Result<Progress> {
        let Status { upload, parts } = self.upload_status(principal, id).await?;
        if let Some(file) = self.completed(principal, &upload).await? {
            return Ok(Progress::ended(upload, file));
        }
        if upload.mode == Mode::Final {
            return self.conclude(principal, upload).await;
        }
        let end = tail(&parts);
        let (offset, is_whole) = (end.offset, end.is_whole(&upload));
        if upload.mode.is_partial() {
            if is_whole {
                self.conclude_final_of(principal, id).await;
            }
            return Ok(Progress::open(upload, offset));
        }
        let is_over = match ends {
            Ends::Itself => is_whole,
            Ends::Here => true,
            Ends::Later => is_whole && upload.mode == Mode::Stream,
        };
        if !is_over {
            return Ok(Progress::open(upload, offset));
        }
        let completion = Completion { sha256: whole, in_order: true, ..Completion::of(id) };
        match self.complete_upload(principal, completion).await {
            Ok(Completed::One(file)) => Ok(Progress::ended(upload, *file)),
            Ok(Completed::Batch(_)) => Err(Error::NotFound("upload")),
            // A request that only asks for progress is told where the upload continues.
            Err(Error::PartsDamaged(_)) if ends == Ends::Later => {
                let Status { upload, parts } = self.upload_status(principal, id).await?;
                Ok(Progress::open(upload, tail(&parts).offset))
            }
            Err(error) => Err(error),
        }
    }
}

/// Receives bytes until they end, the client vanishes, or another request wants the upload.
async fn receive(
    piece: &mut Piece<impl Content>,
    incoming: &mut Incoming,
    lease: &Lease,
) -> Result<End> {
    incoming.expect(piece.claim.announced.unwrap_or(0))?;
    loop {
        let next = tokio::select! {
            biased;
            () = lease.asked() => {
                let detail = "A newer request replaced this one; ask for the offset of the upload.";
                return Ok(End::Cut(Error::conflict("upload_taken_over", detail)));
            }
            next = piece.content.next() => next,
        };
        let bytes = match next {
            None => return Ok(End::Whole),
            Some(Ok(Arrival::Bytes(bytes))) => bytes,
            Some(Ok(Arrival::Digest(digest))) => {
                if let Some(checksum) = &mut piece.checksum {
                    checksum.expect(digest);
                }
                continue;
            }
            Some(Err(error)) => return Ok(End::Cut(error)),
        };
        if let Some(checksum) = &mut piece.checksum {
            checksum.update(&bytes).await?;
        }
        incoming.write(bytes).await?;
    }
}

fn check_offset(is: u64, said: u64) -> Result<()> {
    if is == said { Ok(()) } else { Err(Error::OffsetDiffers { is, said }) }
}

/// The error for a length that contradicts the one declared before or the bytes received.
pub fn inconsistent_length() -> Error {
    let detail = "The length contradicts the one declared before, or the bytes received.";
    Error::invalid("inconsistent_upload_length", detail)
}

/// A completed upload takes no more bytes. tus allows an empty piece at its end; the draft does
/// not.
async fn check_nothing_more(mut piece: Piece<impl Content>, size: u64) -> Result<()> {
    let claim = piece.claim;
    let is_of_tus = claim.ends == Ends::Itself;
    if is_of_tus {
        check_offset(size, claim.offset)?;
        if claim.size.is_some_and(|said| said != size) {
            return Err(inconsistent_length());
        }
        check_fits(claim.announced, size, size)?;
    }
    let mut brings_bytes = claim.announced.is_some_and(|announced| announced > 0);
    while !brings_bytes && let Some(arrival) = piece.content.next().await.transpose()? {
        match arrival {
            Arrival::Bytes(bytes) => brings_bytes = !bytes.is_empty(),
            Arrival::Digest(digest) => {
                if let Some(checksum) = &mut piece.checksum {
                    checksum.expect(digest);
                }
            }
        }
    }
    match (is_of_tus, brings_bytes) {
        (true, true) => Err(Error::TooLarge { what: "upload", limit: size }),
        (true, false) => {
            let holds = piece.checksum.is_none_or(Checksum::holds);
            holds.then_some(()).ok_or(Error::ChecksumDiffers)
        }
        (false, true) => Err(inconsistent_length()),
        (false, false) => {
            Err(Error::invalid("upload_completed", "The upload is already completed."))
        }
    }
}

fn check_fits(announced: Option<u64>, offset: u64, limit: u64) -> Result<()> {
    let end = offset.checked_add(announced.unwrap_or(0));
    if end.is_none_or(|end| end > limit) {
        return Err(Error::TooLarge { what: "upload", limit });
    }
    Ok(())
}
