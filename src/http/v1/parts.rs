//! Parts, as base64 inside JSON and as raw bytes.

use hyper::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::receive::{self, What};
use crate::{
    app::{Error, incoming::Incoming},
    http::{
        Context, Reply,
        message::{body::RequestBody, digest, fields, inline::Step, json},
    },
    model::{
        digest::Sha256,
        id::{PartNumber, UploadId},
    },
};

pub fn invalid_number() -> Error {
    Error::invalid("invalid_part_number", "A part number must be a whole number from 0 to 10000.")
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
    Number(json::Whole),
    /// Refused with an error code of its own.
    Other(IgnoredAny),
}

const CHUNK: &[Step] = &[Step::Member("chunkBase64")];

/// `POST /v1/files/part`: base64 in JSON, decoded while it streams.
pub async fn encoded(context: &Context, body: RequestBody) -> Reply {
    let incoming = context.app.begin_part().await?;
    let (body, incoming): (PartBody, _) =
        receive::inline(context, What::Part, CHUNK, body, incoming).await?;
    let id = fields::upload_id(&body.upload_id)?;
    let PartWord::Number(json::Whole(number)) = body.part_number else {
        return Err(invalid_number().into());
    };
    let number = PartNumber::new(number).ok_or_else(invalid_number)?;
    finish(context, id, number, incoming, None).await
}

/// `PUT /v1/files/{uploadId}/parts/{n}`: raw bytes.
pub async fn raw(
    context: &Context,
    id: UploadId,
    number: PartNumber,
    mut body: RequestBody,
) -> Reply {
    context.app.check_part(context.principal()?, id).await?;
    fields::check_not_a_form(&context.headers)?;
    let sha256 = digest::announced(&context.headers)?;
    let incoming = context.app.begin_part_of(id, number, body.announced()).await?;
    let incoming = receive::raw(&mut body, incoming).await?;
    finish(context, id, number, incoming, sha256).await
}

async fn finish(
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
