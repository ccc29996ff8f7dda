//! The description of each endpoint. The `match` has no wildcard, so an endpoint without a
//! description does not compile.

use serde_json::{Value, json};

use super::{admin, operation::Operation, resumable, schemas::reference, tus};
use crate::http::endpoint::Endpoint;

pub const INTRODUCTION: &str = "Resumable uploads in parts, downloads with ranges, signed links, \
    and tokens for users and services. Whatever a 2xx status acknowledges is durable on the disk. \
    A service names the user it acts for with `user_id` or `user_email`, in the query or in \
    `meta`. A user's own id takes precedence over any id in the request, and to a user, the files \
    of others do not exist. A refusal is a problem document (RFC 9457) with a stable `code`; only \
    that of a request that is not valid HTTP, or whose head is too large, has no body.";

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
        (UPLOADS, "Upload a file in parts (init, parts, complete) or as a whole in one request."),
        (FILES, "List, inspect and delete stored files."),
        (DOWNLOADS, "The content of a file, whole or in ranges; several files as one ZIP."),
        (LINKS, "Links to one file that work without a credential until they expire."),
        (TUS, "The same uploads, by the tus 1.0.0 protocol (tus.io)."),
        (RESUMABLE, "The same uploads, by draft-ietf-httpbis-resumable-upload."),
        (TOKENS, "Services issue tokens to the users they act for."),
        (ADMIN, "Service tokens, users and signing keys."),
        (DAEMON, "Health, public keys, metrics and this description."),
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
        Endpoint::ListFiles => list_files(),
        Endpoint::Metadata { .. } => of_a_user(Operation::new(FILES, "Show a file's metadata"))
            .answers_json("200", "The file", "Metadata")
            .refuses("404", &["file_not_found"]),
        Endpoint::DeleteFile { .. } => delete_file(),
        Endpoint::Content { .. } => {
            of_a_user(content(Operation::new(DOWNLOADS, "Download a file as an attachment")))
        }
        Endpoint::Storage { .. } => of_a_user(content(
            Operation::new(DOWNLOADS, "Download a file by its public path")
                .detail("Needs no credential if public read is enabled."),
        )),
        Endpoint::Image { .. } => image(),
        Endpoint::MintBatch => {
            reads_of_a_user(Operation::new(DOWNLOADS, "Issue a token for a ZIP"))
                .json_body("MintBatch")
                .answers_json("200", "The token, valid for one hour", "BatchToken")
                .refuses("400", &["invalid_keys", "invalid_folder", "too_many_files"])
                .refuses("400", &["invalid_meta"])
                .refuses("404", &["file_not_found", "not_found"])
                .refuses("409", &["owner_mismatch"])
                .refuses("410", &["gone"])
                .refuses("507", &["no_space"])
        }
        Endpoint::FetchBatch { .. } => archive(),
        Endpoint::SignLink => sign(Operation::new(LINKS, "Sign a link to a file"))
            .required_query("key", &reference("Key"), "The file's key.")
            .query("ttl", &reference("Ttl"), "Seconds until the link expires.")
            .query(
                "disposition",
                &reference("Disposition"),
                "Whether browsers show the file or save it.",
            )
            .refuses("400", &["missing_parameter"]),
        Endpoint::SignLinkForm => sign(Operation::new(LINKS, "Sign a link to a file, by JSON"))
            .json_body("SignLink")
            .refuses("400", &["invalid_meta"])
            .refuses("409", &["owner_mismatch"]),
        Endpoint::RedeemLink { .. } => {
            let positive = json!({"type": "integer", "minimum": 0});
            content(Operation::new(LINKS, "Download a file by a signed link"))
                .required_query("exp", &positive, "Expiry time in Unix seconds.")
                .required_query("sig", &json!({"type": "string"}), "HMAC-SHA256 in hex.")
                .exact_query("disposition", &reference("Disposition"), "Signed, if it is present.")
                .refuses("403", &["link_invalid", "link_expired"])
        }
        Endpoint::GenerateToken => names_a_user(
            Operation::new(TOKENS, "Issue a token for a user"),
            "The user of the token.",
        )
        .detail("For services only, which name the user by `user_id` or `user_email`.")
        .query("expires_hours", &reference("Hours"), "Lifetime of the token in hours.")
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
        Endpoint::Health => Operation::new(DAEMON, "Health of the daemon")
            .answers_json("200", "The daemon reads and writes", "Health")
            .answers_json("503", "The daemon only reads: a store takes no writes", "Health"),
        Endpoint::KeySet => Operation::new(DAEMON, "Public keys to verify tokens").answers_json(
            "200",
            "A JWK set (RFC 7517), which may be cached for five minutes",
            "KeySet",
        ),
        Endpoint::Description => Operation::new(DAEMON, "This description")
            .header("If-None-Match", "The ETag of a cached copy.")
            .answers_with("200", "The OpenAPI 3.1 document", &json!({"application/json": {}}))
            .answers_nothing("304", "The cached copy is current"),
        Endpoint::Metrics => metrics(),
        Endpoint::Docs => Operation::new(DAEMON, "This description as an HTML page")
            .header("If-None-Match", "The ETag of a cached copy.")
            .answers_with("200", "The page", &json!({"text/html": {}}))
            .answers_nothing("304", "The cached copy is current"),
    }
}

