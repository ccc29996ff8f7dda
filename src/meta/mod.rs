//! SEAM 1: users, service tokens, upload sessions and the file index.
//!
//! Each method is one atomic step, which is durable when the method returns `Ok`. A read never
//! shows anything that is not durable. No transaction, iterator or table name crosses the seam.
//! Times are passed as arguments; permissions are not checked here.
//!
//! Except for [`Metadata::export`] and [`Upkeep::check`], which walk everything, every method costs
//! the same at a thousand and at ten million files: a method visits no more files or blobs than it
//! returns, or than its limit allows.
//!
//! [`sled`] is the engine for one machine; [`memory`] is the reference engine that it is compared
//! with.

pub mod accounts;
pub mod concatenation;
pub mod memory;
pub mod selection;
pub mod sled;
pub mod upkeep;

use std::path::Path;

use async_trait::async_trait;

pub use self::{
    accounts::{Accounts, UserRecord},
    concatenation::Concatenations,
    selection::{Selection, Selections},
    upkeep::Upkeep,
};
use crate::model::{
    digest::{ContentHash, Sha256},
    file::{FileRecord, Totals},
    id::{FileId, PartNumber, UploadId},
    key::FileKey,
    locator::Locator,
    name::{Folder, UserId},
    time::UnixMillis,
    upload::{Mode, Part, Upload, UploadState},
};

/// Several uploads that are begun and completed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: UploadId,
    pub owner: UserId,
    pub uploads: Vec<UploadId>,
}

/// A blob that files refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    pub locator: Locator,
    /// The number of files that have this content.
    pub references: u64,
    /// Since when the blob's bytes are known to differ from what was stored.
    pub damaged: Option<UnixMillis>,
}

/// Who requests a step on behalf of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// A service. If the user has no record, the step creates one.
    #[default]
    Service,
    /// The user, with a token that was issued in this Unix second. At the moment of the step the
    /// user must not be disabled, and tokens issued in that second must not have been ended. So an
    /// old token does not bring back a user that was deleted.
    Owner { issued: u64 },
}

/// A file to be recorded: its record, where its bytes lie, and the session that it ends.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub file: FileRecord,
    pub locator: Locator,
    /// The content is already stored, at `locator`.
    pub is_known: bool,
    /// Who requests the file. For a file that ends a session this is [`Asker::Service`]: the
    /// session stands for its owner, whose record exists as long as the open session does.
    pub by: Asker,
    /// The session, and the [`Upload::revision`] at which its parts were read; `None` for a file
    /// that came in one request.
    pub upload: Option<(UploadId, u64)>,
}

/// What [`Metadata::record_files`] did with one [`NewFile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Where the content lay before, if it was already stored. The blob's record now names the new
    /// copy, which was hashed a moment ago, so the bytes of the old copy may be discarded, unless
    /// this is the locator of the new copy itself.
    pub replaced: Option<Locator>,
    /// Parts of the session that just ended. Their bytes may be discarded.
    pub parts: Vec<Part>,
}

/// At most this many of a blob's files are named in its record.
pub const HOLDERS_MAX: usize = 4;

/// The size that is declared for a session that had none, and the session's mode from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    pub size: u64,
    pub mode: Mode,
}

/// The end of a session, to which a part is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendTo {
    /// The [`Upload::revision`] at which the end of the session was read.
    pub revision: u64,
    /// The size that is declared with the part. It is recorded in the same step.
    pub declares: Option<Declared>,
}

/// The condition under which a session is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The session is open: its client aborts it.
    Open,
    /// The session expired by this time, whatever its state is.
    ExpiredBy(UnixMillis),
}

impl Declared {
    /// # Errors
    /// [`Error::Changed`] for a session that already has a size.
    fn set(self, upload: &mut Upload) -> Result<()> {
        if upload.mode.is_sized() {
            return Err(Error::Changed);
        }
        (upload.size, upload.mode) = (self.size, self.mode);
        Ok(())
    }
}

impl Removal {
    /// Checks that the condition holds for a session as it is now.
    fn check(self, upload: &Upload) -> Result<()> {
        match self {
            Self::Open if upload.state != UploadState::Open => Err(Error::Closed),
            Self::ExpiredBy(time) if upload.expires > time => Err(Error::Changed),
            Self::Open | Self::ExpiredBy(_) => Ok(()),
        }
    }
}

