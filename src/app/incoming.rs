//! Bytes of a client on their way into the store.

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::{App, Error, Result, complete::address};
use crate::{
    blob::{self, Begun, Purpose, Reader, Sealed, Site, Stage},
    meta::{self, UserRecord},
    model::{
        digest::Sha256,
        id::{PartNumber, UploadId},
        limits::PLACED_BYTES_MIN,
        locator::Locator,
        name::{Folder, UserId},
        range::Slice,
        upload::{Part, Upload, UploadState, leading, span_from_zero, span_of},
    },
    sys::counts::Held,
};

/// Keeps a session from expiring; of none where the bytes are of none.
pub(super) type Arriving = Option<Held<UploadId>>;

/// Requests about to receive bytes that may hold at a time what is known of all parts of an upload,
/// which is megabytes for one of ten thousand.
pub(super) const LOOKS_MAX: usize = 8;

/// A body that is being received, held to a limit.
pub struct Incoming {
    stage: Box<dyn Stage>,
    what: &'static str,
    limit: u64,
    left: u64,
    _arriving: Arriving,
}

impl Incoming {
    /// # Errors
    /// [`Error::TooLarge`] past the limit, and what the store says.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or(Error::TooLarge { what: self.what, limit: self.limit })?;
        Ok(self.stage.write(bytes).await?)
    }

    /// Refuses a body that says it is larger than the limit, before it is read.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn expect(&self, bytes: u64) -> Result<()> {
        if bytes > self.left {
            return Err(Error::TooLarge { what: self.what, limit: self.limit });
        }
        Ok(())
    }

    /// Takes no more than this, which the client says it is.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when that is more than may be.
    pub fn limit_to(&mut self, bytes: u64) -> Result<()> {
        self.expect(bytes)?;
        (self.limit, self.left) = (bytes, bytes);
        Ok(())
    }

    /// Keeps the session that it is for from expiring meanwhile.
    fn of(self, arriving: Arriving) -> Self {
        Self { _arriving: arriving, ..self }
    }

    /// Puts bytes that were stored before in front of those that come; they do not count.
    pub(super) async fn precede(&mut self, mut stored: Box<dyn Reader>) -> blob::Result<()> {
        while let Some(bytes) = stored.next().await? {
            self.stage.write(bytes).await?;
        }
        Ok(())
    }

    /// How many bytes came so far.
    pub fn received(&self) -> u64 {
        self.limit - self.left
    }

    /// Makes the bytes durable. A part keeps its place until it is recorded and this is dropped.
    pub(super) async fn seal(&mut self, purpose: Purpose) -> Result<Sealed> {
        Ok(self.stage.seal(purpose).await?)
    }
}

impl App {
    /// Begins to take one part. Nothing is recorded, and dropping it forgets the bytes.
    pub async fn begin_part(&self) -> Result<Incoming> {
        self.begin("part", self.policy().part_bytes_max).await
    }

    /// As [`App::begin_part`] for a whole file.
    pub async fn begin_file(&self) -> Result<Incoming> {
        self.begin("file", self.policy().file_bytes_max).await
    }

    pub(super) async fn begin(&self, what: &'static str, limit: u64) -> Result<Incoming> {
        let stage = self.blobs.stage().await?;
        Ok(Incoming { stage, what, limit, left: limit, _arriving: None })
    }

    /// Says for which session bytes come that began to come before that was known.
    pub fn arrives_for(&self, id: UploadId, incoming: Incoming) -> Incoming {
        incoming.of(self.arriving(id))
    }

    /// However many there are.
    pub(super) fn arriving(&self, id: UploadId) -> Arriving {
        self.arrivals.enter(id, usize::MAX)
    }

    /// As [`App::begin_part`], when it is known before its bytes which part it is, and maybe how
    /// long: a large one is put where it belongs in the whole.
    pub async fn begin_part_of(
        &self,
        id: UploadId,
        number: PartNumber,
        announced: Option<u64>,
    ) -> Result<Incoming> {
        let limit = self.policy().part_bytes_max;
        self.begin_placed(id, number, "part", limit, announced, None).await
    }

