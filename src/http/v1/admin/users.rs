//! Users: listed, changed, deleted.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{limit, page};
use crate::{
    app::{App, Error, users::ListedUser},
    http::{
        Reply,
        message::{body::RequestBody, fields, json, query::Query},
    },
    meta::accounts::{Edit, UserChange},
    model::{name::UserId, principal::Role, time::UnixMillis},
};

/// An absent member changes nothing; `null` removes the user's own value. An unknown member is
/// refused, as everywhere in this family: it may be a misspelt limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default, deserialize_with = "named")]
    role: Edit<String>,
    #[serde(default, deserialize_with = "named")]
    quota: Edit<json::Whole>,
    #[serde(default, deserialize_with = "named")]
    disabled: Edit<bool>,
    #[serde(default, deserialize_with = "named")]
    private: Edit<bool>,
    #[serde(default)]
    log_out: bool,
}

fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Edit<T>, D::Error> {
    Ok(Option::deserialize(json)?.map_or(Edit::Clear, Edit::Set))
}

pub async fn list(app: &App, query: &Query) -> Reply {
    let limit = limit(query)?;
    let after = query.text("cursor").map(fields::user_id).transpose()?;
    let users = app.list_users(after.as_ref(), limit + 1).await?;
    page("users", &users, limit, describe, |last| last.record.id.to_string())
}

pub async fn show(app: &App, id: &UserId) -> Reply {
    json::reply(StatusCode::OK, &describe(&app.show_user(id).await?))
}

pub async fn change(app: &Arc<App>, id: UserId, body: RequestBody) -> Reply {
    let change: Change = json::read(body).await?;
    let Change { role, quota, disabled, private, log_out } = change;
    let role = match role {
        Edit::Set(role) => Edit::Set(self::role(&role)?),
        Edit::Clear => Edit::Clear,
        Edit::Keep => Edit::Keep,
    };
    let quota = quota.map(|json::Whole(bytes)| bytes);
    let (disabled, private) = (disabled.or_default(), private.or_default());
    let changes = UserChange { role, quota, disabled, private, tokens_valid_from: None };
    json::reply(StatusCode::OK, &describe(&app.change_user(id, changes, log_out).await?))
}

pub async fn delete(app: &Arc<App>, id: UserId) -> Reply {
    let answer = json!({"status": "deleted", "id": id.as_str()});
    app.delete_user(id).await?;
    json::reply(StatusCode::OK, &answer)
}

fn role(text: &str) -> Result<Role, Error> {
    let detail = "role must be viewer, analyst, researcher or admin.";
    Role::parse(text)
        .filter(|role| *role < Role::Service)
        .ok_or_else(|| Error::invalid("invalid_role", detail))
}

fn describe(user: &ListedUser) -> Value {
    let ListedUser { record, totals, tokens_valid_from } = user;
    let valid_from = UnixMillis(tokens_valid_from.saturating_mul(1000)).to_string();
    json!({
        "id": record.id.as_str(),
        "created": record.created.to_string(),
        "role": record.role.map(Role::as_str),
        "quota": record.quota,
        "disabled": record.disabled,
        "private": record.private,
        "files": totals.files,
        "bytes": totals.bytes,
        "reserved": record.reserved,
        "tokens_valid_from": (*tokens_valid_from > 0).then_some(valid_from),
    })
}
