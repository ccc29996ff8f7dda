//! Bodies with content for the store, raw or as base64 inside JSON.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    app::{Error, incoming::Incoming},
    http::{
        Context, Refusal,
        message::{
            body::RequestBody,
            fields,
            inline::{self, Splitter, Step},
            json,
        },
    },
    model::{
        id::PartNumber,
        limits::{JSON_BYTES_MAX, PLACED_BYTES_MIN},
    },
};

/// Streams a raw body into `incoming`. A body whose declared length is too large is not read.
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
    part_number: Option<json::Whole>,
}

/// What the base64 content of a JSON body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Part,
    /// The whole content of a file, whatever part number stands beside it.
    File,
}

/// Streams a JSON body with base64 content into `incoming`. If the upload's id comes before the
/// content, an upload that does not exist is refused before the content is taken. If a part's
/// number comes before the content too, a large part is written where it belongs.
pub async fn inline<T: DeserializeOwned>(
    context: &Context,
    what: What,
    path: &'static [Step],
    mut body: RequestBody,
    mut incoming: Incoming,
) -> Result<(T, Incoming), Refusal> {
    let mut splitter = Splitter::new(path);
    let is_large = body.announced().is_none_or(|bytes| bytes > PLACED_BYTES_MIN / 3 * 4);
    let is_placed = what == What::Part && is_large;
    let mut content = Vec::new();
    let mut asked = false;
    while let Some(bytes) = body.next().await? {
        splitter.push(&bytes, &mut content).map_err(refused)?;
        if splitter.found_content() && !asked {
            asked = true;
            if let Some(json::Object(early)) = splitter.so_far::<json::Object<EarlyBody>>() {
                let id = fields::upload_id(&early.upload_id)?;
                let principal = match what {
                    What::Part => context.principal()?.clone(),
                    // If the upload is not of the user whom the service names, it is refused after
                    // the content.
                    What::File => context.principal()?.naming_nobody(),
                };
                context.app.check_upload(&principal, id).await?;
                incoming = context.app.arrives_for(id, incoming);
                let number = early.part_number.and_then(|number| PartNumber::new(number.0));
                if let Some(number) = number.filter(|_| is_placed) {
                    incoming = context.app.begin_part_of(id, number, None).await?;
                }
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
            let detail = "The content must be base64 in the standard alphabet, with padding.";
            Error::invalid("invalid_base64", detail)
        }
        inline::Refused::Json(why) => json::invalid(&why),
    }
}
