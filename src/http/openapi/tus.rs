//! The description of the tus endpoints. The protocol says what its headers may hold.

use super::{describe::TUS, operation::Operation};
use crate::http::endpoint::Endpoint;

const PIECE_TYPE: &str = "application/offset+octet-stream";
const CHECKSUM: &str = "`sha1` or `sha256`, a space and the digest in base64; checked.";
const PROGRESS: &[&str] = &["Tus-Resumable", "Upload-Offset", "Upload-Expires", "Upload-Key"];

pub fn describe(endpoint: &Endpoint) -> Operation {
    let new = |summary| Operation::new(TUS, summary);
    let operation = match endpoint {
        Endpoint::TusOptions => {
            new("Show what is supported").answers_nothing("204", "See the headers").in_headers(&[
                "Tus-Resumable",
                "Tus-Version",
                "Tus-Extension",
                "Tus-Max-Size",
                "Tus-Checksum-Algorithm",
            ])
        }
        Endpoint::TusCreate => new("Begin an upload")
            .header("Upload-Length", "Length in bytes; not beside `Upload-Defer-Length`.")
            .header("Upload-Defer-Length", "`1`: a later PATCH declares the length.")
            .header(
                "Upload-Metadata",
                "Keys with base64 values: `filename`, `filetype`, `folder`, `user_id`, \
                 `user_email` and any others.",
            )
            .header("Upload-Concat", "`partial`, or `final;` and the URLs of the partial uploads.")
            .header("Upload-Checksum", CHECKSUM)
            .header("Content-Digest", "`sha-256=:BASE64:`, used without `Upload-Checksum`.")
            .body_of(PIECE_TYPE)
            .answers_nothing("201", "The upload has begun; `Location` is its URL")
            .in_headers(&["Location"])
            .in_headers(PROGRESS)
            .refuses(
                "400",
                &["invalid_upload_length", "invalid_upload_metadata", "invalid_filename"],
            )
            .refuses("400", &["invalid_folder", "invalid_mime", "invalid_meta", "meta_too_large"])
            .refuses("400", &["user_required", "invalid_user_id", "invalid_upload_concat"])
            .refuses("400", &["invalid_digest"])
            .refuses("403", &["final_upload"])
            .refuses("404", &["upload_not_found"])
            .refuses("409", &["upload_concatenated", "owner_mismatch"])
            .refuses("410", &["gone"])
            .refuses("413", &["quota_exceeded"]),
        // The HEAD of a final upload may be the request that completes it, and can fail as such.
        Endpoint::TusHead { .. } => new("Show the progress of an upload")
            .answers_nothing("200", "See `Upload-Offset`")
            .in_headers(&[
                "Upload-Length",
                "Upload-Defer-Length",
                "Upload-Metadata",
                "Upload-Concat",
            ])
            .in_headers(PROGRESS)
            .refuses("413", &["too_large", "quota_exceeded"]),
        Endpoint::TusPatch { .. } => new("Append bytes to an upload")
            .required_header("Upload-Offset", "Offset of these bytes, at the end of the upload.")
            .header("Upload-Length", "Length in bytes, if the upload was begun without it.")
            .header("Upload-Checksum", CHECKSUM)
            .header("Content-Digest", "`sha-256=:BASE64:`, used without `Upload-Checksum`.")
            .body_of(PIECE_TYPE)
            .answers_nothing("204", "The bytes are on the disk; `Upload-Offset` is their end")
            .in_headers(PROGRESS)
            .refuses("400", &["invalid_upload_offset", "invalid_upload_length", "too_many_parts"])
            .refuses("400", &["inconsistent_upload_length", "invalid_digest", "sha256_mismatch"])
            .refuses("403", &["final_upload"])
            .refuses("409", &["offset_mismatch", "upload_taken_over", "parts_missing"])
            .refuses("413", &["quota_exceeded"]),
        _ => new("Abort an upload, or delete its file")
            .answers_nothing("204", "The upload or its file is gone")
            .in_headers(&["Tus-Resumable"]),
    };
    let operation = match endpoint {
        Endpoint::TusOptions => return operation,
        Endpoint::TusCreate => operation,
        _ => operation
            .refuses("404", &["upload_not_found"])
            .refuses("409", &["upload_completed", "upload_changed"])
            .refuses("410", &["gone"]),
    };
    operation
        .required_header("Tus-Resumable", "1.0.0")
        .header("X-HTTP-Method-Override", "Method to use instead of the one that was sent.")
        .refuses("400", &["invalid_header", "invalid_checksum"])
        .refuses("412", &["tus_version_unsupported"])
        .refuses("415", &["media_type_unsupported"])
        .refuses("460", &["checksum_mismatch"])
        .refuses("507", &["no_space"])
}
