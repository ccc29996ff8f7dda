//! How uploads end: `complete` in all its forms, and a whole file in one request.

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, IF_MATCH},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    files::metadata_answer,
    receive::{self, What},
};
use crate::{
    app::{
        Error,
        append::inconsistent_length,
        complete::{Completed, Completion},
        possession::Possession,
        publish::NewContent,
    },
    http::{
        Context, Refusal, Reply,
        message::{body::RequestBody, digest, fields, inline::Step, json},
        telemetry::audit,
    },
    model::{digest::Sha256, file::FileRecord},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompleteBody {
    upload_id: String,
    sha256: Option<String>,
    parts: Option<Vec<json::Object<InlinePart>>>,
    meta: Option<json::Members>,
    known: Option<json::Object<KnownContent>>,
    receipt: Option<bool>,
}

#[derive(Deserialize)]
struct InlinePart {
    /// Empty: the content was decoded on the way.
    data: Option<String>,
}

/// The proof that init asked for: that the client knows content which its owner has stored.
#[derive(Deserialize)]
struct KnownContent {
    blake3: Option<String>,
    sha256: Option<String>,
    proof: String,
}

const INLINE: &[Step] = &[Step::Member("parts"), Step::Item, Step::Member("data")];

/// `POST /v1/files/complete`.
pub async fn complete(context: &Context, body: RequestBody) -> Reply {
    let incoming = context.app.begin_file().await?;
    let (body, incoming): (CompleteBody, _) =
        receive::inline(context, What::File, INLINE, body, incoming).await?;
    let json::Members(mut meta) = body.meta.unwrap_or_default();
    let user = context.named_in(&mut meta)?;
    let name =
        fields::text(&mut meta, "filename")?.map(|name| fields::file_name(&name)).transpose()?;
    let folder =
        fields::text(&mut meta, "folder")?.map(|folder| fields::folder(&folder)).transpose()?;
    let came_inline = body.parts.iter().flatten().any(|json::Object(part)| part.data.is_some());
    let completion = Completion {
        id: fields::upload_id(&body.upload_id)?,
        sha256: body.sha256.as_deref().map(fields::sha256).transpose()?,
        name,
        folder,
        user,
        meta: fields::caller_meta(meta)?,
        inline: came_inline.then_some(incoming),
        possession: body.known.map(possession).transpose()?,
        in_order: false,
    };
    let with_receipt = body.receipt.unwrap_or(false);
    match context.app.complete_upload(context.principal()?, completion).await? {
        Completed::One(file) => {
            let answer = completed_answer(context, &file, with_receipt).await?;
            json::reply(StatusCode::OK, &answer).map(|a| audit::about(a, &file.key))
        }
        Completed::Batch(completed) => {
            let mut files = Vec::with_capacity(completed.len());
            for file in &completed {
                files.push(completed_answer(context, file, with_receipt).await?);
            }
            let answer = json!({"uploadId": body.upload_id, "mode": "batch", "files": files});
            json::reply(StatusCode::OK, &answer).map(|a| audit::about(a, &body.upload_id))
        }
    }
}

fn possession(json::Object(known): json::Object<KnownContent>) -> Result<Possession, Error> {
    let detail = "known.proof must be 64 hex digits.";
    let proof = Sha256::parse(&known.proof);
    let proof = proof.ok_or_else(|| Error::invalid("invalid_sha256", detail))?;
    let blake3 = known.blake3.as_deref().map(fields::blake3).transpose()?;
    let sha256 = known.sha256.as_deref().map(fields::sha256).transpose()?;
    if blake3.is_none() && sha256.is_none() {
        let detail = "known must have the blake3 or the sha256 that init carried.";
        return Err(Error::invalid("invalid_sha256", detail));
    }
    Ok(Possession { blake3, sha256, proof })
}

async fn completed_answer(
    context: &Context,
    file: &FileRecord,
    with_receipt: bool,
) -> Result<Value, Error> {
    let mut answer = metadata_answer(file);
    if with_receipt {
        let receipt = context.app.receipt(file, &context.settings.public_url).await?;
        answer["receipt"] = receipt.into();
    }
    Ok(answer)
}

/// A whole file in one request.
pub async fn put_content(context: &Context, body: RequestBody) -> Reply {
    let file = store_content(context, body, None).await?;
    json::reply(StatusCode::CREATED, &metadata_answer(&file)).map(|a| audit::about(a, &file.key))
}

/// Stores a whole file, of `size` bytes if that was declared.
pub async fn store_content(
    context: &Context,
    mut body: RequestBody,
    size: Option<u64>,
) -> Result<FileRecord, Refusal> {
    let principal = context.principal()?;
    let name = fields::file_name(context.query.required("filename")?)?;
    let folder = context.query.folder()?;
    let user = context.named_user(None, None)?;
    let owner = context.app.acting_for(principal, user, false)?;
    context.app.check_scope(principal, &owner, &folder)?;
    context.app.check_room(&owner, body.announced().unwrap_or(0)).await?;
    let sha256 = digest::announced(&context.headers)?;
    let mime = declared_type(context)?;
    check_condition(context)?;
    let mut incoming = context.app.begin_file().await?;
    if let Some(size) = size {
        incoming.limit_to(size)?;
    }
    let content = receive::raw(&mut body, incoming).await.map_err(|error| match error {
        Error::TooLarge { .. } if size.is_some() => inconsistent_length(),
        error => error,
    })?;
    if size.is_some_and(|size| size != content.received()) {
        return Err(inconsistent_length().into());
    }
    let new = NewContent { owner, name, folder, mime, sha256, content };
    Ok(context.app.put_content(principal, new).await?)
}

/// Refuses `If-Match`: there is no file yet that could match (RFC 9110 section 13.1.1). Checked
/// last: what is refused without the condition is refused for that reason (section 13.2.1).
pub fn check_condition(context: &Context) -> Result<(), Refusal> {
    if context.headers.contains_key(IF_MATCH) {
        return Err(Refusal::PreconditionFailed);
    }
    Ok(())
}

/// What `Content-Type` says about the file. Types that HTTP clients send for want of a better one
/// say nothing. Two lines are refused, because nobody knows which one counts.
pub fn declared_type(context: &Context) -> Result<Option<Box<str>>, Error> {
    const SAYS_NOTHING: [&str; 2] =
        ["application/x-www-form-urlencoded", "application/octet-stream"];
    let mut lines = context.headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Error::invalid("invalid_header", "Content-Type must be sent only once."));
    }
    fields::check_not_a_form(&context.headers)?;
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim_end();
    if essence.is_empty() || SAYS_NOTHING.iter().any(|word| essence.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    fields::media_type(value.to_owned()).map(Some)
}