/// How an export relates to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// The export is that of another store.
    Foreign,
    /// The export has no commit that is not in the store as well.
    Before,
    /// The export has commits that the store lost or never had: this store, or the one that was
    /// exported, was opened from an older copy.
    Ahead,
}

/// Expired sessions and batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub ids: Vec<UploadId>,
    /// There may be more of them.
    pub more: bool,
}

/// Why a step failed. Nothing has changed, unless the error [is uncertain](Error::is_uncertain).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such record")]
    NotFound,
    #[error("the record exists")]
    Exists,
    /// The session is completed.
    #[error("the session is closed")]
    Closed,
    /// What the step depends on has changed since the caller read it. Read it again.
    #[error("the session changed meanwhile")]
    Changed,
    /// The user still has files or open uploads.
    #[error("the user has files or uploads")]
    NotEmpty,
    /// The token of [`Asker::Owner`] is no longer accepted.
    #[error("the user was disabled, logged out or deleted meanwhile")]
    LoggedOut,
    #[error("quota of {limit} bytes: {used} used or reserved, {asked} more needed")]
    Quota { limit: u64, used: u64, asked: u64 },
    /// Too many steps wait; try again later.
    #[error("the commit queue is full")]
    Busy,
    /// The disk is nearly full. Steps that release something are still taken.
    #[error("no space left for the index")]
    NoSpace,
    #[error("damaged record: {0}")]
    Corrupt(String),
    /// The engine has stopped taking writes. It takes none until it is opened again.
    #[error("the metadata store failed: {0}")]
    Unavailable(String),
}

impl Error {
    /// Whether the step may have been taken in spite of the error. If so, the bytes that the step's
    /// records would name must be kept.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Corrupt(_))
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// The metadata store. The module says what every method promises. A read returns `None` for a
/// record that does not exist. Any method may fail with [`Error::Corrupt`] and
/// [`Error::Unavailable`]; a method that writes may also fail with [`Error::Busy`] and
/// [`Error::NoSpace`].
#[async_trait]
pub trait Metadata: Accounts + Concatenations + Selections + Upkeep {
    /// Writes a copy of this store into `data_dir`, another data directory, in which a store can
    /// then be opened from it. The copy holds every commit that was answered before the call. Each
    /// later commit is in the copy as a whole or not at all.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when there is no room in `data_dir`; [`Error::Unavailable`] when the copy
    /// cannot be written.
    async fn export(&self, data_dir: &Path) -> Result<()>;
    /// How the export in `data_dir` relates to this store; `None` when nothing there says to which
    /// store it belongs.
    async fn exported(&self, data_dir: &Path) -> Result<Option<Exported>>;
    /// Whether writes can be taken now.
    async fn ready(&self) -> Result<()>;

