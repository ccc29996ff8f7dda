//! `POST /v1/files/generate-token`.

use hyper::StatusCode;
use serde_json::json;

use crate::{
    http::{
        Context, Reply,
        message::{fields, json},
        telemetry::audit,
    },
    model::{grant::Action, name::Folder, principal::Role},
};

const HOURS_DEFAULT: u64 = 1;

pub async fn generate(context: &Context) -> Reply {
    let user = match context.named_user(None, None)? {
        Some(user) => user,
        None => fields::user_id(context.query.required("user_id")?)?,
    };
    let principal = context.principal()?;
    context.app.check_scope(principal, &user, &Folder::default())?;
    // A caller who may not manage users must not get to do so with the token of an admin.
    let cap = if principal.may(Action::Admin) { Role::Admin } else { Role::Researcher };
    let hours = context.query.number("expires_hours", "invalid_expires_hours")?;
    let made = context.app.generate_token(&user, hours.unwrap_or(HOURS_DEFAULT), cap).await?;
    let answer = json!({
        "token": made.token,
        "user_id": user.as_str(),
        "expires_in": made.expires_in,
        "token_type": "Bearer",
    });
    json::reply(StatusCode::OK, &answer).map(|answer| audit::about(answer, &user))
}
