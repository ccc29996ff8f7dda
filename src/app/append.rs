//! Uploads that are written in order, as tus and the IETF draft do it: each request goes on where
//! the one before stopped, and the last byte, or who says that it was the last, completes the file.
//!
//! What a client sent before it vanished is kept. Of two requests for one upload the newer one
//! counts, since the older one's client may be long gone: it records what it has and ends.

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

/// How long an older request may take to let go, which takes it as long as syncing what it has.
const LET_GO: Duration = Duration::from_secs(30);

/// What comes from a client.
pub enum Arrival {
    Bytes(Bytes),
    /// Of all bytes before it.
    Digest(Digest),
}

/// The bytes of a piece as they arrive, and behind them maybe their digest.
pub trait Content: Stream<Item = Result<Arrival>> + Send + Unpin + 'static {}

impl<S: Stream<Item = Result<Arrival>> + Send + Unpin + 'static> Content for S {}

/// What completes an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Its last byte.
    Itself,
    /// This piece.
    Here,
    /// Not this piece, even if it brings the last byte.
    Later,
}

/// What a client says of a piece.
#[derive(Clone, Copy)]
pub struct Claim {
    /// Where the piece begins.
    pub offset: u64,
    /// The size of the whole, where it is said only now.
    pub size: Option<u64>,
    /// Bytes that will come.
    pub announced: Option<u64>,
    pub ends: Ends,
    /// What the whole must be, asked where it ends.
    pub whole: Option<Sha256>,
}

/// What a client adds to an upload.
pub struct Piece<C> {
    pub claim: Claim,
    pub checksum: Option<Checksum>,
    pub content: C,
}

/// How far an upload is.
pub struct Progress {
    pub upload: Upload,
    pub offset: u64,
    /// What it became.
    pub file: Option<FileRecord>,
    /// Bytes of the whole, once that is known.
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

/// How a piece ended, when it was taken.
enum End {
    Whole,
    /// The client is gone, or another request came: nothing more will be read.
    Cut(Error),
}

impl App {
    /// Opens a session and writes to it at once. Where that fails nobody learns of the session, so
    /// it is not kept.
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
                tracing::debug!(upload = %id, %error, "an upload stays that nobody knows");
            }
            written
        })
        .await
    }

    /// Writes a piece where the upload ends, and completes it where the piece says so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it ends elsewhere, or another request came;
    /// [`Error::TooLarge`], [`Error::Quota`], [`Error::ChecksumDiffers`]: nothing of the piece is
    /// kept. With [`Error::BodyAborted`] and [`Error::BodyTimeout`] what came is.
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

    /// How far an upload is, once an older request for it has let go.
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

    /// The file that an upload became, once an older request for it has let go.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Gone`] when that file was deleted.
    pub async fn file_of(&self, principal: &Principal, id: UploadId) -> Result<Option<FileRecord>> {
        self.own_upload(principal, id).await?;
        drop(self.take_over(id).await?);
        self.completed(principal, &self.own_upload(principal, id).await?).await
    }

    /// As [`App::abort_upload`], once an older request for it has let go.
    ///
    /// # Errors
    /// As there.
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
            // Whatever comes, the upload stays as it is: nobody has to wait for it.
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
            // Half of it cannot be checked.
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

    /// A session, where it ends, and its last part. The others may be many, and the piece behind
    /// them takes as long as its client.
    async fn end_of(
        &self,
        principal: &Principal,
        id: UploadId,
    ) -> Result<(Upload, Tail, Option<Part>)> {
        let _look = self.look().await?;
        let Status { upload, mut parts } = self.upload_status(principal, id).await?;
        Ok((upload, tail(&parts), parts.pop()))
    }

    /// Whether the piece fits. Answers the session as it will be, and what the piece is appended
    /// to: a size that comes with it counts when the piece does.
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

    /// A last part grows up to this size, so that the numbers last for pieces of any size.
    fn tail_bytes(&self, upload: &Upload) -> u64 {
        let whole = upload.declared().unwrap_or(self.policy().file_bytes_max);
        whole.div_ceil(PART_NUMBER_MAX.into()).max(TAIL_BYTES_MIN)
    }

    /// Begins the part that the piece becomes, behind the bytes of `last`, which it replaces.
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
            let detail = "The upload has as many parts as there may be; its last one is full.";
            Error::invalid("too_many_parts", detail)
        })?;
        Ok((number, begin(number).await?))
    }

    /// Puts the bytes of `last` in front; damaged ones are forgotten, to be sent again.
    async fn precede(&self, id: UploadId, incoming: &mut Incoming, last: &Part) -> Result<()> {
        let stored = match self.blobs.open(&address(last), Slice::whole(last.size)).await {
            Ok(stored) => incoming.precede(stored).await,
            Err(error) => Err(error),
        };
        if stored.as_ref().is_err_and(blob::Error::is_damage) {
            self.forget_damaged(id, slice::from_ref(last), true).await?;
            // It was sent again meanwhile, which took these bytes away.
            if !self.meta.parts(id).await?.contains(last) {
                return Err(meta::Error::Changed.into());
            }
        }
        Ok(stored?)
    }

    /// How far the upload is. One that `ends` becomes a file; so does one that is whole, if that
    /// should have ended it before a crash.
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
            // Who only asks is told where it goes on.
            Err(Error::PartsDamaged(_)) if ends == Ends::Later => {
                let Status { upload, parts } = self.upload_status(principal, id).await?;
                Ok(Progress::open(upload, tail(&parts).offset))
            }
            Err(error) => Err(error),
        }
    }
}

/// Takes what comes until it ends, or the client vanishes, or another request wants the upload.
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
                let detail = "A newer request for the upload took its place; ask for its offset.";
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

/// A size that is not the one that was said before, or not that of what came.
pub fn inconsistent_length() -> Error {
    let detail = "The length is not what was said before, or not that of what is there.";
    Error::invalid("inconsistent_upload_length", detail)
}

/// A completed upload takes no more: tus lets a client say so, the draft does not.
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
            Err(Error::invalid("upload_completed", "The upload is completed already."))
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
