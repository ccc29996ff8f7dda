//! Upload sessions: init, status, abort, list.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    app::{
        Error,
        possession::Challenge,
        upload::{DeclaredFile, Init, Opened, Status},
    },
    http::{
        Context, Reply,
        message::{body::RequestBody, fields, json},
    },
    model::{
        id::UploadId,
        range::Slice,
        upload::{Completeness, Mode, Part, Upload, UploadState, completeness},
    },
};

/// Most uploads of one page, and most missing parts that are named for each.
const LIST_LIMIT_MAX: usize = 100;
const MISSING_NAMED_MAX: usize = 1_000;

#[derive(Deserialize)]
struct InitBody {
    mode: ModeWord,
    files: Vec<json::Object<InitFile>>,
    folder: Option<String>,
    meta: Option<json::Members>,
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
    size: json::Whole,
    mime: Option<String>,
    sha256: Option<String>,
    blake3: Option<String>,
}

/// `POST /v1/files/init`.
pub async fn init(context: &Context, body: RequestBody) -> Reply {
    let body: InitBody = json::read(body).await?;
    let json::Members(mut meta) = body.meta.unwrap_or_default();
    let user = context.named_in(&mut meta)?;
    let folder = match body.folder {
        Some(folder) => fields::folder(&folder)?,
        None => match fields::text(&mut meta, "folder")? {
            Some(folder) => fields::folder(&folder)?,
            None => context.query.folder()?,
        },
    };
    let declared = |json::Object(file): json::Object<InitFile>| {
        Ok(DeclaredFile {
            name: fields::file_name(&file.name)?,
            size: file.size.0,
            mime: file.mime.filter(|mime| !mime.is_empty()).map(fields::media_type).transpose()?,
            blake3: file.blake3.as_deref().map(fields::blake3).transpose()?,
            sha256: file.sha256.as_deref().map(fields::sha256).transpose()?,
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
        meta: fields::caller_meta(meta)?,
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
        let files = opened.batch.iter();
        let files =
            files.map(|(id, name)| json!({"uploadId": id.to_string(), "name": name.as_str()}));
        answer["files"] = files.collect();
    }
    for (at, challenge) in opened.challenges.iter().enumerate() {
        let Some(challenge) = challenge else { continue };
        let of = if opened.mode == Mode::Batch { &mut answer["files"][at] } else { &mut answer };
        of["known"] = challenge_answer(challenge);
    }
    answer
}

fn challenge_answer(challenge: &Challenge) -> Value {
    let range = |range: &Slice| json!({"offset": range.start, "length": range.len()});
    json!({
        "ranges": challenge.ranges.iter().map(range).collect::<Value>(),
        "expiresAt": challenge.expires.to_string(),
    })
}

/// `GET /v1/files/{uploadId}`: one upload, or a batch and each of its uploads.
pub async fn status(context: &Context, id: UploadId) -> Reply {
    let principal = context.principal()?;
    let batch = context.app.batch_status(principal, id).await?;
    let answer = match batch {
        // Each of its uploads was aborted on its own.
        Some(uploads) if uploads.is_empty() => return Err(Error::NotFound("upload").into()),
        Some(uploads) => batch_answer(id, &uploads),
        None => upload_answer(&context.app.upload_status(principal, id).await?),
    };
    json::reply(StatusCode::OK, &answer)
}

/// The members that every answer about an upload has.
fn members(upload: &Upload) -> Value {
    json!({
        "uploadId": upload.id.to_string(),
        "state": match upload.state {
            UploadState::Open => "open",
            UploadState::Completed(_) => "completed",
        },
        "bytesReceived": upload.received,
        "size": upload.declared(),
        "expiresAt": upload.expires.to_string(),
    })
}

fn upload_answer(status: &Status) -> Value {
    let part = |part: &Part| json!({"partNumber": part.number.0, "size": part.size});
    let mut answer = members(&status.upload);
    answer["received"] = status.parts.iter().map(part).collect();
    answer
}

fn batch_answer(id: UploadId, uploads: &[Upload]) -> Value {
    let file = |upload: &Upload| {
        let mut answer = members(upload);
        answer["name"] = upload.name.as_str().into();
        answer
    };
    let open = uploads.iter().any(|upload| upload.state == UploadState::Open);
    json!({
        "uploadId": id.to_string(),
        "mode": Mode::Batch.as_str(),
        "state": if open { "open" } else { "completed" },
        "bytesReceived": uploads.iter().map(|upload| upload.received).sum::<u64>(),
        "size": uploads.iter().map(|upload| upload.size).sum::<u64>(),
        // The parts belong to the files of the batch.
        "received": [],
        "expiresAt": uploads.iter().map(|upload| upload.expires).min().map(|at| at.to_string()),
        "files": uploads.iter().map(file).collect::<Value>(),
    })
}

/// `DELETE /v1/files/{uploadId}`.
pub async fn abort(context: &Context, id: UploadId) -> Reply {
    context.app.abort_upload(context.principal()?, id).await?;
    json::reply(StatusCode::OK, &json!({"status": "aborted", "uploadId": id.to_string()}))
}

/// `GET /v1/files/uploads`: open uploads and what they lack, so that another device can continue.
pub async fn list(context: &Context) -> Reply {
    let limit = context.query.limit()?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(LIST_LIMIT_MAX).min(LIST_LIMIT_MAX);
    let (app, principal) = (&context.app, context.principal()?);
    let named = context.named_user(None, None)?;
    let after = context.query.cursor(UploadId::parse)?;
    let uploads = app.list_uploads(principal, named, after, limit + 1).await?;
    let mut listed = Vec::new();
    for upload in uploads.iter().take(limit) {
        let Some(parts) = app.listed_parts(principal, upload).await? else { continue };
        let limit = app.policy().part_bytes_max;
        let mut missing = match completeness(upload, &parts, limit) {
            Completeness::Missing(numbers) => numbers,
            Completeness::Complete | Completeness::SizeDiffers { .. } => Vec::new(),
        };
        missing.truncate(MISSING_NAMED_MAX);
        let mut entry = members(upload);
        entry["name"] = upload.name.as_str().into();
        entry["folder"] = upload.folder.as_str().into();
        entry["missing"] = missing.into();
        if let Some(sha256) = upload.sha256 {
            entry["sha256"] = sha256.to_string().into();
        }
        listed.push(entry);
    }
    let mut answer = json!({"uploads": listed});
    if uploads.len() > limit {
        answer["next_cursor"] = json!(uploads[limit - 1].id.to_string());
    }
    json::reply(StatusCode::OK, &answer)
}
