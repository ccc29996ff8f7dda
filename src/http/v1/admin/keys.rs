//! Signing keys: listed, imported, rotated.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    app::{App, Error},
    http::{
        Reply,
        message::{body::RequestBody, json},
    },
    model::time::UnixMillis,
};

/// Twice as long as others may cache the key set.
const AFTER_DEFAULT: Duration = Duration::from_mins(10);
const AFTER_MAX: Duration = Duration::from_hours(30 * 24);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Seconds until the new key signs.
    after: Option<json::Whole>,
    /// Rotates the key of links, which signs at once.
    #[serde(default)]
    links: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    pem: String,
}

pub async fn list(app: &App) -> Reply {
    let second = |second: u64| UnixMillis(second.saturating_mul(1000)).to_string();
    let keys = app.list_keys().await?;
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({
                "kid": key.kid,
                "signs": key.signs,
                "signs_from": key.signs_from.map(second),
                "last_expiry": (key.last_expiry > 0).then(|| second(key.last_expiry)),
            })
        })
        .collect();
    json::reply(StatusCode::OK, &json!({ "keys": keys }))
}

pub async fn rotate(app: &Arc<App>, body: RequestBody) -> Reply {
    let Rotation { after, links } = json::read_optional(body).await?;
    if links {
        app.rotate_link_key().await?;
        return json::reply(StatusCode::CREATED, &json!({ "links": "rotated" }));
    }
    let after = after.map_or(AFTER_DEFAULT, |json::Whole(seconds)| Duration::from_secs(seconds));
    if after > AFTER_MAX {
        let detail = "after must be at most 2592000 seconds (30 days).";
        return Err(Error::invalid("invalid_after", detail).into());
    }
    let kid = app.rotate_key(after).await?;
    json::reply(StatusCode::CREATED, &json!({"kid": kid, "signs_in": after.as_secs()}))
}

pub async fn import(app: &Arc<App>, body: RequestBody) -> Reply {
    let Import { pem } = json::read(body).await?;
    let kid = app.import_key(Zeroizing::new(pem)).await?;
    json::reply(StatusCode::CREATED, &json!({ "kid": kid }))
}
