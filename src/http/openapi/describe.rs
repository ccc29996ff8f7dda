//! What there is to say of each endpoint. The `match` has no wildcard: a new one is described, or
//! nothing compiles.

use serde_json::{Value, json};

use super::{admin, operation::Operation, resumable, schemas::reference, tus};
use crate::http::endpoint::Endpoint;

pub const INTRODUCTION: &str = "Uploads in parts, resumable; downloads with ranges; signed links; \
    tokens for users and services. What a 2xx acknowledges is on the disk. A service names the \
    user it acts for: `user_id` or `user_email` in the query or in `meta`. A user's own id wins \
    over any id sent along, and the files of others do not exist for it. Every refusal is a \
    problem document (RFC 9457) with a stable `code`.";

const UPLOADS: &str = "Uploads";
const FILES: &str = "Files";
const DOWNLOADS: &str = "Downloads";
const LINKS: &str = "Signed links";
const TOKENS: &str = "Tokens";
pub const TUS: &str = "tus 1.0";
pub const RESUMABLE: &str = "Resumable uploads for HTTP";
pub const ADMIN: &str = "Administration";
const DAEMON: &str = "The daemon";

pub fn tags() -> Value {
    let tag = |(name, about): (&str, &str)| json!({"name": name, "description": about});
    let tags = [
        (UPLOADS, "From init over parts to complete, or a whole file in one request."),
        (FILES, "What is there."),
        (DOWNLOADS, "The bytes: whole, in ranges, several in one archive."),
        (LINKS, "Links to one file that need no credential until they expire."),
        (TUS, "The same uploads in the words of tus.io."),
        (RESUMABLE, "The same uploads in the words of the IETF draft."),
        (TOKENS, "For those who act for users."),
        (ADMIN, "Service tokens, users and signing keys."),
        (DAEMON, "How it does, its keys, this description."),
    ];
    tags.map(tag).into_iter().collect()
}

