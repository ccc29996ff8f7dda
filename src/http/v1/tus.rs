//! tus 1.0 at `/v1/tus`: the upload sessions, in the terms of that protocol.

pub mod concat;
pub mod metadata;

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{CACHE_CONTROL, HeaderName, HeaderValue, LOCATION, TRAILER},
    http::request::Parts,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use self::concat::Concat;
use crate::{
    app::{
        Error,
        append::{Claim, Content, Ends, Piece, Progress},
        checksum::{Algorithm, Checksum, Digest},
        upload::{DeclaredFile, Init},
    },
    http::{
        self, Context, Refusal, Reply,
        download::content::value,
        endpoint::Endpoint,
        message::{
            body::{Body, RequestBody},
            digest, fields,
        },
        route,
        telemetry::audit,
    },
    model::{
        file::FileRecord,
        id::UploadId,
        upload::{Mode, UploadState},
    },
};

const PATH: &str = "/v1/tus";
const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,\
                          checksum,checksum-trailer,termination,concatenation,\
                          concatenation-unfinished";
const OFFSET_TYPE: &str = "application/offset+octet-stream";
/// The name of a file whose client gives none.
const NAME: &str = "upload";
/// What must be percent-encoded in the path of a URL.
const KEY_UNSAFE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'@');

const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// Our own header: the key of the file that the upload became, percent-encoded.
pub const UPLOAD_KEY: HeaderName = HeaderName::from_static("upload-key");
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// What follows the tus endpoint in a decoded path: nothing, or an upload's id.
pub fn within(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Clients that can send neither PATCH nor DELETE name the method in a header. It then replaces the
/// method that they sent.
///
/// # Errors
/// [`Error::Invalid`] for what is not a method.
pub fn override_method(head: &mut Parts) -> Result<(), Error> {
    let is_named = head.headers.contains_key(&METHOD_OVERRIDE);
    if is_named
        && route::decode(head.uri.path()).is_ok_and(|path| within(&path).is_some())
        && let Some(named) = text(&head.headers, &METHOD_OVERRIDE)?
    {
        let detail = "X-HTTP-Method-Override is not a method.";
        let invalid = || Error::invalid("invalid_header", detail);
        head.method = Method::from_bytes(named.as_bytes()).map_err(|_| invalid())?;
    }
    Ok(())
}

/// Every answer of the protocol, a refusal too, states its version.
pub fn mark(path: &str, response: &mut Response<Body>) {
    if within(path).is_some() {
        response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    }
}

/// `OPTIONS`: what the server supports.
pub fn options(context: &Context) -> Reply {
    let mut response = answer(StatusCode::NO_CONTENT);
    let algorithms = Algorithm::ALL.map(Algorithm::as_str).join(",");
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_MAX_SIZE, context.app.policy().file_bytes_max.into());
    headers.insert(TUS_CHECKSUM_ALGORITHM, value(&algorithms)?);
    Ok(response)
}

/// `POST /v1/tus`: a new upload, with its first bytes if the request brings some.
pub async fn create(context: &Context, body: RequestBody) -> Reply {
    check_version(&context.headers)?;
    let concat = text(&context.headers, &UPLOAD_CONCAT)?;
    let concat = concat.as_deref().map(concat::parse).transpose()?;
    let size = match &concat {
        Some(Concat::Final(_)) => None,
        _ => declared_size(&context.headers)?,
    };
    let mut said = metadata::parse(&text(&context.headers, &UPLOAD_METADATA)?.unwrap_or_default())?;
    let user = context.named_in(&mut said)?;
    let folder = fields::text(&mut said, "folder")?.unwrap_or_default();
    let file = DeclaredFile {
        name: fields::file_name(fields::text(&mut said, "filename")?.as_deref().unwrap_or(NAME))?,
        size: size.unwrap_or(0),
        blake3: None,
        mime: match fields::text(&mut said, "filetype")?.filter(|mime| !mime.is_empty()) {
            Some(mime) => Some(fields::media_type(mime)?),
            None => None,
        },
        sha256: None,
    };
    let init = Init {
        mode: match (&concat, size) {
            (None, Some(_)) => Mode::Stream,
            (None, None) => Mode::Growing,
            (Some(Concat::Partial), Some(_)) => Mode::Partial,
            (Some(Concat::Partial), None) => Mode::GrowingPartial,
            (Some(Concat::Final(_)), _) => Mode::Final,
        },
        files: vec![file],
        folder: fields::folder(&folder)?,
        meta: fields::caller_meta(said)?,
        user,
    };
    let progress = match concat {
        Some(Concat::Final(partials)) => concatenate(context, init, partials, body).await?,
        _ => begin(context, init, size, body).await?,
    };
    let mut response = told(StatusCode::CREATED, &progress)?;
    let base = &context.settings.public_url;
    let location = format!("{base}{PATH}/{}", progress.upload.id);
    response.headers_mut().insert(LOCATION, value(&location)?);
    Ok(response)
}

