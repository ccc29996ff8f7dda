//! tus 1.0 at `/v1/tus`: the upload sessions, in the words of that protocol.

mod metadata;

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, stream};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
    http::request::Parts,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    app::{
        Error,
        append::{Claim, Content, Piece, Progress},
        checksum::{Algorithm, Checksum},
        upload::{DeclaredFile, Init},
    },
    http::{
        Context, Refusal, Reply,
        body::{Body, RequestBody},
        content::value,
        fields,
    },
    model::{
        id::UploadId,
        upload::{Mode, UploadState},
    },
};

const PATH: &str = "/v1/tus";
const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,\
                          checksum,termination";
const OFFSET_TYPE: &str = "application/offset+octet-stream";
/// What a file is called when its client does not say.
const NAME: &str = "upload";
/// What cannot stand as it is in the path of a URL.
const KEY_UNSAFE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'@');

const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// Ours: the key of the file that the upload became, percent-encoded.
const UPLOAD_KEY: HeaderName = HeaderName::from_static("upload-key");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// What is behind the tus endpoint in a path: nothing, or an upload's id.
pub fn within(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Clients that can send neither PATCH nor DELETE name the method in a header.
pub fn override_method(head: &mut Parts) {
    if within(head.uri.path()).is_some()
        && let Some(named) = head.headers.get(METHOD_OVERRIDE)
        && let Ok(method) = Method::from_bytes(named.as_bytes())
    {
        head.method = method;
    }
}

/// Every answer of the protocol, a refusal too, names its version.
pub fn mark(path: &str, response: &mut Response<Body>) {
    if within(path).is_some() {
        response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    }
}

/// `OPTIONS`: what is spoken here.
pub fn options(context: &Context) -> Reply {
    let mut response = answer(StatusCode::NO_CONTENT);
    let algorithms = Algorithm::ALL.map(Algorithm::as_str).join(",");
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_MAX_SIZE, context.app.policy.file_bytes_max.into());
    headers.insert(TUS_CHECKSUM_ALGORITHM, value(&algorithms)?);
    Ok(response)
}

/// `POST /v1/tus`: a new upload, and its first bytes where some come along.
pub async fn create(context: &Context, body: RequestBody) -> Reply {
    check_version(&context.headers)?;
    let size = declared_size(&context.headers)?;
    let mut said = metadata::parse(&text(&context.headers, &UPLOAD_METADATA)?.unwrap_or_default())?;
    let user = context.named_user(&mut said)?;
    let folder = fields::text(&mut said, "folder")?.unwrap_or_default();
    let file = DeclaredFile {
        name: fields::file_name(fields::text(&mut said, "filename")?.as_deref().unwrap_or(NAME))?,
        size: size.unwrap_or(0),
        blake3: None,
        mime: match fields::text(&mut said, "filetype")?.filter(|mime| !mime.is_empty()) {
            Some(mime) => Some(fields::media_type(mime)?),
            None => None,
        },
    };
    let init = Init {
        mode: if size.is_some() { Mode::Stream } else { Mode::Growing },
        files: vec![file],
        folder: fields::folder(&folder)?,
        meta: fields::caller_meta(said)?,
        user,
    };
    let comes_with_bytes = context.headers.get(CONTENT_TYPE).is_some_and(|it| it == OFFSET_TYPE);
    let piece = comes_with_bytes.then(|| piece(context, 0, None, body)).transpose()?;
    if let (Some(size), Some(piece)) = (size, &piece)
        && piece.claim.announced.is_some_and(|announced| announced > size)
    {
        return Err(Error::TooLarge { what: "upload", limit: size }.into());
    }
    let progress = context.app.create_upload(context.principal()?, init, piece).await?;
    let mut response = told(StatusCode::CREATED, &progress)?;
    let location = format!("{}{PATH}/{}", context.server.public_url, progress.upload.id);
    response.headers_mut().insert(LOCATION, value(&location)?);
    Ok(response)
}

