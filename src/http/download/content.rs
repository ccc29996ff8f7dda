//! Downloads: by key, by public path, by signed link.

use std::sync::Arc;

use crate::{
    app::{
        Error,
        link::{Disposition, Link},
    },
    http::{
        Context, Refusal, Reply,
        download::{
            byteranges::ByteRanges,
            conditional::{self, Answer, Validators},
            disposition::content_disposition,
            proof,
        },
        message::{
            body::Body,
            digest::{self, REPR_DIGEST},
            fields,
        },
    },
    model::{file::FileRecord, key::FileKey, range::Slice},
};
use hyper::{
    Response, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED,
        X_CONTENT_TYPE_OPTIONS,
    },
};

/// Who may cache an answer, and for how long. The content behind a key never changes, but the file
/// may be deleted, and the right to read it may end.
#[derive(Clone, Copy)]
pub enum Caching {
    /// The caller alone, who must revalidate it each time.
    Private,
    /// Whoever has the link, for as long as the link holds.
    Link { seconds_left: u64 },
    /// Anybody.
    Public,
}

const CACHE_SECONDS_MAX: u64 = 3600;

/// About as many headers as an answer has.
const HEADERS: usize = 12;

impl Caching {
    fn header(self) -> String {
        match self {
            Self::Private => "private, no-cache".into(),
            Self::Link { seconds_left } => {
                format!("private, max-age={}", seconds_left.min(CACHE_SECONDS_MAX))
            }
            Self::Public => format!("public, max-age={CACHE_SECONDS_MAX}"),
        }
    }
}

pub async fn by_key(context: &Context, key: &FileKey) -> Reply {
    let file = context.app.file(context.principal()?, key).await?;
    send(context, &file, Disposition::Attachment, Caching::Private).await
}

/// `/storage/…`: for callers who may read the file, or for anybody when public read is on.
pub async fn public(context: &Context, key: &FileKey) -> Reply {
    let (file, caching) = match (context.app.public_file(key).await?, &context.principal) {
        (Some(file), _) => (file, Caching::Public),
        (None, Some(principal)) => (context.app.file(principal, key).await?, Caching::Private),
        (None, None) => return Err(Error::NotFound("file").into()),
    };
    send(context, &file, Disposition::Inline, caching).await
}

pub async fn by_link(context: &Context, key: FileKey) -> Reply {
    let detail = "The link is incomplete or malformed.";
    let incomplete = || Error::LinkRefused { code: "link_invalid", detail };
    let disposition = match context.query.exact("disposition") {
        None => None,
        Some(text) => Some(Disposition::parse(text).ok_or_else(incomplete)?),
    };
    let link = Link {
        key,
        expires: context
            .query
            .exact("exp")
            .and_then(|exp| exp.parse().ok().filter(|at: &u64| at.to_string() == exp))
            .ok_or_else(incomplete)?,
        disposition,
        signature: context.query.exact("sig").ok_or_else(incomplete)?.to_owned(),
    };
    let (file, seconds_left) = context.app.redeem_link(&link).await?;
    let disposition = disposition.unwrap_or(Disposition::Inline);
    send(context, &file, disposition, Caching::Link { seconds_left }).await
}

/// Answers a GET or HEAD of a file with 200, 206, 304, 412 or 416, or with a proof if the query
/// asks for one.
pub async fn send(
    context: &Context,
    file: &FileRecord,
    disposition: Disposition,
    caching: Caching,
) -> Reply {
    let mut response = match context.query.exact("proof") {
        Some(range) => proof::send(context, file, range).await?,
        None => content(context, file, disposition).await?,
    };
    response.headers_mut().insert(CACHE_CONTROL, value(&caching.header())?);
    Ok(response)
}

/// What the preconditions of a request are compared with.
pub fn validators(file: &FileRecord) -> Validators {
    Validators::dated(format!("\"{}\"", file.blake3), file.id.created())
}

