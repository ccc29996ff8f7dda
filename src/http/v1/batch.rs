//! Batch downloads: a token for files, and the ZIP archive that it stands for.

use hyper::{
    StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, ETAG, HeaderValue, X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    app::{
        Error,
        archive::{Chosen, TOKEN_LIFE},
        catalog::Listing,
        link::Disposition,
    },
    http::{
        Context, Refusal, Reply,
        download::{
            conditional::{self, Answer, Validators},
            content::value,
            disposition::content_disposition,
        },
        message::{
            body::{Body, RequestBody},
            fields, json,
        },
    },
    model::{name::FileName, range::Slice},
};

#[derive(Deserialize)]
struct Batch {
    keys: Option<Vec<String>>,
    folder: Option<String>,
    user_id: Option<Value>,
    user_email: Option<Value>,
}

/// `POST /v1/files/batch-download`: `{keys}` or `{folder}`.
pub async fn mint(context: &Context, body: RequestBody) -> Reply {
    let batch: Batch = json::read(body).await?;
    let user = context.named_user(batch.user_id, batch.user_email)?;
    let principal = context.app.naming(context.principal()?, user.clone())?;
    let chosen = match (batch.keys, batch.folder) {
        (Some(keys), None) => {
            let keys = keys.iter().map(|key| fields::file_key(key));
            Chosen::Keys(keys.collect::<Result<_, _>>()?)
        }
        (None, Some(folder)) => {
            let owner = context.app.acting_for(&principal, user, true)?;
            Chosen::Folder(Listing { owner, folder: fields::folder(&folder)? })
        }
        _ => {
            let detail = "Name either keys or folder, and not both.";
            return Err(Error::invalid("invalid_keys", detail).into());
        }
    };
    let token = context.app.mint_batch_token(&principal, chosen).await?;
    let answer = json!({"token": *token, "expires_in": TOKEN_LIFE.as_secs()});
    json::reply(StatusCode::OK, &answer)
}

/// `GET /v1/files/batch-download/{token}`: the archive, or one part of it.
pub async fn fetch(context: &Context, token: &str) -> Reply {
    let archive = context.app.open_archive(token).await?;
    let (size, name) = (archive.bytes(), format!("{}.zip", archive.name));
    // No date shows that a file was removed from the batch.
    let validators = Validators { etag: format!("\"zip-{}\"", archive.tag), modified: None };
    let answer = conditional::decide(&context.method, &context.headers, &validators, size);
    let (status, slice) = match answer {
        Answer::Partial(slices) if slices.len() == 1 => (StatusCode::PARTIAL_CONTENT, slices[0]),
        Answer::Whole | Answer::Partial(_) => (StatusCode::OK, Slice::whole(size)),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, Slice::whole(0)),
        Answer::PreconditionFailed => return Err(Refusal::PreconditionFailed),
        Answer::NotSatisfiable => return Err(Refusal::RangeNotSatisfiable { size }),
    };
    let bodiless = context.is_head() || slice.is_empty();
    let body =
        if bodiless { Body::empty() } else { Body::reader(archive.reader(slice), slice.len()) };
    let mut response = body.answer(status);
    let headers = response.headers_mut();
    headers.insert(ETAG, value(&validators.etag)?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    headers.insert(CONTENT_LENGTH, slice.len().into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", slice.start, slice.end - 1);
        headers.insert(CONTENT_RANGE, value(&range)?);
    }
    // A folder's name may be as long as a file's. With the extension, it may be too long for a file
    // name.
    let name = FileName::parse(&name).or_else(|_| FileName::parse("files.zip"));
    if let Ok(name) = name {
        let disposition = content_disposition(&name, Disposition::Attachment);
        headers.insert(CONTENT_DISPOSITION, value(&disposition)?);
    }
    Ok(response)
}
