//! What there is to say of tus. What its headers may hold the protocol says.

use super::{describe::TUS, operation::Operation};
use crate::http::endpoint::Endpoint;

const PIECE_TYPE: &str = "application/offset+octet-stream";
const CHECKSUM: &str = "sha1 or sha256 and the digest in base64; the bytes are held to it.";
const PROGRESS: &[&str] = &["Tus-Resumable", "Upload-Offset", "Upload-Expires", "Upload-Key"];

pub fn describe(endpoint: &Endpoint) -> Operation {
    let new = |summary| Operation::new(TUS, summary);
    let operation = match endpoint {
        Endpoint::TusOptions => {
            new("What is spoken").answers_nothing("204", "Its headers").in_headers(&[
                "Tus-Resumable",
                "Tus-Version",
                "Tus-Extension",
                "Tus-Max-Size",
                "Tus-Checksum-Algorithm",
            ])
        }
        Endpoint::TusCreate => new("Begin an upload")
            .header("Upload-Length", "Bytes; not with Upload-Defer-Length.")
            .header("Upload-Defer-Length", "1: the length comes with a later PATCH.")
            .header("Upload-Metadata", "filename, filetype, folder, user_id, user_email and more.")
            .header("Upload-Concat", "partial, or final; and the partial uploads.")
            .header("Upload-Checksum", CHECKSUM)
            .header("Content-Digest", "`sha-256=:BASE64:`, where there is no checksum.")
            .body_of(PIECE_TYPE)
            .answers_nothing("201", "Begun; Location leads to it")
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
        // Who asks for one that is made of others may be the one who makes it.
        Endpoint::TusHead { .. } => new("How far an upload is")
            .answers_nothing("200", "Upload-Offset says")
            .in_headers(&[
                "Upload-Length",
                "Upload-Defer-Length",
                "Upload-Metadata",
                "Upload-Concat",
            ])
            .in_headers(PROGRESS)
            .refuses("413", &["too_large", "quota_exceeded"]),
        Endpoint::TusPatch { .. } => new("Send what comes next")
            .required_header("Upload-Offset", "Where the bytes belong, which is behind the last.")
            .header("Upload-Length", "Of an upload that was begun without.")
            .header("Upload-Checksum", CHECKSUM)
            .header("Content-Digest", "`sha-256=:BASE64:`, where there is no checksum.")
            .body_of(PIECE_TYPE)
            .answers_nothing("204", "On the disk; Upload-Offset says how far")
            .in_headers(PROGRESS)
            .refuses("400", &["invalid_upload_offset", "invalid_upload_length", "too_many_parts"])
            .refuses("400", &["inconsistent_upload_length", "invalid_digest", "sha256_mismatch"])
            .refuses("403", &["final_upload"])
            .refuses("409", &["offset_mismatch", "upload_taken_over", "parts_missing"])
            .refuses("413", &["quota_exceeded"]),
        _ => new("Give an upload up, or its file")
            .answers_nothing("204", "It is gone")
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
        .header("X-HTTP-Method-Override", "The method that is meant.")
        .refuses("400", &["invalid_header", "invalid_checksum"])
        .refuses("412", &["tus_version_unsupported"])
        .refuses("415", &["media_type_unsupported"])
        .refuses("460", &["checksum_mismatch"])
        .refuses("507", &["no_space"])
}
