//! Bytes of a client on their way into the store.

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::{App, Error, Result, complete::address};
use crate::{
    blob::{self, Address, Begun, Purpose, Reader, Sealed, Site, Stage},
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

/// Keeps a session from expiring; `None` for bytes that belong to no session.
pub(super) type Arriving = Option<Held<UploadId>>;

/// How many requests that are about to receive bytes may hold the records of all parts of an upload
/// at the same time. For an upload of ten thousand parts, these records take megabytes.
pub(super) const LOOKS_MAX: usize = 8;

/// A body that is being received, up to a limit.
pub struct Incoming {
    stage: Box<dyn Stage>,
    what: &'static str,
    limit: u64,
    left: u64,
    _arriving: Arriving,
}

impl Incoming {
    /// # Errors
    /// [`Error::TooLarge`] past the limit, and the errors of the store.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or(Error::TooLarge { what: self.what, limit: self.limit })?;
        Ok(self.stage.write(bytes).await?)
    }

    /// Refuses a body whose announced size exceeds the limit, before it is read.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn expect(&self, bytes: u64) -> Result<()> {
        if bytes > self.left {
            return Err(Error::TooLarge { what: self.what, limit: self.limit });
        }
        Ok(())
    }

    /// Lowers the limit to the size that the client announced.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when that size exceeds the limit.
    pub fn limit_to(&mut self, bytes: u64) -> Result<()> {
        self.expect(bytes)?;
        (self.limit, self.left) = (bytes, bytes);
        Ok(())
    }

    /// Keeps the session of these bytes from expiring while they arrive.
    fn of(self, arriving: Arriving) -> Self {
        Self { _arriving: arriving, ..self }
    }

    /// Puts bytes that were stored before in front of those that come. They do not count as
    /// received.
    pub(super) async fn precede(&mut self, mut stored: Box<dyn Reader>) -> blob::Result<()> {
        while let Some(bytes) = stored.next().await? {
            self.stage.write(bytes).await?;
        }
        Ok(())
    }

    /// The number of bytes that came so far.
    pub fn received(&self) -> u64 {
        self.limit - self.left
    }

    /// Makes the bytes durable. A part keeps its place until it is recorded and this value is
    /// dropped.
    pub(super) async fn seal(&mut self, purpose: Purpose) -> Result<Sealed> {
        Ok(self.stage.seal(purpose).await?)
    }
}

impl App {
    /// Begins to receive one part. Nothing is recorded, and dropping the result discards the bytes.
    pub async fn begin_part(&self) -> Result<Incoming> {
        self.begin("part", self.policy().part_bytes_max).await
    }

    /// As [`App::begin_part`], for a whole file.
    pub async fn begin_file(&self) -> Result<Incoming> {
        self.begin("file", self.policy().file_bytes_max).await
    }

    pub(super) async fn begin(&self, what: &'static str, limit: u64) -> Result<Incoming> {
        let stage = self.blobs.stage().await?;
        Ok(Incoming { stage, what, limit, left: limit, _arriving: None })
    }

    /// Assigns bytes to a session that became known only after they had begun to arrive.
    pub fn arrives_for(&self, id: UploadId, incoming: Incoming) -> Incoming {
        incoming.of(self.arriving(id))
    }

    /// Marks the arrival of bytes for a session; any number may arrive at a time.
    pub(super) fn arriving(&self, id: UploadId) -> Arriving {
        self.arrivals.enter(id, usize::MAX)
    }

    /// As [`App::begin_part`], when the number of the part, and maybe its length, is known before
    /// its bytes. A large part is written where it belongs in the whole.
    pub async fn begin_part_of(
        &self,
        id: UploadId,
        number: PartNumber,
        announced: Option<u64>,
    ) -> Result<Incoming> {
        let limit = self.policy().part_bytes_max;
        self.begin_placed(id, number, "part", limit, announced, None).await
    }

    /// Begins a part. It may continue the last part, and then replaces it.
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
        // A backup may have just listed a record that names a place which is free now.
        let Some(_allowed) = self.removals.try_begin() else {
            return Ok(Incoming { stage, what, limit, left: limit, _arriving: arriving });
        };
        let _look = self.look().await?;
        // Read after the stage has begun: a part that this read does not see is not recorded yet.
        if let Some(upload) = self.meta.upload(id).await?
            && upload.state == UploadState::Open
        {
            let parts = self.meta.parts(id).await?;
            let most = bytes.unwrap_or(known.saturating_add(limit));
            let part_bytes_max = self.policy().part_bytes_max;
            let span = span_of(&upload, &parts, lowest.0, number.0, bytes, most, part_bytes_max);
            // The part to continue was read before the stage began, so its place may belong to
            // another part by now. This part will then be refused, and lies where it is in nobody's
            // way.
            let continued_is_there = continues.is_none_or(|part| parts.contains(part));
            if let Some(span) = span.filter(|_| continued_is_there) {
                stage.place(site(&upload, parts, span, number, continues, part_bytes_max));
            }
        }
        Ok(Incoming { stage, what, limit, left: limit, _arriving: arriving })
    }

    /// Waits for a permit to hold the records of all parts of an upload in memory.
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

    /// Makes the bytes durable. Bytes whose digest is not `expected` are discarded again.
    ///
    /// # Errors
    /// [`Error::Invalid`] with `code` for another digest, and the errors of the store.
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

    /// Discards bytes after a failed commit, unless their record may be on the disk: then they
    /// stay.
    pub(super) async fn discard_unless_uncertain(&self, locator: &Locator, error: &meta::Error) {
        if !error.is_uncertain() {
            self.discard(locator).await;
        }
    }

    /// Returns how many bytes of the disk were freed. Bytes that could not be removed are litter
    /// that gc finds again: this is logged, and is no error for a client.
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
    parts: Vec<Part>,
    span: Slice,
    number: PartNumber,
    continues: Option<&Part>,
    part_bytes_max: u64,
) -> Site {
    let from_zero = span_from_zero(upload, &parts, number.0, span.len(), part_bytes_max);
    let leading = leading(&parts, number.0);
    let others = parts.into_iter().filter(|part| Some(part) != continues);
    Site {
        span,
        from_zero,
        whole: upload.declared(),
        leading,
        parts: others
            .map(|Part { blake3, size, place, .. }| Address { blake3, size, locator: place })
            .collect(),
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