fn list_files() -> Operation {
    reads_of_a_user(Operation::new(FILES, "List files, newest first"))
        .detail(
            "`folder` includes everything beneath it. Without `limit` the list is complete. \
                 The totals cover all files that match the filter, not only those of the page.",
        )
        .query("folder", &reference("Folder"), "Folder to list; the top folder if absent.")
        .query(
            "limit",
            &json!({"type": "integer", "minimum": 1, "maximum": u64::MAX}),
            "Maximum number of files in a page.",
        )
        .query("cursor", &reference("FileId"), "`next_cursor` of the previous page.")
        .answers_json("200", "The list", "FileList")
        .refuses("400", &["invalid_folder", "invalid_limit", "invalid_cursor"])
}

fn metrics() -> Operation {
    Operation::new(DAEMON, "Metrics for Prometheus")
        .detail("On the port only if the setting `metrics` allows it, and only to whom it allows.")
        .answers_with("200", "Prometheus text format 0.0.4", &json!({"text/plain": {}}))
        .refuses("404", &["no_route"])
}

fn upload(endpoint: &Endpoint) -> Operation {
    let names = ["invalid_folder", "invalid_filename", "invalid_mime"];
    let meta = ["invalid_meta", "meta_too_large"];
    let digests = ["invalid_digest", "digest_mismatch"];
    let operation = match endpoint {
        Endpoint::Init => acts_for_a_user(Operation::new(UPLOADS, "Begin an upload"))
            .query("folder", &reference("Folder"), "Folder of the file, if the body names none.")
            .json_body("Init")
            .answers_json("200", "The upload session", "Opened")
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
        Endpoint::RawPart { .. } => of_a_user(Operation::new(UPLOADS, "Send a part as raw bytes"))
            .detail("Parts may be sent in any order, at any size and in parallel.")
            .header("Content-Digest", "`sha-256=:BASE64:` of the body (RFC 9530); checked.")
            .header("Repr-Digest", "As Content-Digest.")
            .raw_body()
            .answers_json("200", "The part is on the disk", "PartTaken")
            .refuses("400", &["invalid_part_number", "not_for_a_batch"])
            .refuses("400", &digests)
            .refuses("403", &["final_upload"])
            .refuses("413", &["quota_exceeded"]),
        Endpoint::UploadStatus { .. } => {
            of_a_user(Operation::new(UPLOADS, "Show the progress of an upload or a batch"))
                .answers_json("200", "The upload session", "UploadStatus")
        }
        Endpoint::AbortUpload { .. } => of_a_user(Operation::new(UPLOADS, "Abort an upload"))
            .answers_json("200", "The upload is gone", "Aborted"),
        Endpoint::ListUploads => reads_of_a_user(Operation::new(UPLOADS, "List open uploads"))
            .detail("Each entry names the missing parts, so that another device can continue.")
            .query(
                "limit",
                &json!({"type": "integer", "minimum": 1, "maximum": u64::MAX, "default": 100}),
                "Maximum number of uploads in a page, which never has more than 100.",
            )
            .query("cursor", &reference("UploadId"), "`next_cursor` of the previous page.")
            .answers_json("200", "The list", "UploadList")
            .refuses("400", &["invalid_limit", "invalid_cursor"]),
        Endpoint::Complete => acts_for_a_user(Operation::new(UPLOADS, "Complete an upload"))
            .detail(
                "A repeated request gets the same answer. The upload stays open if parts are \
                 missing, or if the size or the digest does not match. If no part was sent, \
                 `parts` may carry the content, or `known` may prove that the owner has it.",
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
                "With `Upload-Complete: ?0` of the IETF draft on resumable uploads, the request \
                 only begins an upload, and `Location` in the answer is the URL of that upload.",
            )
            .required_query("filename", &reference("FileName"), "Name of the file.")
            .query("folder", &reference("Folder"), "Folder of the file.")
            .header("Content-Digest", "`sha-256=:BASE64:` of the body (RFC 9530); checked.")
            .header("Repr-Digest", "As Content-Digest.")
            .header("If-Match", "Always 412: the request makes a new file, which has no ETag yet.")
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

/// An operation in which a service acts for a user.
fn acts_for_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "The user for whom a service acts.").refuses("400", &["user_required"])
}

