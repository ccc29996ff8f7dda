//! Refusals as RFC 9457 problem details: the one table of status codes.

use hyper::{
    Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    app::Error,
    http::{Refusal, message::body::Body, telemetry::metrics},
    model::{id::FileId, key::FileKey},
};

/// Most files that a refusal names.
const FILES_TOLD_MAX: usize = 100;

struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Members and the header that only this problem has.
    members: Map<String, Value>,
    header: Option<(HeaderName, String)>,
}

/// The answer to a refused request. What only an operator should know goes to the log, once.
pub fn problem(refusal: &Refusal, request_id: &str) -> Response<Body> {
    let problem = describe(refusal, request_id);
    let mut response = Body::full(problem.document(request_id)).answer(problem.status);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some((name, value)) = problem.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        headers.insert(name, value);
    }
    response
}

/// The document of a refusal, for a client that is turned away before its request is read.
pub fn document(refusal: &Refusal, request_id: &str) -> String {
    describe(refusal, request_id).document(request_id)
}

impl Problem {
    fn document(&self, request_id: &str) -> String {
        metrics::REFUSALS.of(self.code).add(1);
        let mut document = json!({
            "type": problem_type(self.code),
            "title": self.status.canonical_reason().unwrap_or("Checksum Mismatch"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        });
        for (name, value) in &self.members {
            document[name] = value.clone();
        }
        document.to_string()
    }

    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), members: Map::new(), header: None }
    }

    /// Adds a member that only this problem has.
    fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn header(self, name: HeaderName, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }
}

/// The problem type. Those that the draft on resumable uploads registers (its section 6) have names
/// of their own.
fn problem_type(code: &str) -> String {
    let registered = match code {
        "offset_mismatch" => "mismatching-upload-offset",
        "upload_completed" => "completed-upload",
        "inconsistent_upload_length" => "inconsistent-upload-length",
        _ => return format!("urn:streamlined:problem:{code}"),
    };
    format!("https://iana.org/assignments/http-problem-types#{registered}")
}

/// Has the members and the header that the draft on resumable uploads requires.
fn offset_mismatch(is: u64, said: u64) -> Problem {
    let detail = format!("The upload continues at byte {is}, not {said}.");
    Problem::new(StatusCode::CONFLICT, "offset_mismatch", detail)
        .member("expected-offset", is)
        .member("provided-offset", said)
        .header(HeaderName::from_static("upload-offset"), is.to_string())
}

fn parts_missing(numbers: &[u32], detail: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "parts_missing", detail).member("missing", numbers)
}

/// The status that tus defines for this, and the only one here without a reason phrase of its own.
fn checksum_mismatch() -> StatusCode {
    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST)
}