    /// Opens sessions and reserves their sizes, all or none. Creates their owner's record, with the
    /// time `now`, if there is none.
    ///
    /// # Errors
    /// [`Error::Quota`] when the owner's files, the owner's reservations and these sessions
    /// together exceed the quota: that of the owner's record, or else `default_quota`;
    /// [`Error::LoggedOut`].
    async fn create_uploads(
        &self,
        uploads: Vec<Upload>,
        batch: Option<Batch>,
        by: Asker,
        now: UnixMillis,
        default_quota: u64,
    ) -> Result<()>;
    async fn upload(&self, id: UploadId) -> Result<Option<Upload>>;
    async fn batch(&self, id: UploadId) -> Result<Option<Batch>>;
    /// The parts of a session in order of their numbers.
    async fn parts(&self, id: UploadId) -> Result<Vec<Part>>;
    /// Open sessions of `owner` in order of their ids, after `after`, at most `limit`.
    async fn uploads_of(
        &self,
        owner: &UserId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Upload>>;
    /// Records a part and returns the part that it replaced. Moves the session's expiry to
    /// `expires`, but never back. With `to`, the part is appended: it must lie where the session
    /// ended, and `to` may declare the session's size in the same step.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Closed`], [`Error::Quota`]; [`Error::Changed`] when the
    /// session that the part is appended to has changed since its end was read, or `to` declares a
    /// size and the session already has one.
    async fn record_part(
        &self,
        id: UploadId,
        part: Part,
        to: Option<AppendTo>,
        expires: UnixMillis,
        default_quota: u64,
    ) -> Result<Option<Part>>;
    /// Sets the size of a session that had none, reserves it and returns the session.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Closed`], [`Error::Quota`]; [`Error::Changed`] when the
    /// session is no longer at `revision`, or already has a size.
    async fn declare_size(
        &self,
        id: UploadId,
        declared: Declared,
        revision: u64,
        default_quota: u64,
    ) -> Result<Upload>;
    /// Removes a session and returns its parts. The file of a completed session stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Closed`] when `removal` is [`Removal::Open`] and the session
    /// is not open; [`Error::Changed`] when it is [`Removal::ExpiredBy`] and the session expires
    /// later.
    async fn remove_upload(&self, id: UploadId, removal: Removal) -> Result<Vec<Part>>;
    /// # Errors
    /// [`Error::NotFound`].
    async fn remove_batch(&self, id: UploadId) -> Result<()>;
    /// Expired sessions, and batches whose sessions are gone, at most `limit`. Also tidies the
    /// index of expiry times.
    async fn collect_expired(&self, now: UnixMillis, limit: usize) -> Result<Expired>;

    /// Records files: adds them to their lists and counts, refers to their blobs and ends their
    /// sessions, all or none. A completed session is kept at least until `keep_until`, to answer
    /// repeated requests.
    ///
    /// # Errors
    /// [`Error::Exists`] when a key is taken; [`Error::Changed`] when known content no longer lies
    /// at its locator, or is damaged; [`Error::Changed`] and [`Error::Closed`] when a session has
    /// changed since it was read; [`Error::NotFound`] when a session is gone; [`Error::Quota`];
    /// [`Error::LoggedOut`].
    async fn record_files(
        &self,
        files: Vec<NewFile>,
        keep_until: UnixMillis,
        default_quota: u64,
    ) -> Result<Vec<Recorded>>;
    async fn file(&self, key: &FileKey) -> Result<Option<FileRecord>>;
    async fn file_by_id(&self, id: FileId) -> Result<Option<FileRecord>>;
    /// Removes a file. If this was the last file of its blob, the blob is unreferenced since `now`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn remove_file(&self, key: &FileKey, now: UnixMillis) -> Result<FileRecord>;
    /// Files in `folder` and beneath it, newest first, older than `after`, at most `limit`.
    async fn list_files(
        &self,
        owner: &UserId,
        folder: &Folder,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<FileRecord>>;
    /// The number and total size of the files in `folder` and beneath it.
    async fn totals(&self, owner: &UserId, folder: &Folder) -> Result<Totals>;

    /// A file of `owner` with this content. The files of other users make no difference. A file
    /// that was stored before contents were indexed is found only if it is among the last
    /// [`HOLDERS_MAX`] files that were stored with this content. If all of those are gone, a file
    /// of `owner` can be missed.
    async fn file_with(&self, owner: &UserId, hash: &ContentHash) -> Result<Option<FileRecord>>;
    /// The first file of `owner` whose content has this digest. The files of other users make no
    /// difference. A file that was stored before contents were indexed is not found.
    async fn file_with_sha256(&self, owner: &UserId, sha256: &Sha256)
    -> Result<Option<FileRecord>>;
    async fn blob(&self, hash: &ContentHash) -> Result<Option<BlobRecord>>;
    /// Blobs that have been unreferenced since before `before`, at most `limit`.
    async fn unreferenced_blobs(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ContentHash>>;
    /// Removes the record of a blob that has been unreferenced since before `before`, and returns
    /// where its bytes lie. Returns `None` when a file refers to the blob, or did meanwhile, or the
    /// blob is unknown.
    async fn forget_blob(&self, hash: &ContentHash, before: UnixMillis) -> Result<Option<Locator>>;
    /// Whether this part is recorded with this locator. Garbage collection tells recorded bytes
    /// from litter by it.
    async fn refers_to_part(
        &self,
        id: UploadId,
        number: PartNumber,
        locator: &Locator,
    ) -> Result<bool>;
}
