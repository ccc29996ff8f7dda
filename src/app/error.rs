//! The closed list of ways in which a request ends badly.

use tokio::task::JoinError;

use crate::{
    blob, meta,
    model::{
        digest::ContentHash,
        id::{FileId, UploadId},
        key::FileKey,
        principal::Role,
    },
};

pub type Result<T> = std::result::Result<T, Error>;

/// Codes are stable words for programs, details are sentences for people.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No credential, or one that is not accepted. The reason goes to the log only.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    #[error("the role {needs:?} is needed")]
    Denied { needs: Role },
    /// The service's token does not grant what was asked for.
    #[error("the token does not grant this {0}")]
    OutOfScope(&'static str),
    /// A signed link or a batch token that is wrong or has expired.
    #[error("{detail}")]
    LinkRefused { code: &'static str, detail: &'static str },
    #[error("no such {0}")]
    NotFound(&'static str),
    /// Some of the named files do not exist.
    #[error("{} files do not exist", .0.len())]
    NoSuchFiles(Vec<FileKey>),
    /// Some of the files of a batch token were deleted after it was made.
    #[error("{} files were deleted", .0.len())]
    FilesGone(Vec<FileId>),
    #[error("the {0} was deleted")]
    Gone(&'static str),
    #[error("{detail}")]
    Invalid { code: &'static str, detail: String },
    #[error("{detail}")]
    Conflict { code: &'static str, detail: String },
    /// A final upload takes no bytes of its own: it is made of partial uploads.
    #[error("the upload is a final upload")]
    FinalUpload,
    /// A piece that does not begin where the upload ends.
    #[error("the upload ends at byte {is}, not {said}")]
    OffsetDiffers { is: u64, said: u64 },
    /// The bytes received do not have the digest that the client announced.
    #[error("the checksum differs")]
    ChecksumDiffers,
    #[error("parts are missing")]
    PartsMissing(Vec<u32>),
    /// Acknowledged parts were damaged, and were forgotten.
    #[error("parts are damaged")]
    PartsDamaged(Vec<u32>),
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("quota of {limit} bytes: {used} used or reserved, {asked} more needed")]
    Quota { limit: u64, used: u64, asked: u64 },
    #[error("too busy")]
    Busy,
    #[error("no space left")]
    NoSpace,
    /// The client stopped sending before the body ended.
    #[error("the request body ended early")]
    BodyAborted,
    #[error("the request body made no progress")]
    BodyTimeout,
    /// A store takes no writes, or an I/O operation failed.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The stored bytes of this content are damaged.
    #[error("damaged blob: {0}")]
    Damaged(ContentHash),
    #[error("{0}")]
    Internal(String),
    /// The error of one upload of a batch.
    #[error("upload {0}: {1}")]
    OfUpload(UploadId, Box<Error>),
}

impl Error {
    /// The same error, with the upload of a batch that it is about.
    #[must_use]
    pub fn of_upload(self, id: UploadId) -> Self {
        Self::OfUpload(id, Box::new(self))
    }

    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { code, detail: detail.into() }
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict { code, detail: detail.into() }
    }
}

/// The error of a spawned task that panicked or was not started any more.
impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<meta::Error> for Error {
    fn from(error: meta::Error) -> Self {
        match error {
            meta::Error::NotFound => Self::NotFound("record"),
            // Where a client can cause this, the use case handles it.
            meta::Error::Exists => Self::Internal("a record already exists".into()),
            meta::Error::Closed => {
                Self::conflict("upload_completed", "The upload is already completed.")
            }
            meta::Error::Changed => Self::conflict(
                "upload_changed",
                "Another request changed the upload meanwhile; try again.",
            ),
            meta::Error::NotEmpty => {
                Self::conflict("user_not_empty", "The user has files or open uploads.")
            }
            error @ meta::Error::LoggedOut => Self::Unauthenticated(error.to_string()),
            meta::Error::Quota { limit, used, asked } => Self::Quota { limit, used, asked },
            meta::Error::Busy => Self::Busy,
            meta::Error::NoSpace => Self::NoSpace,
            meta::Error::Unavailable(why) => Self::Unavailable(why),
            meta::Error::Corrupt(why) => Self::Internal(format!("metadata: {why}")),
        }
    }
}

impl From<blob::Error> for Error {
    fn from(error: blob::Error) -> Self {
        match error {
            blob::Error::NoSpace => Self::NoSpace,
            blob::Error::Busy => Self::Busy,
            blob::Error::Io(why) => Self::Unavailable(why),
            blob::Error::NotFound => Self::Internal("the bytes of a blob are missing".into()),
            blob::Error::Corrupt(why) => Self::Internal(format!("damaged blob: {why}")),
        }
    }
}