/// `HEAD /v1/tus/{id}`: from where to go on.
pub async fn head(context: &Context, id: UploadId) -> Reply {
    check_version(&context.headers)?;
    let progress = context.app.progress(context.principal()?, id).await?;
    let mut response = told(StatusCode::OK, &progress)?;
    let headers = response.headers_mut();
    match progress.size() {
        Some(size) => headers.insert(UPLOAD_LENGTH, size.into()),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    headers.insert(UPLOAD_METADATA, value(&metadata::print(&progress.upload))?);
    Ok(response)
}

/// `PATCH /v1/tus/{id}`: more bytes.
pub async fn patch(context: &Context, id: UploadId, body: RequestBody) -> Reply {
    check_version(&context.headers)?;
    if context.headers.get(CONTENT_TYPE).is_none_or(|it| it != OFFSET_TYPE) {
        return Err(Refusal::MediaTypeUnsupported { takes: OFFSET_TYPE });
    }
    let missing = || Error::invalid("invalid_upload_offset", "Upload-Offset is needed.");
    let offset = number(&context.headers, &UPLOAD_OFFSET, "invalid_upload_offset")?;
    let size = number(&context.headers, &UPLOAD_LENGTH, "invalid_upload_length")?;
    let piece = piece(context, offset.ok_or_else(missing)?, size, body)?;
    let progress = context.app.append(context.principal()?, id, piece).await?;
    told(StatusCode::NO_CONTENT, &progress)
}

/// `DELETE /v1/tus/{id}`.
pub async fn terminate(context: &Context, id: UploadId) -> Reply {
    check_version(&context.headers)?;
    context.app.terminate_upload(context.principal()?, id).await?;
    Ok(answer(StatusCode::NO_CONTENT))
}

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get(TUS_RESUMABLE).is_some_and(|version| version == VERSION) {
        return Ok(());
    }
    Err(Refusal::TusVersion { ours: VERSION })
}

/// The size of a new upload; `None` when it comes later.
fn declared_size(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let detail = "Either Upload-Length or Upload-Defer-Length: 1 is needed.";
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
    let checksum = text(&context.headers, &UPLOAD_CHECKSUM)?;
    let checksum = checksum.as_deref().map(checksum_of).transpose()?;
    let claim = Claim { offset, size, announced: body.announced() };
    Ok(Piece { claim, checksum, content: content(body) })
}

fn content(body: RequestBody) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
    Box::pin(stream::try_unfold(body, |mut body| async move {
        Ok(body.next().await?.map(|bytes| (bytes, body)))
    }))
}

/// `ALGORITHM base64`.
fn checksum_of(header: &str) -> Result<Checksum, Error> {
    let wrong = || {
        let detail = "Upload-Checksum must be sha1 or sha256, a space and the digest in base64.";
        Error::invalid("invalid_checksum", detail)
    };
    let (name, digest) = header.split_once(' ').ok_or_else(wrong)?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| known.as_str() == name);
    let digest = STANDARD.decode(digest.trim()).map_err(|_| wrong())?;
    Checksum::new(algorithm.ok_or_else(wrong)?, digest).ok_or_else(wrong)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Error> {
    let wrong = || Error::invalid("invalid_header", format!("{name} must be once, in ASCII."));
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().map_err(|_| wrong())).transpose()?;
    if values.next().is_some() { Err(wrong()) } else { Ok(first.map(str::to_owned)) }
}

fn number(
    headers: &HeaderMap,
    name: &HeaderName,
    code: &'static str,
) -> Result<Option<u64>, Error> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.map(Some).ok_or_else(|| Error::invalid(code, format!("{name} must be a whole number.")))
}

/// What every answer about an upload says.
fn told(status: StatusCode, progress: &Progress) -> Reply {
    let mut response = answer(status);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, progress.offset.into());
    if let Some(file) = &progress.file {
        let key = utf8_percent_encode(file.key.as_str(), KEY_UNSAFE);
        headers.insert(UPLOAD_KEY, value(&key.to_string())?);
    } else if progress.upload.state == UploadState::Open {
        let expires = UNIX_EPOCH + Duration::from_secs(progress.upload.expires.seconds());
        headers.insert(UPLOAD_EXPIRES, value(&httpdate::fmt_http_date(expires))?);
    }
    Ok(response)
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
