//! Bodies with content on their way into the store, raw or as base64 inside JSON.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    app::{Error, incoming::Incoming},
    http::{
        Context, Refusal,
        body::RequestBody,
        fields,
        inline::{self, Splitter, Step},
        json,
    },
    model::limits::JSON_BYTES_MAX,
};

/// Streams a raw body into `incoming`; one that says it is too large is not read.
pub async fn raw(body: &mut RequestBody, mut incoming: Incoming) -> Result<Incoming, Error> {
    incoming.expect(body.announced().unwrap_or(0))?;
    while let Some(bytes) = body.next().await? {
        incoming.write(bytes).await?;
    }
    Ok(incoming)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EarlyBody {
    upload_id: String,
}

/// Streams a JSON body with base64 content into `incoming`. When the upload's id stands before
/// the content, an upload that is not there is refused before the content is taken.
pub async fn inline<T: DeserializeOwned>(
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
            if let Some(json::Object(EarlyBody { upload_id: id })) = splitter.so_far() {
                context.app.check_upload(context.principal()?, fields::upload_id(&id)?).await?;
            }
        }
        if !content.is_empty() {
            incoming.write(Bytes::from(std::mem::take(&mut content))).await?;
        }
    }
    let json::Object(members) = splitter.finish().map_err(refused)?;
    Ok((members, incoming))
}

fn refused(why: inline::Refused) -> Error {
    match why {
        inline::Refused::TooLarge => {
            let limit = JSON_BYTES_MAX as u64;
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