pub fn describe(endpoint: &Endpoint) -> Operation {
    match endpoint {
        Endpoint::Init
        | Endpoint::EncodedPart
        | Endpoint::RawPart { .. }
        | Endpoint::UploadStatus { .. }
        | Endpoint::AbortUpload { .. }
        | Endpoint::ListUploads
        | Endpoint::Complete
        | Endpoint::PutContent => upload(endpoint),
        Endpoint::ListFiles => reads_of_a_user(Operation::new(FILES, "List files, newest first"))
            .detail(
                "A folder counts with everything beneath it. Without `limit` the list is whole. \
                 The totals speak of the whole filter, not of the page.",
            )
            .query("folder", &reference("Folder"), "The top when it is not there.")
            .query(
                "limit",
                &json!({"type": "integer", "minimum": 1, "maximum": u64::MAX}),
                "Files of a page.",
            )
            .query("cursor", &reference("FileId"), "`next_cursor` of the page before.")
            .answers_json("200", "The list", "FileList")
            .refuses("400", &["invalid_folder", "invalid_limit", "invalid_cursor"]),
        Endpoint::Metadata { .. } => of_a_user(Operation::new(FILES, "What is known of a file"))
            .answers_json("200", "The file", "Metadata")
            .refuses("404", &["file_not_found"]),
        Endpoint::DeleteFile { .. } => delete_file(),
        Endpoint::Content { .. } => {
            of_a_user(content(Operation::new(DOWNLOADS, "A file's content, as an attachment")))
        }
        Endpoint::Storage { .. } => of_a_user(content(
            Operation::new(DOWNLOADS, "A file's content under its public path")
                .detail("Needs no credential where public read is on."),
        )),
        Endpoint::Image { .. } => image(),
        Endpoint::MintBatch => reads_of_a_user(Operation::new(DOWNLOADS, "A token for a ZIP"))
            .json_body("MintBatch")
            .answers_json("200", "The token, good for an hour", "BatchToken")
            .refuses("400", &["invalid_keys", "invalid_folder", "too_many_files"])
            .refuses("400", &["invalid_meta"])
            .refuses("404", &["file_not_found", "not_found"])
            .refuses("409", &["owner_mismatch"])
            .refuses("410", &["gone"])
            .refuses("507", &["no_space"]),
        Endpoint::FetchBatch { .. } => archive(),
        Endpoint::SignLink => sign(Operation::new(LINKS, "Sign a link to a file"))
            .required_query("key", &reference("Key"), "The file's key.")
            .query("ttl", &reference("Ttl"), "Seconds until it expires.")
            .query("disposition", &reference("Disposition"), "How browsers show it.")
            .refuses("400", &["missing_parameter"]),
        Endpoint::SignLinkForm => sign(Operation::new(LINKS, "Sign a link to a file, by a form"))
            .json_body("SignLink")
            .refuses("400", &["invalid_meta"])
            .refuses("409", &["owner_mismatch"]),
        Endpoint::RedeemLink { .. } => {
            let positive = json!({"type": "integer", "minimum": 0});
            content(Operation::new(LINKS, "The content behind a signed link"))
                .required_query("exp", &positive, "Unix seconds.")
                .required_query("sig", &json!({"type": "string"}), "Hex HMAC-SHA256.")
                .exact_query("disposition", &reference("Disposition"), "Signed, when it is there.")
                .refuses("403", &["link_invalid", "link_expired"])
        }
        Endpoint::GenerateToken => Operation::new(TOKENS, "Make a token for a user")
            .detail("For services. `user_email` may stand in place of `user_id`.")
            .required_query("user_id", &reference("UserId"), "Whose token it is.")
            .query("expires_hours", &reference("Hours"), "How long it holds.")
            .answers_json("200", "The token, shown once", "UserToken")
            .refuses("400", &["missing_parameter", "invalid_user_id", "invalid_expires_hours"])
            .refuses("409", &["user_disabled"])
            .refuses("507", &["no_space"]),
        Endpoint::Admin(command) => admin::describe(command),
        Endpoint::TusOptions
        | Endpoint::TusCreate
        | Endpoint::TusHead { .. }
        | Endpoint::TusPatch { .. }
        | Endpoint::TusDelete { .. } => tus::describe(endpoint),
        Endpoint::ResumableOptions { .. }
        | Endpoint::ResumableHead { .. }
        | Endpoint::ResumablePatch { .. }
        | Endpoint::ResumableDelete { .. } => resumable::describe(endpoint),
        Endpoint::Health => Operation::new(DAEMON, "Whether it does its work")
            .answers_json("200", "It reads and writes", "Health")
            .answers_json("503", "It reads only", "Health"),
        Endpoint::KeySet => Operation::new(DAEMON, "Public keys of the tokens").answers_json(
            "200",
            "A JWK set (RFC 7517), to be kept for five minutes",
            "KeySet",
        ),
        Endpoint::Description => Operation::new(DAEMON, "This description")
            .header("If-None-Match", "The ETag of a copy.")
            .answers_with("200", "OpenAPI 3.1", &json!({"application/json": {}}))
            .answers_nothing("304", "The copy is current"),
        Endpoint::Metrics => metrics(),
        Endpoint::Docs => Operation::new(DAEMON, "This description as a page")
            .header("If-None-Match", "The ETag of a copy.")
            .answers_with("200", "A page", &json!({"text/html": {}}))
            .answers_nothing("304", "The copy is current"),
    }
}

fn metrics() -> Operation {
    Operation::new(DAEMON, "Numbers for Prometheus")
        .detail("Where the operator lets it be asked for on the port, and lets whom.")
        .answers_with("200", "The text format 0.0.4", &json!({"text/plain": {}}))
        .refuses("404", &["no_route"])
}

