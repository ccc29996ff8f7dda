//! Signed URLs: both ways to ask for one, and their text.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    app::{
        Error,
        link::{Disposition, Link},
    },
    http::{
        Context, Refusal, Reply,
        message::{body::RequestBody, fields, json},
        telemetry::audit,
    },
    model::{key::FileKey, principal::Principal},
};

const TTL_DEFAULT_SECONDS: u64 = 3600;

/// Encoded without padding, decoded with and without.
const KEY_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `GET /v1/files/signed-url?key&ttl&disposition`.
pub async fn sign(context: &Context) -> Reply {
    let key = context.query.required("key")?;
    let ttl = context.query.number("ttl", "invalid_ttl")?;
    let disposition = context.query.text("disposition").map(disposition).transpose()?;
    let principal = context.principal()?;
    let asked = answer(context, principal, key, ttl, disposition).await;
    match (asked, context.query.literal("key")) {
        // A `+` in the key may mean a space or itself, and nothing says which. If the one key leads
        // to no file, the other is tried.
        (Err(Refusal::App(Error::NotFound(_) | Error::OutOfScope(_))), Some(pasted)) => {
            answer(context, principal, pasted, ttl, disposition).await
        }
        (asked, _) => asked,
    }
}

#[derive(Deserialize)]
struct Form {
    file_key: String,
    expires_in: Option<json::Whole>,
    disposition: Option<String>,
    user_id: Option<Value>,
    user_email: Option<Value>,
}

/// `POST /v1/files/signed-url`.
pub async fn sign_form(context: &Context, body: RequestBody) -> Reply {
    let form: Form = json::read(body).await?;
    let disposition = form.disposition.as_deref().map(disposition).transpose()?;
    let ttl = form.expires_in.map(|json::Whole(ttl)| ttl);
    let user = context.named_user(form.user_id, form.user_email)?;
    let principal = context.app.naming(context.principal()?, user)?;
    answer(context, &principal, &form.file_key, ttl, disposition).await
}

fn disposition(text: &str) -> Result<Disposition, Error> {
    let detail = "disposition must be inline or attachment.";
    Disposition::parse(text).ok_or_else(|| Error::invalid("invalid_disposition", detail))
}

async fn answer(
    context: &Context,
    principal: &Principal,
    key: &str,
    ttl: Option<u64>,
    disposition: Option<Disposition>,
) -> Reply {
    let file = context.app.file(principal, &fields::file_key(key)?).await?;
    let ttl = ttl.unwrap_or(TTL_DEFAULT_SECONDS);
    let link = context.app.mint_link(&file, ttl, disposition)?;
    let url = url(&context.settings.public_url, &link);
    let answer = json!({
        "url": url,
        "signed_url": url,
        "expires_in": ttl,
        "disposition": disposition.unwrap_or(Disposition::Inline).as_str(),
    });
    json::reply(StatusCode::OK, &answer).map(|answer| audit::about(answer, &file.key))
}

/// `BASE/get/{base64url(key)}?exp&sig[&disposition]`.
pub fn url(base: &str, link: &Link) -> String {
    let key = KEY_ENCODING.encode(link.key.as_str());
    let mut url = format!("{base}/get/{key}?exp={}&sig={}", link.expires, link.signature);
    if let Some(disposition) = link.disposition {
        url.push_str("&disposition=");
        url.push_str(disposition.as_str());
    }
    url
}

/// The key in a link's path.
pub fn decode_key(encoded: &str) -> Option<FileKey> {
    let key = KEY_ENCODING.decode(encoded).ok()?;
    FileKey::parse(std::str::from_utf8(&key).ok()?)
}
