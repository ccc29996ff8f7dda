//! SEAM 1: users, service tokens, upload sessions and the file index.
//!
//! One method is one atomic step that is durable when it answers `Ok`, and what can be read is
//! durable. No transaction, iterator or table name crosses the seam. Times come as arguments;
//! permissions are not asked here.
//!
//! Every method costs the same at a thousand and at ten million files: none walks more than it
//! answers, or than the limit it was given.
//!
//! [`sled`] is the engine of one machine, [`memory`] the reference it is compared with.

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

/// Several uploads begun and finished as one.
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
    /// Files that hold this content.
    pub references: u64,
    /// Since when its bytes are known to be other than what was stored.
    pub damaged: Option<UnixMillis>,
}

/// Who asks for a step in the name of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asker {
    /// A service: a user that is not there appears.
    #[default]
    Service,
    /// The user itself, by a token of this Unix second: it must not be disabled, and its tokens of
    /// then not ended, in the moment of the step. One that was deleted does not come back so.
    Owner { issued: u64 },
}

/// What becomes of one file: the record, where its bytes lie, the session it ends.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub file: FileRecord,
    pub locator: Locator,
    /// The content is stored already, and lies there.
    pub is_known: bool,
    /// A session speaks for its owner, who is there as long as it is.
    pub by: Asker,
    /// The session and the [`Upload::revision`] its parts were read at; `None` for a file that came
    /// in one request.
    pub upload: Option<(UploadId, u64)>,
}

/// What [`Metadata::record_files`] did with one [`NewFile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The content was known. Its record refers to the new copy from now on, which was hashed a
    /// moment ago; the bytes of this old one may be discarded.
    pub replaced: Option<Locator>,
    /// Parts of the session that just ended; their bytes may be discarded.
    pub parts: Vec<Part>,
}

/// Files of a blob that are remembered with it.
pub const HOLDERS_MAX: usize = 4;

/// The size of a session that had none, and the mode it goes on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    pub size: u64,
    pub mode: Mode,
}

/// What a part is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendTo {
    /// The [`Upload::revision`] at which the end was read.
    pub revision: u64,
    /// Said with the part, and as durable.
    pub declares: Option<Declared>,
}

/// When a session is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is open: its client gives it up.
    Open,
    /// It expired by this time, in whatever state.
    ExpiredBy(UnixMillis),
}

impl Declared {
    /// # Errors
    /// [`Error::Changed`] for a session that has a size.
    fn set(self, upload: &mut Upload) -> Result<()> {
        if upload.mode.is_sized() {
            return Err(Error::Changed);
        }
        (upload.size, upload.mode) = (self.size, self.mode);
        Ok(())
    }
}

impl Removal {
    /// Whether it applies to a session as it is now.
    fn check(self, upload: &Upload) -> Result<()> {
        match self {
            Self::Open if upload.state != UploadState::Open => Err(Error::Closed),
            Self::ExpiredBy(time) if upload.expires > time => Err(Error::Changed),
            Self::Open | Self::ExpiredBy(_) => Ok(()),
        }
    }
}

/// What an export is to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// It is that of another one.
    Foreign,
    /// It has no commit that is not in the store as well.
    Before,
    /// It has commits that the store lost, or never had: one was opened from an older copy.
    Ahead,
}

/// Sessions and batches whose time is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    pub ids: Vec<UploadId>,
    /// More may be due.
    pub more: bool,
}

/// Why a step was not taken. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such record")]
    NotFound,
    #[error("the record exists")]
    Exists,
    /// The session is completed.
    #[error("the session is closed")]
    Closed,
    /// The session was changed since it was read; read again.
    #[error("the session changed meanwhile")]
    Changed,
    /// Something still belongs to it.
    #[error("the user has files or uploads")]
    NotEmpty,
    /// [`Asker::Owner`] is not let in any more.
    #[error("the user was disabled, logged out or deleted meanwhile")]
    LoggedOut,
    #[error("quota of {limit} bytes: {used} used or reserved, {asked} asked")]
    Quota { limit: u64, used: u64, asked: u64 },
    /// Too many steps wait; try again later.
    #[error("the commit queue is full")]
    Busy,
    /// The disk is nearly full. Steps that let something go are still taken.
    #[error("no space left for the index")]
    NoSpace,
    #[error("damaged record: {0}")]
    Corrupt(String),
    /// The engine stopped taking writes; it does so until it is opened again.
    #[error("the metadata store failed: {0}")]
    Unavailable(String),
}

