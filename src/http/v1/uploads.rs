//! Sessions: init, parts in both forms, status, abort, list.

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    app::{
        Error,
        upload::{DeclaredFile, Incoming, Init, Opened, Status},
    },
    http::{
        Context, Refusal, Reply,
        body::RequestBody,
        inline::{self, Splitter, Step},
        json, query,
        v1::digest,
    },
    model::{
        digest::Sha256,
        file::CallerMeta,
        id::{PartNumber, UploadId},
        limits::{META_BYTES_MAX, MIME_BYTES_MAX},
        name::FileName,
        upload::{Completeness, Mode, Upload, UploadState, completeness},
    },
};

/// Uploads of one page at most, and missing parts that are named of each.
const LIST_LIMIT_MAX: usize = 100;
const MISSING_NAMED_MAX: usize = 1_000;

#[derive(Deserialize)]
struct InitBody {
    mode: ModeWord,
    files: Vec<InitFile>,
    folder: Option<String>,
    meta: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeWord {
    Single,
    Chunked,
    Batch,
}

#[derive(Deserialize)]
struct InitFile {
    name: String,
    size: u64,
    mime: Option<String>,
}

/// `POST /v1/files/init`.
pub async fn init(context: &Context, body: RequestBody) -> Reply {
    let body: InitBody = json::read(body).await?;
    let mut meta = body.meta.unwrap_or_default();
    let user = match named_user(&mut meta)? {
        Some(user) => Some(user),
        None => context.query.user()?,
    };
    let folder = match body.folder {
        Some(folder) => query::folder(&folder)?,
        None => context.query.folder()?,
    };
    let declared = |file: InitFile| {
        Ok(DeclaredFile {
            name: file_name(&file.name)?,
            size: file.size,
            mime: file.mime.filter(|mime| !mime.is_empty()).map(media_type).transpose()?,
        })
    };
    let init = Init {
        mode: match body.mode {
            ModeWord::Single => Mode::Single,
            ModeWord::Chunked => Mode::Chunked,
            ModeWord::Batch => Mode::Batch,
        },
        files: body.files.into_iter().map(declared).collect::<Result<_, Error>>()?,
        folder,
        meta: caller_meta(meta)?,
        user,
    };
    let opened = context.app.init_upload(context.principal()?, init).await?;
    json::reply(StatusCode::OK, &opened_answer(&opened))
}

fn opened_answer(opened: &Opened) -> Value {
    let mut answer = json!({
        "uploadId": opened.id.to_string(),
        "mode": opened.mode.as_str(),
        "partSize": opened.part_size,
        "parts": opened.parts,
        "expiresAt": opened.expires.to_string(),
    });
    if opened.mode == Mode::Batch {
        let file = |(id, name): &(UploadId, FileName)| json!({"uploadId": id.to_string(), "name": name.as_str()});
        answer["files"] = opened.batch.iter().map(file).collect();
    }
    answer
}

/// Takes `user_id` and `user_email` out of a caller's `meta`: they say who, not what.
pub fn named_user(
    meta: &mut Map<String, Value>,
) -> Result<Option<crate::model::name::UserId>, Error> {
    let (id, email) = (text(meta, "user_id")?, text(meta, "user_email")?);
    id.or(email).map(|user| query::user_id(&user)).transpose()
}

/// Takes a text member out of a caller's `meta`.
pub fn text(meta: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Error> {
    match meta.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid("invalid_meta", format!("meta.{name} must be a string."))),
    }
}

/// What is left of `meta` is the caller's own.
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

pub fn file_name(name: &str) -> Result<FileName, Error> {
    FileName::parse(name)
        .map_err(|why| Error::invalid("invalid_filename", format!("The file name {why}.")))
}

/// A media type is kept as sent; it must fit a header.
pub fn media_type(mime: String) -> Result<Box<str>, Error> {
    let fits = mime.len() <= MIME_BYTES_MAX
        && mime.contains('/')
        && mime.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let detail = "mime must be a media type of at most 255 visible ASCII characters.";
    if fits { Ok(mime.into()) } else { Err(Error::invalid("invalid_mime", detail)) }
}

