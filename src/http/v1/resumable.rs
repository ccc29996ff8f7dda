//! Resumable uploads by the IETF draft-ietf-httpbis-resumable-upload-12, with interop version 8:
//! the upload sessions, in the terms of that draft. `PUT /v1/files/content` begins one, and
//! `/v1/uploads/{id}` is its upload resource.
//!
//! The draft lets a server announce the upload resource while the request that created it is still
//! under way, by an interim response 104. hyper 1.12 answers a request only once: its HTTP/1
//! encoder refuses a 1xx, and its HTTP/2 server does not use the interim responses of h2. So a
//! client learns of the resource from the 201 to a creation with `Upload-Complete: ?0`. A creation
//! with `?1` is a request like any other: nothing of it is kept when it is cut.

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{ALLOW, HeaderName, HeaderValue, LOCATION},
};

use super::{
    complete,
    files::metadata_answer,
    tus::{self, UPLOAD_LENGTH, UPLOAD_OFFSET, answer},
};
use crate::{
    app::{
        Error, Policy,
        append::{Claim, Content, Ends, Piece, Progress, inconsistent_length},
        checksum::{Checksum, Digest},
        upload::{DeclaredFile, Init},
    },
    http::{
        Context, Refusal, Reply,
        download::content::value,
        message::{
            body::{Body, RequestBody},
            digest, fields, json, structured,
        },
        telemetry::audit,
    },
    model::{
        file::{CallerMeta, FileRecord},
        id::UploadId,
        upload::Mode,
    },
};

pub const PREFIX: &str = "/v1/uploads/";
const CREATION_PATH: &str = "/v1/files/content";
const INTEROP_VERSION: &str = "8";
const PIECE_TYPE: &str = "application/partial-upload";
/// The largest integer that a structured field can hold.
const INTEGER_MAX: u64 = 999_999_999_999_999;

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const UPLOAD_DRAFT_INTEROP_VERSION: HeaderName =
    HeaderName::from_static("upload-draft-interop-version");
const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");

/// Whether a request is one of the draft's.
pub fn is_spoken(path: &str, headers: &HeaderMap) -> bool {
    path.starts_with(PREFIX) || (path == CREATION_PATH && completes(headers).is_some())
}

/// What `Upload-Complete` says: that the request brings the last byte, or that more will come. A
/// creation without it is not one of the draft's.
fn completes(headers: &HeaderMap) -> Option<bool> {
    structured::boolean(headers, &UPLOAD_COMPLETE)
}

/// Every answer of the draft, a refusal too, states its version and the limits.
pub fn mark(policy: &Policy, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(UPLOAD_DRAFT_INTEROP_VERSION, HeaderValue::from_static(INTEROP_VERSION));
    if let Ok(limits) = value(&limits(policy, policy.upload_ttl.as_secs())) {
        headers.entry(UPLOAD_LIMIT).or_insert(limits);
    }
}

/// `Upload-Limit` of an upload that has `left` seconds left.
fn limits(policy: &Policy, left: u64) -> String {
    let [size, piece, left] =
        [policy.file_bytes_max, policy.part_bytes_max, left].map(|it| it.min(INTEGER_MAX));
    format!("max-size={size}, max-append-size={piece}, max-age={left}")
}

/// `OPTIONS` of a path where uploads begin or continue.
pub fn options(context: &Context, upload: Option<UploadId>) -> Response<Body> {
    let mut response = answer(StatusCode::NO_CONTENT);
    mark(&context.app.policy(), &mut response);
    let headers = response.headers_mut();
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(PIECE_TYPE));
    let allow = if upload.is_some() { ALLOWED } else { "OPTIONS, PUT" };
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The methods that an upload resource allows.
pub const ALLOWED: &str = "OPTIONS, HEAD, PATCH, DELETE";

/// `PUT /v1/files/content`: a whole file in one request, or the beginning of one.
pub async fn create(context: &Context, body: RequestBody) -> Reply {
    let said = structured::integer(&context.headers, &UPLOAD_LENGTH);
    match completes(&context.headers) {
        None => complete::put_content(context, body).await,
        Some(true) => {
            if said.is_some() && body.announced().is_some_and(|length| Some(length) != said) {
                return Err(inconsistent_length().into());
            }
            let file = complete::store_content(context, body, said).await?;
            created(context, &file)
        }
        Some(false) => begin(context, said, body).await,
    }
}

const TRUE: HeaderValue = HeaderValue::from_static("?1");
const FALSE: HeaderValue = HeaderValue::from_static("?0");