fn describe(refusal: &Refusal, request_id: &str) -> Problem {
    use StatusCode as S;
    match refusal {
        Refusal::NoRoute => Problem::new(S::NOT_FOUND, "no_route", "This path does not exist."),
        Refusal::MethodNotAllowed { allow } => {
            let detail = format!("This path supports only {allow}.");
            Problem::new(S::METHOD_NOT_ALLOWED, "method_not_allowed", detail).header(ALLOW, *allow)
        }
        Refusal::PreconditionFailed => {
            let detail = "A condition of the request, such as If-Match, does not hold.";
            Problem::new(S::PRECONDITION_FAILED, "precondition_failed", detail)
        }
        Refusal::MediaTypeUnsupported { takes } => {
            let detail = format!("The Content-Type of this request must be {takes}.");
            Problem::new(S::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported", detail)
                .header(HeaderName::from_static("accept-patch"), *takes)
        }
        Refusal::TusVersion { ours } => {
            let detail = format!("Tus-Resumable must be {ours}.");
            Problem::new(S::PRECONDITION_FAILED, "tus_version_unsupported", detail)
                .header(HeaderName::from_static("tus-version"), *ours)
        }
        Refusal::RangeNotSatisfiable { size } => {
            let detail = format!("The range lies outside the file's {size} bytes.");
            Problem::new(S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail)
                .header(CONTENT_RANGE, format!("bytes */{size}"))
        }
        Refusal::TooManyRequests => {
            let detail =
                "This user or service sends too many requests at a time; try again in a moment.";
            Problem::new(S::TOO_MANY_REQUESTS, "too_many_requests", detail).header(RETRY_AFTER, "1")
        }
        Refusal::App(error) => describe_error(error, request_id),
    }
}

fn describe_error(error: &Error, request_id: &str) -> Problem {
    use StatusCode as S;
    match error {
        Error::Unauthenticated(why) => {
            tracing::info!(request_id, why, "not authenticated");
            let detail = "A valid credential is needed: X-Service-Token or Authorization: Bearer.";
            Problem::new(S::UNAUTHORIZED, "unauthenticated", detail)
                .header(WWW_AUTHENTICATE, "Bearer")
        }
        Error::Denied { needs } => {
            let detail = format!("This request needs the role {} or a higher one.", needs.as_str());
            Problem::new(S::FORBIDDEN, "forbidden", detail)
        }
        Error::OutOfScope(what) => {
            let detail = format!("The token does not grant this {what}.");
            Problem::new(S::FORBIDDEN, "out_of_scope", detail)
        }
        Error::LinkRefused { code, detail } => Problem::new(S::FORBIDDEN, code, *detail),
        Error::NotFound(what) => {
            let code = match *what {
                "file" => "file_not_found",
                "upload" => "upload_not_found",
                _ => "not_found",
            };
            Problem::new(S::NOT_FOUND, code, format!("There is no such {what}."))
        }
        Error::NoSuchFiles(keys) => {
            let keys: Vec<&str> = keys.iter().take(FILES_TOLD_MAX).map(FileKey::as_str).collect();
            let detail = "Some of the files that the request names do not exist.";
            Problem::new(S::NOT_FOUND, "file_not_found", detail).member("missing", keys)
        }
        Error::FilesGone(ids) => {
            let told: Vec<String> =
                ids.iter().take(FILES_TOLD_MAX).map(FileId::to_string).collect();
            let detail =
                format!("{} files of the batch were deleted; request a new token.", ids.len());
            Problem::new(S::GONE, "gone", detail).member("missing", told)
        }
        Error::Gone(what) => Problem::new(S::GONE, "gone", format!("The {what} was deleted.")),
        Error::Invalid { code, detail } => Problem::new(S::BAD_REQUEST, code, detail),
        Error::Conflict { code, detail } => Problem::new(S::CONFLICT, code, detail),
        Error::FinalUpload => {
            let detail = "A final upload is made of partial uploads and takes no bytes of its own.";
            Problem::new(S::FORBIDDEN, "final_upload", detail)
        }
        Error::OffsetDiffers { is, said } => offset_mismatch(*is, *said),
        Error::ChecksumDiffers => {
            let detail = "The bytes do not match the checksum, and none of them were kept.";
            Problem::new(checksum_mismatch(), "checksum_mismatch", detail)
        }
        Error::PartsMissing(numbers) => {
            parts_missing(numbers, "Parts are missing; send them, the upload stays open.")
        }
        Error::PartsDamaged(numbers) => {
            let detail = "Parts were damaged on the disk and were discarded; send them again.";
            parts_missing(numbers, detail)
        }
        Error::TooLarge { what, limit } => {
            let detail = format!("The {what} is larger than {limit} bytes.");
            Problem::new(S::PAYLOAD_TOO_LARGE, "too_large", detail).member("limit", *limit)
        }
        Error::Quota { limit, used, asked } => {
            let detail = format!(
                "The quota is {limit} bytes; {used} are used or reserved, {asked} more are needed."
            );
            Problem::new(S::PAYLOAD_TOO_LARGE, "quota_exceeded", detail)
                .member("quota", *limit)
                .member("used", *used)
                .member("requested", *asked)
        }
        Error::Busy => {
            let detail = "Too many requests are in progress; try again in a moment.";
            Problem::new(S::SERVICE_UNAVAILABLE, "busy", detail).header(RETRY_AFTER, "1")
        }
        Error::NoSpace => Problem::new(S::INSUFFICIENT_STORAGE, "no_space", "The disk is full."),
        Error::BodyAborted => {
            Problem::new(S::BAD_REQUEST, "body_aborted", "The request body ended early.")
        }
        Error::BodyTimeout => {
            let detail = "The request body stopped arriving, or arrived too slowly.";
            Problem::new(S::REQUEST_TIMEOUT, "body_timeout", detail)
        }
        Error::Unavailable(why) => {
            tracing::error!(request_id, why, "a store is unavailable");
            let detail = "The storage is not available now; the server's log says why.";
            Problem::new(S::SERVICE_UNAVAILABLE, "unavailable", detail).header(RETRY_AFTER, "30")
        }
        Error::Damaged(blob) => {
            tracing::error!(request_id, %blob, "a damaged blob was requested");
            let detail = "The stored content is damaged; uploading it again repairs it.";
            Problem::new(S::INTERNAL_SERVER_ERROR, "content_damaged", detail)
        }
        Error::OfUpload(id, error) => {
            describe_error(error, request_id).member("uploadId", id.to_string())
        }
        Error::Internal(why) => {
            tracing::error!(request_id, why, "internal error");
            let detail = "The server failed; its log has the error under this request_id.";
            Problem::new(S::INTERNAL_SERVER_ERROR, "internal", detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta;

    /// The errors that no client can cause at will. `tests/it` covers the others.
    #[test]
    fn what_the_store_says_is_told_by_its_code() {
        use meta::Error as E;
        for (error, status, code) in [
            (E::NotFound, 404, "not_found"),
            (E::Closed, 409, "upload_completed"),
            (E::Changed, 409, "upload_changed"),
            (E::NotEmpty, 409, "user_not_empty"),
            (E::LoggedOut, 401, "unauthenticated"),
            (E::Quota { limit: 1, used: 1, asked: 1 }, 413, "quota_exceeded"),
            (E::Busy, 503, "busy"),
            (E::NoSpace, 507, "no_space"),
            (E::Unavailable("secret".into()), 503, "unavailable"),
            (E::Exists, 500, "internal"),
            (E::Corrupt("secret".into()), 500, "internal"),
        ] {
            let told = format!("{error:?}");
            let problem = describe(&Refusal::App(error.into()), "id");
            assert_eq!((problem.status.as_u16(), problem.code), (status, code), "{told}");
            let is_late = problem.header.is_some_and(|(name, _)| name == RETRY_AFTER);
            assert_eq!(is_late, status == 503, "{told}");
            // The reason is for the operator alone.
            assert!(!problem.detail.contains("secret"), "{}", problem.detail);
        }
    }
}