pub fn upload_id(text: &str) -> Result<UploadId, Error> {
    UploadId::parse(text).ok_or(Error::NotFound("upload"))
}

pub fn invalid_part_number() -> Error {
    Error::invalid("invalid_part_number", "A part number is a whole number from 0 to 10000.")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartBody {
    upload_id: String,
    part_number: PartWord,
    #[expect(dead_code, reason = "its content was decoded on the way; it must be there")]
    chunk_base64: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PartWord {
    Number(u64),
    /// Refused with a word of its own.
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EarlyBody {
    upload_id: String,
}

const CHUNK: &[Step] = &[Step::Member("chunkBase64")];

/// `POST /v1/files/part`: base64 in JSON, decoded while it streams.
pub async fn encoded_part(context: &Context, body: RequestBody) -> Reply {
    let incoming = context.app.begin_part().await?;
    let (body, incoming): (PartBody, _) = split(context, CHUNK, body, incoming).await?;
    let id = upload_id(&body.upload_id)?;
    let PartWord::Number(number) = body.part_number else {
        return Err(invalid_part_number().into());
    };
    let number = PartNumber::new(number).ok_or_else(invalid_part_number)?;
    finish_part(context, id, number, incoming, None).await
}

/// Streams a JSON body with base64 content into `incoming`. When the upload's id stands before
/// the content, an upload that is not there is refused before the content is taken.
pub async fn split<T: serde::de::DeserializeOwned>(
    context: &Context,
    path: &'static [Step],
    mut body: RequestBody,
    mut incoming: Incoming,
) -> Result<(T, Incoming), Refusal> {
    let mut splitter = Splitter::new(path);
    let mut content = Vec::new();
    let mut asked = false;
    while let Some(bytes) = body.next().await? {
        splitter.push(&bytes, &mut content).map_err(refused)?;
        if splitter.found_content() && !asked {
            asked = true;
            if let Some(EarlyBody { upload_id: id }) = splitter.so_far() {
                context.app.check_upload(context.principal()?, upload_id(&id)?).await?;
            }
        }
        if !content.is_empty() {
            incoming.write(Bytes::from(std::mem::take(&mut content))).await?;
        }
    }
    Ok((splitter.finish().map_err(refused)?, incoming))
}

fn refused(why: inline::Refused) -> Error {
    match why {
        inline::Refused::TooLarge => {
            let limit = crate::model::limits::JSON_BYTES_MAX as u64;
            Error::TooLarge { what: "JSON body without its content", limit }
        }
        inline::Refused::TooDeep => Error::invalid("json_too_deep", why.to_string()),
        inline::Refused::Base64 => {
            let detail = "The content is not base64 of the standard alphabet with padding.";
            Error::invalid("invalid_base64", detail)
        }
        inline::Refused::Json(why) => json::invalid(&why),
    }
}

/// `PUT /v1/files/{uploadId}/parts/{n}`: raw bytes.
pub async fn raw_part(
    context: &Context,
    id: UploadId,
    number: PartNumber,
    mut body: RequestBody,
) -> Reply {
    context.app.check_part(context.principal()?, id).await?;
    let sha256 = digest::announced(&context.headers)?;
    let incoming = context.app.begin_part().await?;
    let incoming = receive(&mut body, incoming).await?;
    finish_part(context, id, number, incoming, sha256).await
}

/// Streams a raw body into `incoming`; one that says it is too large is not read.
pub async fn receive(body: &mut RequestBody, mut incoming: Incoming) -> Result<Incoming, Error> {
    incoming.expect(body.announced().unwrap_or(0))?;
    while let Some(bytes) = body.next().await? {
        incoming.write(bytes).await?;
    }
    Ok(incoming)
}

async fn finish_part(
    context: &Context,
    id: UploadId,
    number: PartNumber,
    incoming: Incoming,
    sha256: Option<Sha256>,
) -> Reply {
    let principal = context.principal()?;
    let size = context.app.finish_part(principal, id, number, incoming, sha256).await?;
    let answer = json!({"status": "success", "partNumber": number.0, "size": size});
    json::reply(StatusCode::OK, &answer)
}

/// `GET /v1/files/{uploadId}`: one upload, or a batch and each of its uploads.
pub async fn status(context: &Context, id: UploadId) -> Reply {
    let principal = context.principal()?;
    let batch = context.app.batch_status(principal, id).await?;
    let answer = match batch {
        Some(uploads) => batch_answer(id, &uploads),
        None => upload_answer(&context.app.upload_status(principal, id).await?),
    };
    json::reply(StatusCode::OK, &answer)
}

fn upload_answer(status: &Status) -> Value {
    let part = |part: &crate::meta::Part| json!({"partNumber": part.number.0, "size": part.size});
    json!({
        "uploadId": status.upload.id.to_string(),
        "state": state(&status.upload),
        "received": status.parts.iter().map(part).collect::<Value>(),
        "bytesReceived": status.upload.received,
        "size": status.upload.size,
        "expiresAt": status.upload.expires.to_string(),
    })
}

fn batch_answer(id: UploadId, uploads: &[Upload]) -> Value {
    let file = |upload: &Upload| {
        json!({
            "uploadId": upload.id.to_string(),
            "name": upload.name.as_str(),
            "state": state(upload),
            "bytesReceived": upload.received,
            "size": upload.size,
            "expiresAt": upload.expires.to_string(),
        })
    };
    let open = uploads.iter().any(|upload| upload.state == UploadState::Open);
    json!({
        "uploadId": id.to_string(),
        "mode": Mode::Batch.as_str(),
        "state": if open { "open" } else { "completed" },
        "bytesReceived": uploads.iter().map(|upload| upload.received).sum::<u64>(),
        "size": uploads.iter().map(|upload| upload.size).sum::<u64>(),
        "files": uploads.iter().map(file).collect::<Value>(),
    })
}

fn state(upload: &Upload) -> &'static str {
    match upload.state {
        UploadState::Open => "open",
        UploadState::Completed(_) => "completed",
    }
}

/// `DELETE /v1/files/{uploadId}`.
pub async fn abort(context: &Context, id: UploadId) -> Reply {
    context.app.abort_upload(context.principal()?, id).await?;
    json::reply(StatusCode::OK, &json!({"status": "aborted", "uploadId": id.to_string()}))
}

/// `GET /v1/files/uploads`: open uploads, with what is missing, so that another device can go on.
pub async fn list(context: &Context) -> Reply {
    let limit: Option<usize> = context.query.number("limit", "invalid_limit")?;
    let limit = limit.unwrap_or(LIST_LIMIT_MAX);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(Error::invalid("invalid_limit", "limit must be 1 to 100.").into());
    }
    let wrong = || Error::invalid("invalid_cursor", "The cursor is not one of ours.");
    let cursor = context.query.text("cursor").map(|c| UploadId::parse(c).ok_or_else(wrong));
    let (app, principal) = (&context.app, context.principal()?);
    let named = context.query.user()?;
    let uploads = app.list_uploads(principal, named, cursor.transpose()?, limit + 1).await?;
    let mut listed = Vec::new();
    for upload in uploads.iter().take(limit) {
        let parts = match app.upload_status(principal, upload.id).await {
            Ok(status) => status.parts,
            // Ended since the page was read.
            Err(Error::NotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut missing = match completeness(upload.mode, upload.size, &parts) {
            Completeness::Missing(numbers) => numbers,
            Completeness::Complete | Completeness::SizeDiffers { .. } => Vec::new(),
        };
        missing.truncate(MISSING_NAMED_MAX);
        listed.push(json!({
            "uploadId": upload.id.to_string(),
            "state": state(upload),
            "name": upload.name.as_str(),
            "folder": upload.folder.as_str(),
            "size": upload.size,
            "bytesReceived": upload.received,
            "missing": missing,
            "expiresAt": upload.expires.to_string(),
        }));
    }
    let mut answer = json!({"uploads": listed});
    if uploads.len() > limit {
        answer["next_cursor"] = json!(uploads[limit - 1].id.to_string());
    }
    json::reply(StatusCode::OK, &answer)
}
