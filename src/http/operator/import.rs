//! `PUT /import?file=` and `POST /import/known` of the operator's socket: files of another server.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    app::{App, Error, import::ForeignFile},
    http::{
        Reply,
        message::{body::RequestBody, fields, json, query::Query},
        telemetry::audit,
        v1::{files::metadata_answer, receive},
    },
    model::{key::FileKey, time::UnixMillis},
};

/// What a request says about a file. The content is the request's body.
#[derive(Clone, Deserialize, Serialize)]
pub struct Described {
    pub key: String,
    pub user: String,
    pub folder: String,
    pub name: String,
    pub mime: Option<String>,
    /// Milliseconds since 1970.
    pub created: u64,
    pub sha256: Option<String>,
    pub meta: Map<String, Value>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

fn key(text: &str) -> Result<FileKey, Error> {
    let wrong = || Error::invalid("invalid_path", "A file cannot have this key.");
    FileKey::parse(text).ok_or_else(wrong)
}

/// Answers which file is listed under each key.
pub async fn known(app: &App, body: RequestBody) -> Reply {
    let Keys { keys } = json::read(body).await?;
    let keys = keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
    let files = app.files(&keys).await?;
    let files: Vec<Option<Value>> =
        files.iter().map(|file| file.as_ref().map(metadata_answer)).collect();
    json::reply(StatusCode::OK, &json!({ "files": files }))
}

/// Imports one file.
pub async fn file(app: &Arc<App>, query: &Query, mut body: RequestBody) -> Reply {
    let described: Described = serde_json::from_str(query.required("file")?)
        .map_err(|error| json::invalid(&error.to_string()))?;
    let foreign = foreign(described)?;
    let content = receive::raw(&mut body, app.begin_import().await?).await?;
    let file = app.import(foreign, content).await?;
    json::reply(StatusCode::CREATED, &metadata_answer(&file)).map(|a| audit::about(a, &file.key))
}

/// What is not a media type is ignored; the extension of the file name may give one.
pub fn media_type(mime: String) -> Option<Box<str>> {
    fields::media_type(mime).ok()
}

/// Turns a description into the types of the domain.
///
/// # Errors
/// [`Error::Invalid`].
pub fn foreign(described: Described) -> Result<ForeignFile, Error> {
    let sha256 = described.sha256.as_deref().map(fields::sha256).transpose()?;
    let (owner, folder, name) = (
        fields::user_id(&described.user)?,
        fields::folder(&described.folder)?,
        fields::file_name(&described.name)?,
    );
    let key = key(&described.key)?;
    if !key.fits(&owner, &folder) {
        let detail = "The key does not belong to this user and folder.";
        return Err(Error::invalid("invalid_path", detail));
    }
    Ok(ForeignFile {
        key,
        owner,
        folder,
        name,
        mime: described.mime.and_then(media_type),
        created: UnixMillis(described.created),
        meta: fields::caller_meta(described.meta)?,
        sha256,
    })
}