/// Begins an upload, with its first bytes if the request brings some.
async fn begin(
    context: &Context,
    init: Init,
    size: Option<u64>,
    body: RequestBody,
) -> Result<Progress, Error> {
    let comes_with_bytes = fields::is_of_type(&context.headers, OFFSET_TYPE);
    let piece = comes_with_bytes.then(|| piece(context, 0, None, body)).transpose()?;
    if let (Some(size), Some(piece)) = (size, &piece)
        && piece.claim.announced.is_some_and(|announced| announced > size)
    {
        return Err(Error::TooLarge { what: "upload", limit: size });
    }
    context.app.create_upload(context.principal()?, init, piece).await
}

/// Begins an upload that is made of others, and completes it if they are complete. It has neither a
/// length nor bytes of its own.
async fn concatenate(
    context: &Context,
    init: Init,
    partials: Vec<UploadId>,
    mut body: RequestBody,
) -> Result<Progress, Error> {
    let has_length = [UPLOAD_LENGTH, UPLOAD_DEFER_LENGTH];
    if has_length.iter().any(|name| context.headers.contains_key(name)) {
        let detail = "A final upload takes no length: its partial uploads have it.";
        return Err(Error::invalid("invalid_upload_length", detail));
    }
    if !body.is_empty().await? {
        return Err(Error::FinalUpload);
    }
    context.app.concatenate(context.principal()?, init, partials).await
}

/// `HEAD /v1/tus/{id}`: the offset at which to continue.
pub async fn head(context: &Context, id: UploadId) -> Reply {
    check_version(&context.headers)?;
    let progress = context.app.progress(context.principal()?, id).await?;
    let mut response = told(StatusCode::OK, &progress)?;
    let mode = progress.upload.mode;
    let partials = context.app.partials(id).await?;
    let headers = response.headers_mut();
    match progress.size {
        Some(size) => drop(headers.insert(UPLOAD_LENGTH, size.into())),
        None if mode == Mode::Final => {}
        None => drop(headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1"))),
    }
    let base = &context.settings.public_url;
    if let Some(concat) = concat::print(mode, &partials, base) {
        headers.insert(UPLOAD_CONCAT, value(&concat)?);
    }
    headers.insert(UPLOAD_METADATA, value(&metadata::print(&progress.upload))?);
    Ok(response)
}

/// `PATCH /v1/tus/{id}`: more bytes.
pub async fn patch(context: &Context, id: UploadId, body: RequestBody) -> Reply {
    check_version(&context.headers)?;
    if !fields::is_of_type(&context.headers, OFFSET_TYPE) {
        return Err(Refusal::MediaTypeUnsupported { takes: OFFSET_TYPE });
    }
    let missing = || Error::invalid("invalid_upload_offset", "Upload-Offset is required.");
    let offset = number(&context.headers, &UPLOAD_OFFSET, "invalid_upload_offset")?;
    let size = number(&context.headers, &UPLOAD_LENGTH, "invalid_upload_length")?;
    let piece = piece(context, offset.ok_or_else(missing)?, size, body)?;
    let progress = context.app.append(context.principal()?, id, piece).await?;
    told(StatusCode::NO_CONTENT, &progress)
}

/// `DELETE /v1/tus/{id}`: deletes what there is of an upload. If that is a file by now, only
/// callers who may delete files can do so.
pub async fn terminate(context: &Context, id: UploadId) -> Reply {
    check_version(&context.headers)?;
    let principal = context.principal()?;
    let Some(file) = context.app.file_of(principal, id).await? else {
        context.app.terminate_upload(principal, id).await?;
        return Ok(answer(StatusCode::NO_CONTENT));
    };
    let deletion = Endpoint::DeleteFile { key: file.key.clone() };
    http::check(principal, &deletion)?;
    context.app.delete_file(principal, file.key).await?;
    Ok(audit::turned_out(answer(StatusCode::NO_CONTENT), &deletion))
}

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get(TUS_RESUMABLE).is_some_and(|version| version == VERSION) {
        return Ok(());
    }
    Err(Refusal::TusVersion { ours: VERSION })
}