fn upload(endpoint: &Endpoint) -> Operation {
    let names = ["invalid_folder", "invalid_filename", "invalid_mime"];
    let meta = ["invalid_meta", "meta_too_large"];
    let digests = ["invalid_digest", "digest_mismatch"];
    let operation = match endpoint {
        Endpoint::Init => acts_for_a_user(Operation::new(UPLOADS, "Begin an upload"))
            .query("folder", &reference("Folder"), "When the body names none.")
            .json_body("Init")
            .answers_json("200", "The session", "Opened")
            .refuses("400", &["invalid_files", "invalid_sha256", "invalid_blake3"])
            .refuses("400", &names)
            .refuses("400", &meta)
            .refuses("409", &["owner_mismatch"])
            .refuses("413", &["quota_exceeded"]),
        Endpoint::EncodedPart => of_a_user(Operation::new(UPLOADS, "Send a part as base64"))
            .detail("Line breaks in the base64 are skipped. A part sent again replaces the first.")
            .json_body("EncodedPart")
            .answers_json("200", "The part is on the disk", "PartTaken")
            .refuses("400", &["invalid_base64"])
            .refuses("400", &["invalid_part_number", "not_for_a_batch"])
            .refuses("403", &["final_upload"])
            .refuses("413", &["quota_exceeded"]),
        Endpoint::RawPart { .. } => of_a_user(Operation::new(UPLOADS, "Send a part as it is"))
            .detail("Parts come in any order, at any size, in parallel.")
            .header("Content-Digest", "`sha-256=:BASE64:` (RFC 9530), checked.")
            .header("Repr-Digest", "The same.")
            .raw_body()
            .answers_json("200", "The part is on the disk", "PartTaken")
            .refuses("400", &["invalid_part_number", "not_for_a_batch"])
            .refuses("400", &digests)
            .refuses("403", &["final_upload"])
            .refuses("413", &["quota_exceeded"]),
        Endpoint::UploadStatus { .. } => {
            of_a_user(Operation::new(UPLOADS, "What has arrived of an upload, or of a batch"))
                .answers_json("200", "The session", "UploadStatus")
        }
        Endpoint::AbortUpload { .. } => of_a_user(Operation::new(UPLOADS, "Give an upload up"))
            .answers_json("200", "It is gone", "Aborted"),
        Endpoint::ListUploads => reads_of_a_user(Operation::new(UPLOADS, "List open uploads"))
            .detail("With what is missing of each, so that another device can go on.")
            .query(
                "limit",
                &json!({"type": "integer", "minimum": 1, "maximum": u64::MAX, "default": 100}),
                "Uploads of a page; more than 100 come on the next.",
            )
            .query("cursor", &reference("UploadId"), "`next_cursor` of the page before.")
            .answers_json("200", "The list", "UploadList")
            .refuses("400", &["invalid_limit", "invalid_cursor"]),
        Endpoint::Complete => acts_for_a_user(Operation::new(UPLOADS, "Make a file of an upload"))
            .detail(
                "Asked again, it answers the same. The upload stays open when parts are missing, \
                 or size or digest differ. `parts` may carry the content when no part was sent, or \
                 `known` prove that the owner has it.",
            )
            .json_body("Complete")
            .answers_json("200", "The file is on the disk and listed", "Completed")
            .refuses("400", &["invalid_base64"])
            .refuses("400", &["invalid_sha256", "sha256_mismatch", "size_mismatch"])
            .refuses("400", &["not_for_a_batch", "invalid_blake3"])
            .refuses("400", &names)
            .refuses("400", &meta)
            .refuses("409", &["parts_missing", "owner_mismatch", "content_unproven"])
            .refuses("409", &["partial_upload", "partials_unfinished"])
            .refuses("413", &["quota_exceeded"]),
        _ => acts_for_a_user(Operation::new(UPLOADS, "Store a whole file"))
            .detail(
                "With `Upload-Complete: ?0` of the IETF draft on resumable uploads it is the begin \
                 of a file, and Location leads to its upload.",
            )
            .required_query("filename", &reference("FileName"), "Its name.")
            .query("folder", &reference("Folder"), "Where it lies.")
            .header("Content-Digest", "`sha-256=:BASE64:` (RFC 9530), checked.")
            .header("Repr-Digest", "The same.")
            .header("If-Match", "No file has it yet, so none is stored.")
            .raw_body()
            .answers_json("201", "The file is on the disk and listed", "File")
            .in_headers(&["Location"])
            .in_headers(resumable::PROGRESS)
            .in_headers(resumable::ENDED)
            .refuses("400", &["missing_parameter", "invalid_header"])
            .refuses("400", &names)
            .refuses("400", &digests)
            .refuses("400", &["inconsistent_upload_length"])
            .refuses("412", &["precondition_failed"])
            .refuses("413", &["quota_exceeded"]),
    };
    let has_upload =
        !matches!(endpoint, Endpoint::Init | Endpoint::ListUploads | Endpoint::PutContent);
    let operation = if has_upload {
        operation
            .refuses("404", &["upload_not_found"])
            .refuses("409", &["upload_completed", "upload_changed"])
            .refuses("410", &["gone"])
    } else {
        operation
    };
    operation.refuses("507", &["no_space"])
}

