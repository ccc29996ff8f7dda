//! `/api/images/{id}/download` and `/preview`: the bytes, or a signed link to them.

use hyper::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, VARY},
};
use serde_json::json;

use crate::{
    app::{Error, link::Disposition},
    http::{Context, Reply, download::content, message::json, v1::links},
    model::id::FileId,
};

const EXPIRES_IN_SECONDS: std::ops::RangeInclusive<u64> = 60..=604_800;
/// The headers that choose between the two answers.
const VARIES: HeaderValue = HeaderValue::from_static("accept, content-type");
const EXPIRES_IN_DEFAULT_SECONDS: u64 = 3600;

pub async fn image(context: &Context, id: FileId, disposition: Disposition) -> Reply {
    let file = context.app.file_by_id(context.principal()?, id).await?;
    if !(names_json(context, &ACCEPT) || names_json(context, &CONTENT_TYPE)) {
        let caching = content::Caching::Private;
        let mut response = content::send(context, &file, disposition, caching).await?;
        response.headers_mut().insert(VARY, VARIES);
        return Ok(response);
    }
    let wrong = "invalid_expires_in";
    let expires_in = context.query.number("expires_in", wrong)?;
    let expires_in = expires_in.unwrap_or(EXPIRES_IN_DEFAULT_SECONDS);
    if !EXPIRES_IN_SECONDS.contains(&expires_in) {
        return Err(Error::invalid(wrong, "expires_in must be 60 to 604800 seconds.").into());
    }
    let link = context.app.mint_link(&file, expires_in, Some(disposition))?;
    let answer = json!({
        "url": links::url(&context.settings.public_url, &link),
        "expires_in": expires_in,
        "filename": file.name.as_str(),
    });
    let mut response = json::reply(StatusCode::OK, &answer)?;
    response.headers_mut().insert(VARY, VARIES);
    Ok(response)
}

/// Whether a header names JSON. With a weight of zero it does not count: JSON is then not accepted
/// (RFC 9110 section 12.4.2).
fn names_json(context: &Context, header: &HeaderName) -> bool {
    let values = context.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|media| {
        let mut words = media.split(';').map(str::trim);
        let is_json = words.next().is_some_and(|it| it.eq_ignore_ascii_case("application/json"));
        is_json && !words.any(is_weight_of_zero)
    })
}

fn is_weight_of_zero(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, weight)| {
        let is_zero = weight.starts_with('0') && weight.bytes().all(|it| matches!(it, b'0' | b'.'));
        name.eq_ignore_ascii_case("q") && is_zero
    })
}
