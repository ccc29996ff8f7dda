//! What an endpoint is called where requests are counted and logged: its path as the description
//! writes it, or a word that stands for several.

use hyper::Method;

use crate::http::{route::Endpoint, v1::admin::Command};

/// Of a request that reached no endpoint.
pub const NOWHERE: &str = "none";

/// A method that clients cannot choose freely.
pub fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

pub fn route(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Health => "/healthz",
        Endpoint::KeySet => "/.well-known/jwks.json",
        Endpoint::Description => "/openapi.json",
        Endpoint::Docs => "/docs",
        Endpoint::Metrics => "/metrics",
        Endpoint::GenerateToken => "/v1/files/generate-token",
        Endpoint::Init => "/v1/files/init",
        Endpoint::EncodedPart => "/v1/files/part",
        Endpoint::RawPart { .. } => "/v1/files/{uploadId}/parts/{partNumber}",
        Endpoint::UploadStatus { .. } | Endpoint::AbortUpload { .. } => "/v1/files/{uploadId}",
        Endpoint::ListUploads => "/v1/files/uploads",
        Endpoint::Complete => "/v1/files/complete",
        Endpoint::TusOptions | Endpoint::TusCreate => "/v1/tus",
        Endpoint::TusHead { .. } | Endpoint::TusPatch { .. } | Endpoint::TusDelete { .. } => {
            "/v1/tus/{uploadId}"
        }
        Endpoint::PutContent | Endpoint::ResumableOptions { upload: None } => "/v1/files/content",
        Endpoint::ResumableOptions { upload: Some(_) }
        | Endpoint::ResumableHead { .. }
        | Endpoint::ResumablePatch { .. }
        | Endpoint::ResumableDelete { .. } => "/v1/uploads/{uploadId}",
        Endpoint::ListFiles => "/v1/files/all",
        Endpoint::Metadata { .. } => "/v1/files/metadata/{key}",
        Endpoint::DeleteFile { .. } => "/v1/files/{key}",
        Endpoint::Content { .. } => "/v1/files/content/{key}",
        Endpoint::Storage { .. } => "/storage/{user}/{path}",
        Endpoint::SignLink | Endpoint::SignLinkForm => "/v1/files/signed-url",
        Endpoint::RedeemLink { .. } => "/get/{encodedKey}",
        Endpoint::MintBatch => "/v1/files/batch-download",
        Endpoint::FetchBatch { .. } => "/v1/files/batch-download/{token}",
        Endpoint::Image { .. } => "/api/images/{id}",
        Endpoint::Admin(command) => match command {
            Command::ListTokens
            | Command::CreateToken
            | Command::ShowToken(_)
            | Command::RevokeToken(_)
            | Command::RotateToken(_) => "/v1/admin/tokens",
            Command::RevokeMany => "/v1/admin/revocations",
            Command::ListUsers
            | Command::ShowUser(_)
            | Command::ChangeUser(_)
            | Command::DeleteUser(_) => "/v1/admin/users",
            Command::ListKeys | Command::ImportKey | Command::RotateKeys => "/v1/admin/keys",
        },
    }
}