/// A service acts for users.
fn acts_for_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "Whose, from a service.").refuses("400", &["user_required"])
}

/// A service may say whose it must be.
fn of_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "Whose, from a service: to it, what is another's is not there.")
}

/// An admin reads what is others'.
fn reads_of_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "Whose, from a service or an admin.").refuses("400", &["user_required"])
}

fn names_a_user(operation: Operation, whose: &str) -> Operation {
    operation.query("user_id", &reference("UserId"), whose).query(
        "user_email",
        &json!({"type": "string"}),
        "Counts in its place when it is not there.",
    )
}

/// What the ways to a content have in common.
fn content(operation: Operation) -> Operation {
    operation
        .header("Range", "One range of bytes or several.")
        .header("If-Range", "The ETag or date that the range belongs to.")
        .header("If-None-Match", "The ETag of a copy.")
        .header("If-Match", "The ETag that the content must have.")
        .header("If-Modified-Since", "The date of a copy.")
        .header("If-Unmodified-Since", "The date that the content must not be newer than.")
        .header("Want-Repr-Digest", "`sha-256=0` leaves the digest out.")
        .exact_query(
            "proof",
            &json!({"type": "string", "pattern": "^([0-9]+-[0-9]*|-[0-9]+)$"}),
            "A range to be sent with the hashes that prove it (Bao).",
        )
        .answers_with("200", "The content, or a proof", &json!({"*/*": {}}))
        .answers_with("206", "Ranges of it", &json!({"*/*": {}}))
        .answers_nothing("304", "The copy is current")
        .refuses("400", &["invalid_proof"])
        .refuses("404", &["file_not_found"])
        .refuses("412", &["precondition_failed"])
        .refuses("416", &["range_not_satisfiable"])
        .refuses("500", &["content_damaged"])
}

fn delete_file() -> Operation {
    of_a_user(Operation::new(FILES, "Delete a file"))
        .detail("The key is `storage/{user}/{path}`, its slashes raw or percent-encoded.")
        .answers_json("200", "It is gone", "Deleted")
        .refuses("404", &["file_not_found"])
        .refuses("412", &["precondition_failed"])
        .refuses("507", &["no_space"])
}

fn image() -> Operation {
    let seconds = json!({"type": "integer", "minimum": 60, "maximum": 604_800, "default": 3600});
    let operation = of_a_user(content(Operation::new(DOWNLOADS, "A file by its id")))
        .detail("Where Accept or Content-Type names `application/json`: a signed link to it.")
        .query("expires_in", &seconds, "Seconds until that link expires.")
        .refuses("400", &["invalid_expires_in"]);
    let either = json!({"application/json": {"schema": reference("ImageLink")}, "*/*": {}});
    let answers = operation.answers.into_iter().filter(|(status, _)| *status != "200").collect();
    Operation { answers, ..operation }.answers_with("200", "The content, or a link", &either)
}

fn archive() -> Operation {
    Operation::new(DOWNLOADS, "Several files in one ZIP")
        .detail("The token in the path is the credential. A download can go on after a break.")
        .header("Range", "One range of bytes.")
        .header("If-Range", "The ETag that the range belongs to.")
        .header("If-None-Match", "The ETag of a copy.")
        .header("If-Match", "The ETag that the archive must have.")
        .answers_with("200", "The archive", &json!({"application/zip": {}}))
        .answers_with("206", "A range of it", &json!({"application/zip": {}}))
        .answers_nothing("304", "The copy is current")
        .refuses("400", &["too_many_files"])
        .refuses("403", &["link_invalid", "link_expired"])
        .refuses("404", &["not_found"])
        .refuses("410", &["gone"])
        .refuses("412", &["precondition_failed"])
        .refuses("416", &["range_not_satisfiable"])
        .refuses("500", &["content_damaged"])
}

fn sign(operation: Operation) -> Operation {
    of_a_user(operation)
        .answers_json("200", "The link", "SignedLink")
        .refuses("400", &["invalid_ttl", "invalid_disposition"])
        .refuses("404", &["file_not_found"])
}