async fn content(context: &Context, file: &FileRecord, disposition: Disposition) -> Reply {
    let validators = validators(file);
    let mut response =
        match conditional::decide(&context.method, &context.headers, &validators, file.size) {
            Answer::Whole => {
                let whole = Slice::whole(file.size);
                let empty = context.is_head() || file.size == 0;
                let body = if empty { Body::empty() } else { read(context, file, whole).await? };
                let mut response = described(context, file, disposition, body)?;
                response.headers_mut().insert(CONTENT_LENGTH, file.size.into());
                response
            }
            Answer::Partial(slices) => {
                let mut response = partial(context, file, disposition, &slices).await?;
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response
            }
            Answer::NotModified => Body::empty().answer(StatusCode::NOT_MODIFIED),
            Answer::PreconditionFailed => return Err(Refusal::PreconditionFailed),
            Answer::NotSatisfiable => return Err(Refusal::RangeNotSatisfiable { size: file.size }),
        };
    let headers = response.headers_mut();
    headers.insert(ETAG, value(&validators.etag)?);
    if let Some(modified) = validators.last_modified(context.app.now()) {
        headers.insert(LAST_MODIFIED, value(&modified)?);
    }
    Ok(response)
}

async fn read(context: &Context, file: &FileRecord, slice: Slice) -> Result<Body, Error> {
    Ok(Body::reader(context.app.open_content(file, slice).await?, slice.len()))
}

async fn partial(
    context: &Context,
    file: &FileRecord,
    disposition: Disposition,
    slices: &[Slice],
) -> Reply {
    if let [slice] = slices {
        let body = read(context, file, *slice).await?;
        let mut response = described(context, file, disposition, body)?;
        let range = format!("bytes {}-{}/{}", slice.start, slice.end - 1, file.size);
        response.headers_mut().insert(CONTENT_RANGE, value(&range)?);
        response.headers_mut().insert(CONTENT_LENGTH, slice.len().into());
        return Ok(response);
    }
    let ranges = ByteRanges::new(&file.mime, file.size, slices);
    let (content_type, length) = (ranges.content_type(), ranges.length());
    let stream = ranges.stream(Arc::clone(&context.app), file.clone()).await?;
    let mut response = described(context, file, disposition, Body::stream(stream, Some(length)))?;
    response.headers_mut().insert(CONTENT_TYPE, value(&content_type)?);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

/// An answer with the headers that describe the content, whichever part of it is sent.
fn described(
    context: &Context,
    file: &FileRecord,
    disposition: Disposition,
    body: Body,
) -> Result<Response<Body>, Error> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, value(&file.mime)?);
    let disposition = if is_active(&file.mime) { Disposition::Attachment } else { disposition };
    headers.insert(CONTENT_DISPOSITION, value(&content_disposition(&file.name, disposition))?);
    if let Some(digest) = digest::wanted(&context.headers, &file.sha256) {
        headers.insert(REPR_DIGEST, value(&digest)?);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Browsers show a PDF in their own viewer, but not under a sandbox.
    if !fields::essence(&file.mime).eq_ignore_ascii_case("application/pdf") {
        let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
        headers.insert(CONTENT_SECURITY_POLICY, sandbox);
    }
    Ok(response)
}

/// A header value from text that was checked to fit one.
pub fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|error| Error::Internal(error.to_string()))
}

/// Whether a browser would run this type in the daemon's origin. A value that could be read as
/// several types counts as each of them.
fn is_active(mime: &str) -> bool {
    mime.split(',').any(|mime| runs(&fields::essence(mime).to_ascii_lowercase()))
}

fn runs(essence: &str) -> bool {
    let markup = essence.ends_with("xml") || essence.contains("html");
    let mixed = essence.starts_with("multipart/") || essence.starts_with("message/");
    // Chromium takes `text/xsl` as XML.
    let programs = ["script", "flash", "xsl"];
    markup || mixed || programs.iter().any(|word| essence.contains(word))
}