impl Error {
    /// Whether the step may have been taken all the same: what its records would name must stay.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Corrupt(_))
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// The metadata store. See the module for what every method promises. A read answers `None` for
/// what is not there; any method may fail with [`Error::Corrupt`] and [`Error::Unavailable`], and
/// one that writes with [`Error::Busy`] and [`Error::NoSpace`].
#[async_trait]
pub trait Metadata: Accounts + Concatenations + Selections + Upkeep {
    /// Writes a copy from which a store can be opened into the directory of another: every commit
    /// that was answered before the call, and each later one either as a whole or not.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the copy goes; [`Error::Unavailable`] when it cannot be written.
    async fn export(&self, data_dir: &Path) -> Result<()>;
    /// What lies in the directory of another store, against this one; `None` where nothing there
    /// says so.
    async fn exported(&self, data_dir: &Path) -> Result<Option<Exported>>;
    /// Whether writes can be taken now.
    async fn ready(&self) -> Result<()>;

    /// Opens sessions and reserves their sizes, all or none; makes their owner's record at
    /// `now` if there is none.
    ///
    /// # Errors
    /// [`Error::Quota`] when the owner's files, reservations and these do not fit its
    /// quota: its record's, or `default_quota`; [`Error::LoggedOut`].
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
    /// Parts in order of their numbers.
    async fn parts(&self, id: UploadId) -> Result<Vec<Part>>;
    /// Open sessions of `owner` in order of their ids, after `after`, at most `limit`.
    async fn uploads_of(
        &self,
        owner: &UserId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Upload>>;
    /// Records a part and moves the session's expiry, never back; answers the part it replaced.
    /// With `to` it must lie where the session ended, which may get its size with it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Closed`], [`Error::Quota`]; [`Error::Changed`] when the
    /// session that it is appended to moved on, or has a size already.
    async fn record_part(
        &self,
        id: UploadId,
        part: Part,
        to: Option<AppendTo>,
        expires: UnixMillis,
        default_quota: u64,
    ) -> Result<Option<Part>>;
    /// Sets the size of a session that had none, reserves it and answers the session.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Closed`], [`Error::Quota`]; [`Error::Changed`] when it is not
    /// at `revision` any more, or has a size.
    async fn declare_size(
        &self,
        id: UploadId,
        declared: Declared,
        revision: u64,
        default_quota: u64,
    ) -> Result<Upload>;
    /// Forgets a session and answers its parts; the file of a completed one stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Closed`] and [`Error::Changed`] when it is not, or not any
    /// more, what `removal` says.
    async fn remove_upload(&self, id: UploadId, removal: Removal) -> Result<Vec<Part>>;
    /// # Errors
    /// [`Error::NotFound`].
    async fn remove_batch(&self, id: UploadId) -> Result<()>;
    /// Sessions whose time is over and batches whose sessions are gone, at most `limit`. Tidies the
    /// index of times on the way.
    async fn collect_expired(&self, now: UnixMillis, limit: usize) -> Result<Expired>;

    /// Lists files, counts them, refers to their blobs and ends their sessions: all or none.
    /// A completed session is kept at least until `keep_until`, for repeated requests.
    ///
    /// # Errors
    /// [`Error::Exists`] when a key is taken; [`Error::Changed`] for content that is not where it
    /// should be known to lie, or is damaged; [`Error::Changed`] and [`Error::Closed`] for a
    /// session that moved on; [`Error::NotFound`] for one that is gone; [`Error::Quota`];
    /// [`Error::LoggedOut`].
    async fn record_files(
        &self,
        files: Vec<NewFile>,
        keep_until: UnixMillis,
        default_quota: u64,
    ) -> Result<Vec<Recorded>>;
    async fn file(&self, key: &FileKey) -> Result<Option<FileRecord>>;
    async fn file_by_id(&self, id: FileId) -> Result<Option<FileRecord>>;
    /// Unlists a file. Its blob is unreferenced since `now` when this was the last file of it.
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
    /// Count and size of `folder` and everything beneath it.
    async fn totals(&self, owner: &UserId, folder: &Folder) -> Result<Totals>;

    /// A file of `owner` with this content; what others store of it makes no difference. One from
    /// before contents were indexed is found among the last [`HOLDERS_MAX`] that were stored of it,
    /// and one of which all of those are gone may not be.
    async fn file_with(&self, owner: &UserId, hash: &ContentHash) -> Result<Option<FileRecord>>;
    /// The first file of `owner` whose content has this digest. What others have makes no
    /// difference. A file that was stored before contents were indexed is not found.
    async fn file_with_sha256(&self, owner: &UserId, sha256: &Sha256)
    -> Result<Option<FileRecord>>;
    async fn blob(&self, hash: &ContentHash) -> Result<Option<BlobRecord>>;
    /// Blobs without a file since before `before`, at most `limit`.
    async fn unreferenced_blobs(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ContentHash>>;
    /// Forgets a blob that is still without a file since before `before` and answers where its
    /// bytes lie; `None` when a file refers to it, or did meanwhile, or it is unknown.
    async fn forget_blob(&self, hash: &ContentHash, before: UnixMillis) -> Result<Option<Locator>>;
    /// Whether this part is recorded with this locator; told apart from litter by it.
    async fn refers_to_part(
        &self,
        id: UploadId,
        number: PartNumber,
        locator: &Locator,
    ) -> Result<bool>;
}
