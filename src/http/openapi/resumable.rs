//! The description of the IETF draft's endpoints. The draft says what its headers may hold.

use super::{describe::RESUMABLE, operation::Operation};
use crate::http::endpoint::Endpoint;

const ALWAYS: &[&str] = &["Upload-Draft-Interop-Version", "Upload-Limit"];
pub const PROGRESS: &[&str] =
    &["Upload-Draft-Interop-Version", "Upload-Limit", "Upload-Offset", "Upload-Complete"];
const WANTED: &str = "`sha-256=0` omits the `Repr-Digest` of a completed file.";
/// Headers of an answer about an upload that became a file.
pub const ENDED: &[&str] = &["Upload-Key", "Repr-Digest"];

pub fn describe(endpoint: &Endpoint) -> Operation {
    let new = |summary| Operation::new(RESUMABLE, summary);
    let operation = match endpoint {
        Endpoint::ResumableOptions { .. } => {
            return new("Show what is accepted, and the limits")
                .answers_nothing("204", "See `Accept-Patch` and `Upload-Limit`")
                .in_headers(&["Allow", "Accept-Patch"])
                .in_headers(ALWAYS)
                .refuses("404", &["upload_not_found"]);
        }
        Endpoint::ResumableHead { .. } => new("Show the progress of an upload")
            .header("Want-Repr-Digest", WANTED)
            .answers_nothing("204", "See `Upload-Offset` and `Upload-Complete`")
            .in_headers(PROGRESS)
            .in_headers(ENDED)
            .in_headers(&["Upload-Length"])
            .refuses("413", &["too_large", "quota_exceeded"]),
        Endpoint::ResumablePatch { .. } => new("Append bytes to an upload")
            .required_header("Upload-Offset", "Offset of these bytes, at the end of the upload.")
            .required_header("Upload-Complete", "`?1` with the last bytes, else `?0`.")
            .header("Upload-Length", "Length of the file, if it was not declared before.")
            .header("Content-Digest", "`sha-256=:BASE64:` of these bytes (RFC 9530); checked.")
            .header("Repr-Digest", "The same for the whole file, checked with the last bytes.")
            .header("Want-Repr-Digest", WANTED)
            .body_of("application/partial-upload")
            .answers_json("201", "With the last bytes: the file is on the disk and listed", "File")
            .in_headers(PROGRESS)
            .in_headers(ENDED)
            .answers_nothing("204", "The bytes are on the disk; `Upload-Offset` is their end")
            .in_headers(PROGRESS)
            .refuses("400", &["invalid_upload_offset", "invalid_upload_complete", "too_many_parts"])
            .refuses("400", &["inconsistent_upload_length", "upload_completed", "size_mismatch"])
            .refuses("400", &["invalid_digest", "digest_mismatch", "sha256_mismatch"])
            .refuses("403", &["final_upload"])
            .refuses("409", &["offset_mismatch", "upload_taken_over", "parts_missing"])
            .refuses("409", &["partial_upload"])
            .refuses("413", &["quota_exceeded"])
            .refuses("415", &["media_type_unsupported"]),
        _ => new("Abort an upload").answers_nothing("204", "The upload is gone").in_headers(ALWAYS),
    };
    operation
        .refuses("404", &["upload_not_found"])
        .refuses("409", &["upload_completed", "upload_changed"])
        .refuses("410", &["gone"])
        .refuses("507", &["no_space"])
}