async fn begin(context: &Context, size: Option<u64>, body: RequestBody) -> Reply {
    if let (Some(size), Some(announced)) = (size, body.announced())
        && announced > size
    {
        return Err(inconsistent_length().into());
    }
    let file = DeclaredFile {
        name: fields::file_name(context.query.required("filename")?)?,
        size: size.unwrap_or(0),
        mime: complete::declared_type(context)?,
        sha256: digest::of_representation(&context.headers)?,
        blake3: None,
    };
    let init = Init {
        mode: if size.is_some() { Mode::Single } else { Mode::Growing },
        files: vec![file],
        folder: context.query.folder()?,
        meta: CallerMeta::default(),
        user: context.named_user(None, None)?,
    };
    let claim = Claim {
        offset: 0,
        size: None,
        announced: body.announced(),
        ends: Ends::Later,
        whole: None,
    };
    let piece = piece(context, claim, body)?;
    complete::check_condition(context)?;
    let created = context.app.create_upload(context.principal()?, init, Some(piece)).await;
    let progress = created.map_err(refused)?;
    let mut response = told(context, StatusCode::CREATED, &progress)?;
    let base = &context.settings.public_url;
    let location = format!("{base}{PREFIX}{}", progress.upload.id);
    response.headers_mut().insert(LOCATION, value(&location)?);
    Ok(audit::about(response, &progress.upload.id))
}

/// `HEAD /v1/uploads/{id}`: the offset at which to continue.
pub async fn head(context: &Context, id: UploadId) -> Reply {
    let progress = context.app.progress(context.principal()?, id).await?;
    let mut response = told(context, StatusCode::NO_CONTENT, &progress)?;
    if let Some(size) = progress.size {
        response.headers_mut().insert(UPLOAD_LENGTH, size.into());
    }
    Ok(response)
}

/// `PATCH /v1/uploads/{id}`: more bytes, or the last ones.
pub async fn append(context: &Context, id: UploadId, body: RequestBody) -> Reply {
    let headers = &context.headers;
    if !fields::is_of_type(headers, PIECE_TYPE) {
        return Err(Refusal::MediaTypeUnsupported { takes: PIECE_TYPE });
    }
    let missing = || Error::invalid("invalid_upload_offset", "Upload-Offset is required.");
    let offset = structured::integer(headers, &UPLOAD_OFFSET).ok_or_else(missing)?;
    let missing = || Error::invalid("invalid_upload_complete", "Upload-Complete is required.");
    let is_last = completes(headers).ok_or_else(missing)?;
    let said = structured::integer(headers, &UPLOAD_LENGTH);
    let announced = body.announced();
    let by_this = announced.filter(|_| is_last).and_then(|length| offset.checked_add(length));
    if said.is_some() && by_this.is_some() && said != by_this {
        return Err(inconsistent_length().into());
    }
    let claim = Claim {
        offset,
        size: said.or(by_this),
        announced,
        ends: if is_last { Ends::Here } else { Ends::Later },
        whole: digest::of_representation(headers)?.filter(|_| is_last),
    };
    let piece = piece(context, claim, body)?;
    let appended = context.app.append(context.principal()?, id, piece).await;
    let progress = appended.map_err(refused)?;
    match &progress.file {
        Some(file) => {
            // The answer is as if everything had come in one request.
            created(context, file)
        }
        None => told(context, StatusCode::NO_CONTENT, &progress),
    }
}

/// `DELETE /v1/uploads/{id}`.
pub async fn cancel(context: &Context, id: UploadId) -> Reply {
    context.app.terminate_upload(context.principal()?, id).await?;
    Ok(answer(StatusCode::NO_CONTENT))
}

fn piece(
    context: &Context,
    claim: Claim,
    body: RequestBody,
) -> Result<Piece<impl Content + use<>>, Error> {
    let digest = digest::of_content(&context.headers)?;
    let digest = digest.map(Digest::of_sha256);
    let content = body.arrivals(|_| Ok(None));
    Ok(Piece { claim, checksum: digest.map(Checksum::new), content })
}

/// Answers a digest mismatch with 400: the special status for it, 460, belongs to tus.
fn refused(error: Error) -> Error {
    match error {
        Error::ChecksumDiffers => {
            let detail = "The bytes do not match Content-Digest, and none of them were kept.";
            Error::invalid("digest_mismatch", detail)
        }
        error => error,
    }
}

/// An answer about an upload, with the headers that all of these have.
fn told(context: &Context, status: StatusCode, progress: &Progress) -> Reply {
    let mut response = answer(status);
    let expires = progress.upload.expires.seconds();
    let left = expires.saturating_sub(context.app.now().seconds());
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, progress.offset.into());
    headers.insert(UPLOAD_COMPLETE, FALSE);
    let limits = limits(&context.app.policy(), left);
    headers.insert(UPLOAD_LIMIT, value(&limits)?);
    match &progress.file {
        Some(file) => ended(context, response, file),
        None => Ok(response),
    }
}

fn created(context: &Context, file: &FileRecord) -> Reply {
    let response = json::reply(StatusCode::CREATED, &metadata_answer(file))?;
    ended(context, response, file).map(|response| audit::about(response, &file.key))
}

/// Adds the headers for an upload that became a file.
fn ended(context: &Context, mut response: Response<Body>, file: &FileRecord) -> Reply {
    let headers = response.headers_mut();
    headers.insert(UPLOAD_COMPLETE, TRUE);
    headers.insert(UPLOAD_OFFSET, file.size.into());
    headers.insert(tus::UPLOAD_KEY, tus::encoded_key(file)?);
    if let Some(digest) = digest::wanted(&context.headers, &file.sha256) {
        headers.insert(digest::REPR_DIGEST, value(&digest)?);
    }
    Ok(response)
}
