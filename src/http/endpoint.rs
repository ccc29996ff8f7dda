//! Every endpoint of the daemon, and what is known about a request to it before it is handled.

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

/// Every endpoint of the daemon.
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
    /// Nothing. A credential that is sent is not looked at.
    Open,
    /// The signature in the URL.
    Link,
    /// A credential, or nothing where public read is on.
    Public,
    /// A principal of at least this role.
    Role(Role),
}

/// What is known about an endpoint before it does anything.
pub(super) struct Facts<'a> {
    access: Access,
    /// The label under which its requests are counted and logged: its path as the description
    /// writes it, or one name that stands for several paths.
    pub label: &'static str,
    /// Its event in the audit log, and the target if the request itself names one. Lists and
    /// metadata are not recorded. Neither are parts, because their upload is.
    pub event: Option<(&'static str, Option<&'a dyn Display>)>,
}

/// The access and the label of an endpoint, to which its audit event is still to be added.
struct At(Access, &'static str);

impl At {
    fn untold(self) -> Facts<'static> {
        Facts { access: self.0, label: self.1, event: None }
    }

    fn told(self, event: &'static str) -> Facts<'static> {
        Facts { event: Some((event, None)), ..self.untold() }
    }

    fn told_of<'a>(self, event: &'static str, target: &'a dyn Display) -> Facts<'a> {
        Facts { event: Some((event, Some(target))), ..self.untold() }
    }
}

impl Endpoint {
    /// The table of all endpoints: least role, label, event.
    pub(super) fn facts(&self) -> Facts<'_> {
        use Access::{Link, Open, Public};
        const VIEWER: Access = Access::Role(Role::Viewer);
        const ANALYST: Access = Access::Role(Role::Analyst);
        const RESEARCHER: Access = Access::Role(Role::Researcher);
        const ADMIN: Access = Access::Role(Role::Admin);
        const SERVICE: Access = Access::Role(Role::Service);
        match self {
            Self::Health => At(Open, "/healthz").untold(),
            Self::KeySet => At(Open, "/.well-known/jwks.json").untold(),
            Self::Description => At(Open, "/openapi.json").untold(),
            Self::Docs => At(Open, "/docs").untold(),
            Self::Metrics => At(ADMIN, "/metrics").untold(),
            Self::GenerateToken => {
                At(SERVICE, "/v1/files/generate-token").told("user_token_issued")
            }
            Self::Init => At(ANALYST, "/v1/files/init").told("upload_begun"),
            Self::EncodedPart => At(ANALYST, "/v1/files/part").untold(),
            Self::RawPart { .. } => At(ANALYST, "/v1/files/{uploadId}/parts/{partNumber}").untold(),
            Self::UploadStatus { .. } => At(ANALYST, "/v1/files/{uploadId}").untold(),
            Self::AbortUpload { upload } => {
                At(ANALYST, "/v1/files/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ListUploads => At(ANALYST, "/v1/files/uploads").untold(),
            Self::Complete => At(ANALYST, "/v1/files/complete").told("upload"),
            Self::PutContent => At(ANALYST, "/v1/files/content").told("upload"),
            Self::TusOptions => At(ANALYST, "/v1/tus").untold(),
            Self::TusCreate => At(ANALYST, "/v1/tus").told("upload_begun"),
            Self::TusHead { .. } => At(ANALYST, "/v1/tus/{uploadId}").untold(),
            Self::TusPatch { upload } => {
                At(ANALYST, "/v1/tus/{uploadId}").told_of("upload", upload)
            }
            Self::TusDelete { upload } => {
                At(ANALYST, "/v1/tus/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ResumableOptions { upload: None } => At(ANALYST, "/v1/files/content").untold(),
            Self::ResumableOptions { upload: Some(_) } | Self::ResumableHead { .. } => {
                At(ANALYST, "/v1/uploads/{uploadId}").untold()
            }
            Self::ResumablePatch { upload } => {
                At(ANALYST, "/v1/uploads/{uploadId}").told_of("upload", upload)
            }
            Self::ResumableDelete { upload } => {
                At(ANALYST, "/v1/uploads/{uploadId}").told_of("upload_aborted", upload)
            }
            Self::ListFiles => At(VIEWER, "/v1/files/all").untold(),
            Self::Metadata { .. } => At(VIEWER, "/v1/files/metadata/{key}").untold(),
            Self::DeleteFile { key } => At(RESEARCHER, "/v1/files/{key}").told_of("delete", key),
            Self::Content { key } => At(VIEWER, "/v1/files/content/{key}").told_of("download", key),
            Self::Storage { key } => At(Public, "/storage/{user}/{path}").told_of("download", key),
            Self::SignLink | Self::SignLinkForm => {
                At(VIEWER, "/v1/files/signed-url").told("link_signed")
            }
            Self::RedeemLink { key } => At(Link, "/get/{encodedKey}").told_of("download", key),
            Self::MintBatch => At(VIEWER, "/v1/files/batch-download").told("batch_signed"),
            Self::FetchBatch { .. } => {
                At(Link, "/v1/files/batch-download/{token}").told("batch_download")
            }
            Self::Image { id, .. } => At(VIEWER, "/api/images/{id}").told_of("download", id),
            // The audit log itself names the event and the target of a command, for the port and
            // for the operator's socket.
            Self::Admin(command) => At(ADMIN, command.label()).untold(),
        }
    }

    pub fn access(&self) -> Access {
        self.facts().access
    }

    /// The action that a service's token must grant: what the least role of this endpoint adds to
    /// the roles below it.
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
