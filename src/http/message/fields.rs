//! Names and values that clients send, wherever they stand, as the types of the domain.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use hyper::{
    HeaderMap,
    header::{CONTENT_TYPE, HeaderValue},
};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{
    app::Error,
    model::{
        digest::{ContentHash, Sha256},
        file::CallerMeta,
        id::UploadId,
        key::FileKey,
        limits::{META_BYTES_MAX, MIME_BYTES_MAX},
        name::{FileName, Folder, UserId},
    },
};

/// Percent-decodes UTF-8; `None` for anything that is not percent-encoded UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let complete =
        |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(complete) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

/// # Errors
/// [`Error::Invalid`].
pub fn user_id(text: &str) -> Result<UserId, Error> {
    UserId::parse(text)
        .map_err(|why| Error::invalid("invalid_user_id", format!("The user id {why}.")))
}

/// # Errors
/// [`Error::Invalid`].
pub fn folder(text: &str) -> Result<Folder, Error> {
    Folder::parse(text)
        .map_err(|why| Error::invalid("invalid_folder", format!("A segment of the folder {why}.")))
}

/// A whole number, written in digits alone.
pub fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// As [`digits`]; anything else is refused with `code`.
pub fn number<T: FromStr>(text: &str, name: impl Display, code: &'static str) -> Result<T, Error> {
    digits(text).ok_or_else(|| Error::invalid(code, format!("{name} must be a whole number.")))
}

/// Takes a text member out of a caller's `meta`.
pub fn text(meta: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Error> {
    match meta.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(not_text(name)),
    }
}

pub fn not_text(name: &str) -> Error {
    Error::invalid("invalid_meta", format!("meta.{name} must be a string."))
}

/// The caller's own `meta`: the members that are left in it.
pub fn caller_meta(meta: Map<String, Value>) -> Result<CallerMeta, Error> {
    if meta.is_empty() {
        return Ok(CallerMeta::default());
    }
    let text = Value::Object(meta).to_string();
    if text.len() > META_BYTES_MAX {
        return Err(Error::invalid("meta_too_large", "meta must be at most 4 KiB of JSON."));
    }
    Ok(CallerMeta(text.into()))
}

pub fn sha256(text: &str) -> Result<Sha256, Error> {
    let detail = "sha256 must be 64 hex digits.";
    Sha256::parse(text).ok_or_else(|| Error::invalid("invalid_sha256", detail))
}

pub fn blake3(text: &str) -> Result<ContentHash, Error> {
    let detail = "blake3 must be 64 hex digits.";
    ContentHash::parse(text).ok_or_else(|| Error::invalid("invalid_blake3", detail))
}

pub fn file_name(name: &str) -> Result<FileName, Error> {
    FileName::parse(name)
        .map_err(|why| Error::invalid("invalid_filename", format!("The file name {why}.")))
}

/// A media type without its parameters.
pub fn essence(mime: &str) -> &str {
    mime.split(';').next().unwrap_or_default().trim()
}

/// Whether the headers declare a body of the media type `wanted` (RFC 9110 section 8.3.1), in any
/// case and with any parameters. A body with two declared types is of neither.
pub fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let sent = lines.next().and_then(|sent| sent.to_str().ok());
    let fits = sent.is_some_and(|sent| essence(sent).eq_ignore_ascii_case(wanted));
    fits && lines.next().is_none()
}

/// Refuses a form: it is not the content, but an envelope around it.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_not_a_form(headers: &HeaderMap) -> Result<(), Error> {
    let is_form = |line: &HeaderValue| {
        essence(line.to_str().unwrap_or_default()).eq_ignore_ascii_case("multipart/form-data")
    };
    if headers.get_all(CONTENT_TYPE).iter().any(is_form) {
        let detail = "The body must be the content itself, not a form (multipart/form-data).";
        return Err(Error::invalid("encoded_content", detail));
    }
    Ok(())
}

/// Checks a media type, which is kept as sent (RFC 9110 section 8.3.1). It must be a single one: of
/// a list with commas, browsers take the last, which could be one that was not checked.
pub fn media_type(mime: String) -> Result<Box<str>, Error> {
    let is_token = |text: &str| {
        let special = |c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c);
        !text.is_empty() && !text.contains(special)
    };
    let fits = mime.len() <= MIME_BYTES_MAX
        && essence(&mime)
            .split_once('/')
            .is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
        && mime.bytes().all(|byte| byte != b',' && (byte == b' ' || byte.is_ascii_graphic()));
    let detail =
        "mime must be a media type of at most 255 visible ASCII characters, without commas.";
    if fits { Ok(mime.into()) } else { Err(Error::invalid("invalid_mime", detail)) }
}

/// Parses a key. What cannot be the key of a file is answered as a file that does not exist.
pub fn file_key(text: &str) -> Result<FileKey, Error> {
    FileKey::parse(text).ok_or(Error::NotFound("file"))
}

pub fn upload_id(text: &str) -> Result<UploadId, Error> {
    UploadId::parse(text).ok_or(Error::NotFound("upload"))
}
