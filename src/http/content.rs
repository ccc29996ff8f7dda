//! Downloads: by key, by public path, by signed link.

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Response, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    Context, Refusal, Reply,
    body::Body,
    conditional::{self, Answer, Validators},
};
use crate::{
    app::{
        Error,
        link::{Disposition, Link},
    },
    model::{file::FileRecord, key::FileKey, range::Slice},
};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

pub async fn by_key(context: &Context, key: &FileKey) -> Reply {
    let file = context.app.file(context.principal()?, key).await?;
    send(context, &file, Disposition::Attachment).await
}

/// `/storage/…`: for its owner, or for anybody when public read is on.
pub async fn public(context: &Context, key: &FileKey) -> Reply {
    let file = match &context.principal {
        Some(principal) if !context.app.policy.public_read => {
            context.app.file(principal, key).await?
        }
        _ => context.app.file_for_anyone(key).await?,
    };
    send(context, &file, Disposition::Inline).await
}

pub async fn by_link(context: &Context, key: FileKey) -> Reply {
    let detail = "The link is incomplete.";
    let incomplete = || Error::LinkRefused { code: "link_invalid", detail };
    let disposition = match context.query.text("disposition") {
        None => None,
        Some(text) => Some(Disposition::parse(text).ok_or_else(incomplete)?),
    };
    let link = Link {
        key,
        expires: context
            .query
            .text("exp")
            .and_then(|exp| exp.parse().ok())
            .ok_or_else(incomplete)?,
        disposition,
        signature: context.query.text("sig").ok_or_else(incomplete)?.to_owned(),
    };
    let file = context.app.redeem_link(&link).await?;
    send(context, &file, disposition.unwrap_or(Disposition::Inline)).await
}

/// Answers a GET or HEAD of a file: 200, 206, 304, 412 or 416.
pub async fn send(context: &Context, file: &FileRecord, disposition: Disposition) -> Reply {
    let validators = Validators::new(format!("\"{}\"", file.blake3), file.id.created());
    let whole = Slice::whole(file.size);
    let (status, slice) =
        match conditional::decide(&context.method, &context.headers, &validators, file.size) {
            Answer::Whole => (StatusCode::OK, whole),
            Answer::Partial(slice) => (StatusCode::PARTIAL_CONTENT, slice),
            Answer::NotModified => (StatusCode::NOT_MODIFIED, whole),
            Answer::PreconditionFailed => return Err(Refusal::PreconditionFailed),
            Answer::NotSatisfiable => return Err(Refusal::RangeNotSatisfiable { size: file.size }),
        };
    let bodiless = context.is_head() || status == StatusCode::NOT_MODIFIED;
    let body = if bodiless || slice.is_empty() {
        Body::empty()
    } else {
        Body::reader(context.app.open_content(file, slice).await?, slice.len())
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let cache = if context.principal.is_none() && context.app.policy.public_read {
        "public, no-cache"
    } else {
        "private, no-cache"
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(ETAG, value(&validators.etag)?);
    headers.insert(LAST_MODIFIED, value(&httpdate::fmt_http_date(validators.modified))?);
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, slice.len().into());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{}", slice.start, slice.end - 1, file.size);
        headers.insert(CONTENT_RANGE, value(&range)?);
    }
    headers.insert(CONTENT_TYPE, value(&file.mime)?);
    let disposition = if is_active(&file.mime) { Disposition::Attachment } else { disposition };
    headers.insert(CONTENT_DISPOSITION, value(&content_disposition(file, disposition))?);
    let digest = format!("sha-256=:{}:", STANDARD.encode(file.sha256.0));
    headers.insert(REPR_DIGEST, value(&digest)?);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Browsers show a PDF in a viewer of their own, but not under a sandbox.
    if essence(&file.mime) != "application/pdf" {
        let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
        headers.insert(CONTENT_SECURITY_POLICY, sandbox);
    }
    Ok(response)
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|error| Error::Internal(error.to_string()))
}

/// A media type without its parameters.
fn essence(mime: &str) -> String {
    mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Types that a browser would run in the daemon's origin.
fn is_active(mime: &str) -> bool {
    let essence = essence(mime);
    let markup = essence.ends_with("xml") || essence.contains("html");
    markup || essence.contains("script") || essence.contains("flash")
}

/// What RFC 8187 section 3.2.1 lets stand unencoded.
const ATTRIBUTE_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// RFC 6266: a plain name for old clients and, where it says less, the whole one as RFC 8187.
fn content_disposition(file: &FileRecord, disposition: Disposition) -> String {
    let name = file.name.as_str();
    let plain = |c: char| {
        let printable = c == ' ' || c.is_ascii_graphic();
        if printable && !matches!(c, '"' | '\\' | '%') { c } else { '_' }
    };
    let fallback: String = name.chars().map(plain).collect();
    let word = disposition.as_str();
    if fallback == name {
        return format!("{word}; filename=\"{fallback}\"");
    }
    let encoded = utf8_percent_encode(name, ATTRIBUTE_CHAR);
    format!("{word}; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}
