//! Service tokens: made, listed, rotated, revoked.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{limit, page};
use crate::{
    app::{
        App, Error,
        service_tokens::{Issued, Listed, NewToken, Rotated},
    },
    http::{
        Reply,
        message::{body::RequestBody, json, query::Query},
        telemetry::audit,
    },
    meta::accounts::{ServiceToken, TokenKind, TokenState},
    model::{grant::Grant, id::TokenId, limits::JWT_BYTES_MAX, time::UnixMillis},
};

/// How long both tokens of a rotation are valid if the request does not say.
const GRACE_DEFAULT: Duration = Duration::from_hours(24);
const GRACE_MAX: Duration = Duration::from_hours(90 * 24);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: Box<str>,
    kind: Option<Kind>,
    /// Seconds.
    expires_in: Option<json::Whole>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    allow_ip: Vec<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Opaque,
    Jwt,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Seconds.
    grace: Option<json::Whole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    jti: Option<Box<str>>,
    service: Option<Box<str>>,
    #[serde(default)]
    all: bool,
    /// Unix seconds.
    before: Option<json::Whole>,
}

pub async fn list(app: &App, query: &Query) -> Reply {
    let limit = limit(query)?;
    let tokens = app.list_tokens(query.cursor(TokenId::parse)?, limit + 1).await?;
    page("tokens", &tokens, limit, describe, |last| last.token.id().to_string())
}

pub async fn show(app: &App, token: &str) -> Reply {
    json::reply(StatusCode::OK, &describe(&app.token(token).await?))
}

pub async fn create(app: &Arc<App>, body: RequestBody) -> Reply {
    let new: New = json::read(body).await?;
    let scopes = new.scopes.iter().map(String::as_str);
    let grant = Grant::parse(scopes, new.allow_ip.iter().map(String::as_str));
    let new = NewToken {
        name: new.name,
        is_jwt: new.kind == Some(Kind::Jwt),
        grant: grant.map_err(|why| Error::invalid("invalid_scope", why))?,
        lifetime: new.expires_in.map(|json::Whole(seconds)| Duration::from_secs(seconds)),
    };
    let issued = app.issue_token(new).await?;
    let answer = json::reply(StatusCode::CREATED, &reveal(&issued))?;
    Ok(audit::about(answer, &named(&issued.token)))
}

pub async fn rotate(app: &Arc<App>, token: &str, body: RequestBody) -> Reply {
    let Rotation { grace } = json::read_optional(body).await?;
    let grace = grace.map_or(GRACE_DEFAULT, |json::Whole(seconds)| Duration::from_secs(seconds));
    if grace > GRACE_MAX {
        let detail = "grace must be at most 7776000 seconds (90 days).";
        return Err(Error::invalid("invalid_grace", detail).into());
    }
    let Rotated { issued, previous, until } = app.rotate_token(token, grace).await?;
    let mut answer = reveal(&issued);
    answer["previous_until"] = json!(until.to_string());
    let answer = json::reply(StatusCode::CREATED, &answer)?;
    Ok(audit::about(answer, &format!("{previous} service:{}", issued.token.name)))
}

pub async fn revoke(app: &Arc<App>, token: &str) -> Reply {
    let revoked = app.revoke_token(token).await?;
    let first = revoked.first().ok_or(Error::NotFound("token"))?;
    let ids: Vec<String> = revoked.iter().map(|listed| listed.token.id().to_string()).collect();
    let mut answer = describe(first);
    answer["ended"] = json!(ids);
    let answer = json::reply(StatusCode::OK, &answer)?;
    Ok(audit::about(answer, &format!("{} service:{}", ids.join(" "), first.token.name)))
}

pub async fn revoke_many(app: &Arc<App>, body: RequestBody) -> Reply {
    let wanted: Revocation = json::read(body).await?;
    let before = wanted.before.map(|json::Whole(second)| UnixMillis(second.saturating_mul(1000)));
    let name = match (wanted.jti, wanted.service, wanted.all) {
        (Some(jti), None, false) if before.is_none() && jti.len() <= JWT_BYTES_MAX => {
            let revoked = app.revoke_jti(&jti).await?;
            let answer = json::reply(StatusCode::OK, &describe(&revoked))?;
            // What was sent may have been the whole token, so the `jti` is recorded instead.
            let TokenKind::Jwt { jti } = &revoked.token.kind else { return Ok(answer) };
            return Ok(audit::about(answer, &format!("jti:{jti}")));
        }
        (None, Some(service), false) if service.len() <= JWT_BYTES_MAX => Some(service),
        (None, None, true) => None,
        _ => {
            let detail = "Name one of jti, service (each at most 8192 bytes) and all; before may \
                          be sent only with service or all.";
            return Err(Error::invalid("invalid_revocation", detail).into());
        }
    };
    let whose = name.as_deref().map_or_else(|| "all".to_owned(), |name| format!("service:{name}"));
    let ended = app.end_service_tokens(name, before).await?;
    let valid_from = UnixMillis(ended.valid_from.saturating_mul(1000)).to_string();
    let answer = json!({ "tokens_revoked": ended.recorded, "tokens_valid_from": valid_from });
    let answer = json::reply(StatusCode::OK, &answer)?;
    Ok(audit::about(answer, &whose))
}

/// A token as the audit log names it.
fn named(token: &ServiceToken) -> String {
    format!("{} service:{}", token.id(), token.name)
}

/// A new token with its secret.
fn reveal(issued: &Issued) -> Value {
    let mut answer = members(&issued.token);
    answer["token"] = json!(&**issued.secret);
    answer
}

fn describe(listed: &Listed) -> Value {
    let mut answer = members(&listed.token);
    answer["state"] = json!(listed.standing.as_str());
    answer["last_used"] = json!(listed.used.map(|used| used.at.to_string()));
    answer["last_used_from"] = json!(listed.used.map(|used| used.from.to_string()));
    match listed.token.state {
        TokenState::Active => {}
        TokenState::Superseded { until } => {
            answer["superseded_until"] = json!(until.to_string());
        }
        TokenState::Revoked { at } => answer["revoked"] = json!(at.to_string()),
    }
    answer
}

fn members(token: &ServiceToken) -> Value {
    let mut answer = json!({
        "id": token.id().to_string(),
        "name": token.name,
        "kind": "opaque",
        "scopes": token.grant.scopes(),
        "allow_ip": token.grant.networks(),
        "created": token.created.to_string(),
        "expires": token.expires.map(|at| at.to_string()),
    });
    if let TokenKind::Jwt { jti } = &token.kind {
        answer["kind"] = json!("jwt");
        answer["jti"] = json!(jti);
    }
    answer
}
