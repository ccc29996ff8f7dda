//! `POST /v1/files/generate-token`.

use hyper::StatusCode;
use serde_json::{Map, json};

use crate::http::{Context, Reply, fields, json};

const HOURS_DEFAULT: u64 = 1;

pub async fn generate(context: &Context) -> Reply {
    let user = match context.named_user(&mut Map::new())? {
        Some(user) => user,
        None => fields::user_id(context.query.required("user_id")?)?,
    };
    let hours = context.query.number("expires_hours", "invalid_expires_hours")?;
    let made = context.app.generate_token(&user, hours.unwrap_or(HOURS_DEFAULT)).await?;
    let answer = json!({
        "token": made.token,
        "user_id": user.as_str(),
        "expires_in": made.expires_in,
        "token_type": "Bearer",
    });
    json::reply(StatusCode::OK, &answer)
}
