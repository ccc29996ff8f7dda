//! The list, metadata and deletion of files.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    app::{Error, catalog::Listing},
    http::{
        Context, Refusal, Reply,
        download::{conditional, content},
        message::{
            body::Body,
            json::{self, JSON},
        },
    },
    model::{
        file::{CallerMeta, FileRecord},
        id::FileId,
        key::FileKey,
        limits::LIST_PAGE_FILES,
        time::UnixMillis,
    },
};

/// `GET /v1/files/metadata/{key}`.
pub async fn metadata(context: &Context, key: &FileKey) -> Reply {
    let file = context.app.file(context.principal()?, key).await?;
    let mut answer = metadata_answer(&file);
    answer["meta"] = meta_answer(&file.meta)?;
    json::reply(StatusCode::OK, &answer)
}

/// What `complete` and `metadata` answer about a file.
pub fn metadata_answer(file: &FileRecord) -> Value {
    json!({
        "id": file.id.to_string(),
        "key": file.key.as_str(),
        "filename": file.name.as_str(),
        "folder": file.folder.as_str(),
        "size": file.size,
        "mime": file.mime,
        "sha256": file.sha256.to_string(),
        "blake3": file.blake3.to_string(),
        "createdAt": file.id.created().to_string(),
    })
}

fn meta_answer(meta: &CallerMeta) -> Result<Value, Error> {
    let text = if meta.0.is_empty() { "{}" } else { &meta.0 };
    serde_json::from_str(text).map_err(|error| Error::Internal(format!("stored meta: {error}")))
}

/// `DELETE /v1/files/{key}`.
pub async fn delete(context: &Context, key: FileKey) -> Reply {
    // What is stored under a key never changes, so nothing comes between this check and the
    // deletion.
    if conditional::has_conditions(&context.headers) {
        let file = context.app.file(context.principal()?, &key).await?;
        if !conditional::permits(&context.headers, &content::validators(&file)) {
            return Err(Refusal::PreconditionFailed);
        }
    }
    let key = context.app.delete_file(context.principal()?, key).await?;
    json::reply(StatusCode::OK, &json!({"status": "deleted", "key": key.as_str()}))
}

/// `GET /v1/files/all`: a page or the whole list, in either case read page by page from the index.
pub async fn list(context: Context) -> Reply {
    let principal = context.principal()?;
    let owner = context.app.acting_for(principal, context.named_user(None, None)?, true)?;
    let listing = Listing { owner, folder: context.query.folder()? };
    context.app.check_scope(principal, &listing.owner, &listing.folder)?;
    let limit = context.query.limit()?;
    let after = context.query.cursor(FileId::parse)?;
    let totals = context.app.totals(&listing).await?;
    let mut pages = Pages { context, listing, after, left: limit, begun: false, ended: false };
    // The first page is read before the answer begins, so that a failure can still be answered.
    let mut first = pages.next().await?;
    let head =
        format!(r#"{{"total_count":{},"total_size":{},"files":["#, totals.files, totals.bytes);
    first.splice(0..0, head.into_bytes());
    let rest = stream::try_unfold(pages, |mut pages| async move {
        if pages.ended {
            return Ok(None);
        }
        let page = pages.next().await.map_err(|error| {
            tracing::error!(%error, "a list was cut");
            io::Error::other(error.to_string())
        })?;
        Ok(Some((Bytes::from(page), pages)))
    });
    let first = stream::iter([Ok(Bytes::from(first))]);
    let mut response = Body::stream(first.chain(rest), None).answer(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// About as long as an entry is.
const ENTRY_BYTES: usize = 320;

/// A list that is being sent: one page of the index in memory at a time.
struct Pages {
    context: Context,
    listing: Listing,
    after: Option<FileId>,
    /// How many more files are wanted; `None` for all, if the client named no limit.
    left: Option<u64>,
    begun: bool,
    ended: bool,
}

impl Pages {
    /// The JSON of the next page; the last one closes the document.
    async fn next(&mut self) -> Result<Vec<u8>, Error> {
        let page_max = LIST_PAGE_FILES as u64;
        let wanted = self.left.map_or(page_max, |left| left.min(page_max));
        let wanted = usize::try_from(wanted).unwrap_or(LIST_PAGE_FILES);
        // One more than wanted shows whether anything follows.
        let files = self.context.app.list_files(&self.listing, self.after, wanted + 1).await?;
        let mut page = Vec::with_capacity(files.len() * ENTRY_BYTES);
        for file in files.iter().take(wanted) {
            if std::mem::replace(&mut self.begun, true) {
                page.push(b',');
            }
            serde_json::to_writer(&mut page, &Entry::of(file))
                .map_err(|error| Error::Internal(error.to_string()))?;
            self.after = Some(file.id);
        }
        let sent = files.len().min(wanted) as u64;
        self.left = self.left.map(|left| left - sent);
        let more = files.len() > wanted;
        if !more || self.left == Some(0) {
            self.ended = true;
            page.push(b']');
            if let Some(after) = self.after.filter(|_| more) {
                page.extend_from_slice(format!(r#","next_cursor":"{after}""#).as_bytes());
            }
            page.push(b'}');
        }
        Ok(page)
    }
}

/// A file in a list.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(serialize_with = "json::shown")]
    id: FileId,
    key: &'a str,
    filename: &'a str,
    size: u64,
    mime: &'a str,
    #[serde(serialize_with = "json::shown")]
    created_at: UnixMillis,
    folder: &'a str,
}

impl<'a> Entry<'a> {
    fn of(file: &'a FileRecord) -> Self {
        Self {
            id: file.id,
            key: file.key.as_str(),
            filename: file.name.as_str(),
            size: file.size,
            mime: &file.mime,
            created_at: file.id.created(),
            folder: file.folder.as_str(),
        }
    }
}