/// The size of a new upload; `None` if it is declared later.
pub fn declared_size(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let detail = "Either Upload-Length or Upload-Defer-Length: 1 is required.";
    let wrong = || Error::invalid("invalid_upload_length", detail);
    let size = number(headers, &UPLOAD_LENGTH, "invalid_upload_length")?;
    match (size, headers.get(UPLOAD_DEFER_LENGTH)) {
        (Some(size), None) => Ok(Some(size)),
        (None, Some(deferred)) if deferred == "1" => Ok(None),
        _ => Err(wrong()),
    }
}

fn piece(
    context: &Context,
    offset: u64,
    size: Option<u64>,
    body: RequestBody,
) -> Result<Piece<impl Content + use<>>, Error> {
    let content = digest::of_content(&context.headers)?.map(Digest::of_sha256);
    let digest = digest_in(&context.headers)?.or(content);
    // A digest that comes after the bytes is announced before them.
    let comes_last =
        digest.is_none() && context.headers.get_all(TRAILER).iter().any(names_checksum);
    let checksum = if comes_last { Some(Checksum::announced()) } else { digest.map(Checksum::new) };
    let (announced, ends) = (body.announced(), Ends::Itself);
    let claim = Claim { offset, size, announced, ends, whole: None };
    let content = body.arrivals(move |trailers| match digest_in(trailers)? {
        None if comes_last => Err(invalid_checksum()),
        digest => Ok(digest.filter(|_| comes_last)),
    });
    Ok(Piece { claim, checksum, content })
}

fn names_checksum(trailer: &HeaderValue) -> bool {
    let mut names = trailer.as_bytes().split(|byte| *byte == b',');
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(UPLOAD_CHECKSUM.as_str().as_bytes()))
}

fn digest_in(headers: &HeaderMap) -> Result<Option<Digest>, Error> {
    text(headers, &UPLOAD_CHECKSUM)?.map(|header| checksum_of(&header)).transpose()
}

/// Parses an `Upload-Checksum`: `ALGORITHM base64`.
pub fn checksum_of(header: &str) -> Result<Digest, Error> {
    let (name, digest) = header.split_once(' ').ok_or_else(invalid_checksum)?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| known.as_str() == name);
    let digest = STANDARD.decode(digest.trim()).map_err(|_| invalid_checksum())?;
    let digest = algorithm.and_then(|algorithm| Digest::new(algorithm, digest));
    digest.ok_or_else(invalid_checksum)
}

fn invalid_checksum() -> Error {
    let detail = "Upload-Checksum must be sha1 or sha256, a space and the digest in base64.";
    Error::invalid("invalid_checksum", detail)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Error> {
    let wrong = || Error::invalid("invalid_header", format!("{name} must be sent once, in ASCII."));
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().map_err(|_| wrong())).transpose()?;
    if values.next().is_some() { Err(wrong()) } else { Ok(first.map(str::to_owned)) }
}

fn number(
    headers: &HeaderMap,
    name: &HeaderName,
    code: &'static str,
) -> Result<Option<u64>, Error> {
    text(headers, name)?.map(|text| fields::number(&text, name, code)).transpose()
}

/// An answer about an upload, with the headers that all of these have.
fn told(status: StatusCode, progress: &Progress) -> Reply {
    let mut response = answer(status);
    let headers = response.headers_mut();
    // A final upload has no offset before it is complete.
    if progress.upload.mode != Mode::Final || progress.file.is_some() {
        headers.insert(UPLOAD_OFFSET, progress.offset.into());
    }
    if let Some(file) = &progress.file {
        headers.insert(UPLOAD_KEY, encoded_key(file)?);
    } else if progress.upload.state == UploadState::Open {
        let expires = UNIX_EPOCH + Duration::from_secs(progress.upload.expires.seconds());
        headers.insert(UPLOAD_EXPIRES, value(&httpdate::fmt_http_date(expires))?);
    }
    Ok(response)
}

/// A file's key, percent-encoded for the path of a URL.
pub fn encoded_key(file: &FileRecord) -> Result<HeaderValue, Error> {
    value(&utf8_percent_encode(file.key.as_str(), KEY_UNSAFE).to_string())
}

/// An answer without a body.
pub fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Body::empty().answer(status);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