    /// Begins a part that may continue the last one, and then takes its place.
    pub(super) async fn begin_placed(
        &self,
        id: UploadId,
        number: PartNumber,
        what: &'static str,
        limit: u64,
        announced: Option<u64>,
        continues: Option<&Part>,
    ) -> Result<Incoming> {
        let arriving = self.arriving(id);
        let known = continues.map_or(0, |part| part.size);
        let bytes = announced.map(|bytes| known.saturating_add(bytes));
        if bytes.is_some_and(|bytes| bytes <= PLACED_BYTES_MIN) {
            return Ok(self.begin(what, limit).await?.of(arriving));
        }
        let Begun { mut stage, lowest } = self.blobs.stage_part(id, number).await?;
        // A place that is free now may be named by what a backup has just listed.
        let Some(_allowed) = self.removals.try_begin() else {
            return Ok(Incoming { stage, what, limit, left: limit, _arriving: arriving });
        };
        let _look = self.look().await?;
        // Read after the stage has begun: what it does not see is not there yet.
        if let Some(upload) = self.meta.upload(id).await?
            && upload.state == UploadState::Open
        {
            let parts = self.meta.parts(id).await?;
            let most = bytes.unwrap_or(known.saturating_add(limit));
            let part_bytes_max = self.policy().part_bytes_max;
            let span = span_of(&upload, &parts, lowest.0, number.0, bytes, most, part_bytes_max);
            // What was read before the stage began may be another's by now; then this part will be
            // refused, and lies where nobody minds.
            let continued_is_there = continues.is_none_or(|part| parts.contains(part));
            if let Some(span) = span.filter(|_| continued_is_there) {
                stage.place(site(&upload, &parts, span, number, continues, part_bytes_max));
            }
        }
        Ok(Incoming { stage, what, limit, left: limit, _arriving: arriving })
    }

    /// Waits for its turn to read what is known of all parts of an upload, and to let it go again.
    pub(super) async fn look(&self) -> Result<SemaphorePermit<'_>> {
        self.looks.acquire().await.map_err(|_| Error::Busy)
    }

    /// Refuses content that cannot fit the quota of `owner` before it is received. The commit
    /// checks again.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub async fn check_room(&self, owner: &UserId, asked: u64) -> Result<()> {
        let user = self.meta.user(owner).await?;
        let user = user.unwrap_or_else(|| UserRecord::new(owner.clone(), self.clock.now()));
        let stored = self.meta.totals(owner, &Folder::default()).await?.bytes;
        Ok(user.check_quota(stored, asked, self.policy().quota_bytes)?)
    }

    /// Makes the bytes durable. Those of another content than `expected` are dropped again.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `code` for other content, and what the store says.
    pub(super) async fn seal_blob(
        &self,
        incoming: &mut Incoming,
        expected: Option<Sha256>,
        code: &'static str,
    ) -> Result<Sealed> {
        let sealed = incoming.seal(Purpose::Blob).await?;
        if let Err(mismatch) = check_digest(expected, sealed.sha256, code) {
            self.discard(&sealed.locator).await;
            return Err(mismatch);
        }
        Ok(sealed)
    }

    /// After a failed commit the record may or may not be on the disk: the bytes stay.
    pub(super) async fn discard_unless_uncertain(&self, locator: &Locator, error: &meta::Error) {
        if !error.is_uncertain() {
            self.discard(locator).await;
        }
    }

    /// Answers how many bytes of the disk came back. Those that stay are litter, found again by gc:
    /// worth a line, not an error to a client.
    pub(super) async fn discard(&self, locator: &Locator) -> u64 {
        let Some(_allowed) = self.removals.try_begin() else { return 0 };
        self.blobs.discard(locator).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "unreferenced bytes were not removed");
            0
        })
    }
}

fn site(
    upload: &Upload,
    parts: &[Part],
    span: Slice,
    number: PartNumber,
    continues: Option<&Part>,
    part_bytes_max: u64,
) -> Site {
    let others = parts.iter().filter(|part| Some(*part) != continues);
    Site {
        span,
        from_zero: span_from_zero(upload, parts, number.0, span.len(), part_bytes_max),
        whole: upload.declared(),
        leading: leading(parts, number.0),
        parts: others.map(address).collect(),
        continues: continues.map(address),
    }
}

pub(super) fn check_digest(
    expected: Option<Sha256>,
    actual: Sha256,
    code: &'static str,
) -> Result<()> {
    match expected {
        Some(expected) if expected != actual => {
            let detail = format!("The content has SHA-256 {actual}, not {expected}.");
            Err(Error::invalid(code, detail))
        }
        _ => Ok(()),
    }
}