/// An operation in which a service may name the user who must be the owner.
fn of_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "Owner that a service names; anything of other users is then 404.")
}

/// An operation in which a service or an admin reads what a user owns.
fn reads_of_a_user(operation: Operation) -> Operation {
    names_a_user(operation, "The owner, named by a service or an admin.")
        .refuses("400", &["user_required"])
}

fn names_a_user(operation: Operation, whose: &str) -> Operation {
    operation.query("user_id", &reference("UserId"), whose).query(
        "user_email",
        &json!({"type": "string"}),
        "The same, used if `user_id` is absent.",
    )
}

/// What all operations that serve content have in common.
fn content(operation: Operation) -> Operation {
    operation
        .header("Range", "One or several byte ranges.")
        .header("If-Range", "The ETag or date that the range belongs to.")
        .header("If-None-Match", "The ETag of a cached copy.")
        .header("If-Match", "The ETag that the content must have.")
        .header("If-Modified-Since", "The date of a cached copy.")
        .header("If-Unmodified-Since", "The content must not be newer than this date.")
        .header("Want-Repr-Digest", "`sha-256=0` omits `Repr-Digest` from the answer.")
        .exact_query(
            "proof",
            &json!({"type": "string", "pattern": "^([0-9]+-[0-9]*|-[0-9]+)$"}),
            "A byte range, sent with the hashes that verify it (as a Bao slice).",
        )
        .answers_with("200", "The content, or a range with its proof", &json!({"*/*": {}}))
        .answers_with("206", "The requested ranges", &json!({"*/*": {}}))
        .answers_nothing("304", "The cached copy is current")
        .refuses("400", &["invalid_proof"])
        .refuses("404", &["file_not_found"])
        .refuses("412", &["precondition_failed"])
        .refuses("416", &["range_not_satisfiable"])
        .refuses("500", &["content_damaged"])
}

fn delete_file() -> Operation {
    of_a_user(Operation::new(FILES, "Delete a file"))
        .detail("The key is `storage/{user}/{path}`; its slashes may be raw or percent-encoded.")
        .answers_json("200", "The file is deleted", "Deleted")
        .refuses("404", &["file_not_found"])
        .refuses("412", &["precondition_failed"])
        .refuses("507", &["no_space"])
}

fn image() -> Operation {
    let seconds = json!({"type": "integer", "minimum": 60, "maximum": 604_800, "default": 3600});
    let operation = of_a_user(content(Operation::new(DOWNLOADS, "Download a file by its id")))
        .detail(
            "If Accept or Content-Type names `application/json`, the answer is a signed link to \
             the file.",
        )
        .query("expires_in", &seconds, "Seconds until the link expires.")
        .refuses("400", &["invalid_expires_in"]);
    let either = json!({"application/json": {"schema": reference("ImageLink")}, "*/*": {}});
    let answers = operation.answers.into_iter().filter(|(status, _)| *status != "200").collect();
    Operation { answers, ..operation }.answers_with("200", "The content, or a signed link", &either)
}

fn archive() -> Operation {
    Operation::new(DOWNLOADS, "Download several files as one ZIP")
        .detail("The token in the path is the credential. `Range` resumes an interrupted download.")
        .header("Range", "One byte range.")
        .header("If-Range", "The ETag that the range belongs to.")
        .header("If-None-Match", "The ETag of a cached copy.")
        .header("If-Match", "The ETag that the archive must have.")
        .answers_with("200", "The archive", &json!({"application/zip": {}}))
        .answers_with("206", "A range of the archive", &json!({"application/zip": {}}))
        .answers_nothing("304", "The cached copy is current")
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
        .answers_json("200", "The signed link", "SignedLink")
        .refuses("400", &["invalid_ttl", "invalid_disposition"])
        .refuses("404", &["file_not_found"])
}
