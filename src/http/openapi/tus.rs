//! What there is to say of tus. The protocol says the rest: its headers are not parameters here.

use serde_json::Value;

use super::{describe::TUS, operation::Operation};
use crate::http::route::Endpoint;

pub fn describe(endpoint: &Endpoint) -> Operation {
    let done =
        |operation: Operation, status, about| operation.answers_with(status, about, &Value::Null);
    let operation = match endpoint {
        Endpoint::TusOptions => done(Operation::new(TUS, "What is spoken"), "204", "Its headers"),
        Endpoint::TusCreate => done(
            Operation::new(TUS, "Begin an upload").raw_body(),
            "201",
            "Begun; Location leads to it",
        )
        .refuses("400", &["invalid_upload_length", "invalid_upload_metadata", "invalid_filename"])
        .refuses("400", &["invalid_folder", "invalid_mime", "invalid_meta", "meta_too_large"])
        .refuses("400", &["user_required", "invalid_user_id", "invalid_upload_concat"])
        .refuses("400", &["invalid_digest"])
        .refuses("403", &["final_upload"])
        .refuses("404", &["upload_not_found"])
        .refuses("409", &["upload_concatenated", "owner_mismatch"])
        .refuses("410", &["gone"])
        .refuses("413", &["quota_exceeded"]),
        Endpoint::TusHead { .. } => {
            // Who asks for one that is made of others may be the one who makes it.
            done(Operation::new(TUS, "How far an upload is"), "200", "Upload-Offset says")
                .refuses("413", &["too_large", "quota_exceeded"])
        }
        Endpoint::TusPatch { .. } => done(
            Operation::new(TUS, "Send what comes next").raw_body(),
            "204",
            "On the disk; Upload-Offset says how far",
        )
        .refuses("400", &["invalid_upload_offset", "invalid_upload_length", "too_many_parts"])
        .refuses("400", &["inconsistent_upload_length", "invalid_digest", "sha256_mismatch"])
        .refuses("403", &["final_upload"])
        .refuses("409", &["offset_mismatch", "upload_taken_over", "parts_missing"])
        .refuses("413", &["quota_exceeded"]),
        _ => done(Operation::new(TUS, "Give an upload up, or its file"), "204", "It is gone"),
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
        .refuses("400", &["invalid_header", "invalid_checksum"])
        .refuses("412", &["tus_version_unsupported"])
        .refuses("415", &["media_type_unsupported"])
        .refuses("460", &["checksum_mismatch"])
        .refuses("507", &["no_space"])
}
