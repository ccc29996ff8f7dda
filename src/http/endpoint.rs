//! Everything that can be asked of the daemon, and what is known of it before it is done.

use std::fmt::Display;

use super::v1::admin::Command;
use crate::{
    app::link::Disposition,
    model::{
        grant::Action,
        id::{FileId, PartNumber, UploadId},
        key::FileKey,
        principal::Role,
    },
};

/// Everything that can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Health,
    KeySet,
    Description,
    Docs,
    Metrics,
    GenerateToken,
    Init,
    EncodedPart,
    RawPart { upload: UploadId, part: PartNumber },
    UploadStatus { upload: UploadId },
    AbortUpload { upload: UploadId },
    ListUploads,
    Complete,
    PutContent,
    TusOptions,
    TusCreate,
    TusHead { upload: UploadId },
    TusPatch { upload: UploadId },
    TusDelete { upload: UploadId },
    ResumableOptions { upload: Option<UploadId> },
    ResumableHead { upload: UploadId },
    ResumablePatch { upload: UploadId },
    ResumableDelete { upload: UploadId },
    ListFiles,
    Metadata { key: FileKey },
    DeleteFile { key: FileKey },
    Content { key: FileKey },
    Storage { key: FileKey },
    SignLink,
    SignLinkForm,
    RedeemLink { key: FileKey },
    MintBatch,
    FetchBatch { token: Box<str> },
    Image { id: FileId, disposition: Disposition },
    Admin(Command),
}

/// What a request needs to get to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing, and what is sent is not looked at.
    Open,
    /// The signature in the URL.
    Link,
    /// A credential, or nothing where public read is on.
    Public,
    /// A principal of at least this role.
    Role(Role),
}

/// What is known of an endpoint before it does anything.
pub(super) struct Facts<'a> {
    access: Access,
    /// What it is called where requests are counted and logged: its path as the description writes
    /// it, or a word that stands for several.
    pub label: &'static str,
    /// What the audit log calls it, and what it is about where the request says so. Lists and
    /// metadata are passed over; so are parts, whose upload is told.
    pub event: Option<(&'static str, Option<&'a dyn Display>)>,
}

impl<'a> Facts<'a> {
    fn told(self, event: &'static str) -> Self {
        Self { event: Some((event, None)), ..self }
    }

    fn told_of(self, event: &'static str, target: &'a dyn Display) -> Self {
        Self { event: Some((event, Some(target))), ..self }
    }
}

impl Endpoint {
    /// The table of all of them: least role, label, event.
    pub(super) fn facts(&self) -> Facts<'_> {
        use Access::{Link, Open, Public};
        const VIEWER: Access = Access::Role(Role::Viewer);
        const ANALYST: Access = Access::Role(Role::Analyst);
        const RESEARCHER: Access = Access::Role(Role::Researcher);
        const ADMIN: Access = Access::Role(Role::Admin);
        const SERVICE: Access = Access::Role(Role::Service);
        let at = |access, label| Facts { access, label, event: None };
        match self {
            Self::Health => at(Open, "/healthz"),
            Self::KeySet => at(Open, "/.well-known/jwks.json"),
            Self::Description => at(Open, "/openapi.json"),
            Self::Docs => at(Open, "/docs"),
            Self::Metrics => at(ADMIN, "/metrics"),
            Self::GenerateToken => {
                at(SERVICE, "/v1/files/generate-token").told("user_token_issued")
            }
            Self::Init => at(ANALYST, "/v1/files/init").told("upload_begun"),
            Self::EncodedPart => at(ANALYST, "/v1/files/part"),
            Self::RawPart { .. } => at(ANALYST, "/v1/files/{uploadId}/parts/{partNumber}"),
            Self::UploadStatus { .. } => at(ANALYST, "/v1/files/{uploadId}"),
            Self::AbortUpload { upload } => {
                at(ANALYST, "/v1/files/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ListUploads => at(ANALYST, "/v1/files/uploads"),
            Self::Complete => at(ANALYST, "/v1/files/complete").told("upload"),
            Self::PutContent => at(ANALYST, "/v1/files/content").told("upload"),
            Self::TusOptions => at(ANALYST, "/v1/tus"),
            Self::TusCreate => at(ANALYST, "/v1/tus").told("upload_begun"),
            Self::TusHead { .. } => at(ANALYST, "/v1/tus/{uploadId}"),
            Self::TusPatch { upload } => {
                at(ANALYST, "/v1/tus/{uploadId}").told_of("upload", upload)
            }
            Self::TusDelete { upload } => {
                at(ANALYST, "/v1/tus/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ResumableOptions { upload: None } => at(ANALYST, "/v1/files/content"),
            Self::ResumableOptions { upload: Some(_) } | Self::ResumableHead { .. } => {
                at(ANALYST, "/v1/uploads/{uploadId}")
            }
            Self::ResumablePatch { upload } => {
                at(ANALYST, "/v1/uploads/{uploadId}").told_of("upload", upload)
            }
            Self::ResumableDelete { upload } => {
                at(ANALYST, "/v1/uploads/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ListFiles => at(VIEWER, "/v1/files/all"),
            Self::Metadata { .. } => at(VIEWER, "/v1/files/metadata/{key}"),
            Self::DeleteFile { key } => at(RESEARCHER, "/v1/files/{key}").told_of("delete", key),
            Self::Content { key } => at(VIEWER, "/v1/files/content/{key}").told_of("download", key),
            Self::Storage { key } => at(Public, "/storage/{user}/{path}").told_of("download", key),
            Self::SignLink | Self::SignLinkForm => {
                at(VIEWER, "/v1/files/signed-url").told("link_signed")
            }
            Self::RedeemLink { key } => at(Link, "/get/{encodedKey}").told_of("download", key),
            Self::MintBatch => at(VIEWER, "/v1/files/batch-download").told("batch_signed"),
            Self::FetchBatch { .. } => {
                at(Link, "/v1/files/batch-download/{token}").told("batch_download")
            }
            Self::Image { id, .. } => at(VIEWER, "/api/images/{id}").told_of("download", id),
            // What a command is about is for the audit log to say, on either door.
            Self::Admin(command) => at(ADMIN, command.label()),
        }
    }

    pub fn access(&self) -> Access {
        self.facts().access
    }

    /// What a service's token must grant: what the least role adds to the ones below it.
    pub fn action(&self) -> Action {
        match self.access() {
            Access::Open | Access::Link | Access::Public | Access::Role(Role::Viewer) => {
                Action::Read
            }
            Access::Role(Role::Analyst) => Action::Upload,
            Access::Role(Role::Researcher) => Action::Delete,
            Access::Role(Role::Service) => Action::Tokens,
            Access::Role(Role::Admin) => Action::Admin,
        }
    }
}
