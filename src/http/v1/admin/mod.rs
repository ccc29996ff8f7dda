//! `/v1/admin/…`: service tokens, users and keys, for admins and for the operator's socket.
//!
//! | request | does |
//! | --- | --- |
//! | `GET tokens?limit&cursor`, `GET tokens/{id}` | list, show |
//! | `POST tokens` | create one; only this answer holds the secret |
//! | `POST tokens/{id}/rotate` | create its successor |
//! | `DELETE tokens/{id}` | revoke it |
//! | `POST revocations` | end the JWT of a `jti`, all tokens of a service, or all of all services |
//! | `GET users?limit&cursor`, `GET`, `PATCH`, `DELETE users/{id}` | list, show, set, delete |
//! | `GET keys`, `POST keys`, `POST keys/rotate` | list, import, rotate |

mod keys;
mod tokens;
mod users;

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    app::{App, Error},
    http::{
        Refusal, Reply,
        message::{body::RequestBody, fields, json, query::Query},
    },
    model::name::UserId,
};

/// Every command of `/v1/admin/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    ListTokens,
    CreateToken,
    /// By id or name, here and below.
    ShowToken(String),
    RotateToken(String),
    RevokeToken(String),
    RevokeMany,
    ListUsers,
    ShowUser(UserId),
    ChangeUser(UserId),
    DeleteUser(UserId),
    ListKeys,
    ImportKey,
    RotateKeys,
}

impl Command {
    /// The label under which requests are counted and logged.
    pub fn label(&self) -> &'static str {
        match self {
            Self::ListTokens
            | Self::CreateToken
            | Self::ShowToken(_)
            | Self::RevokeToken(_)
            | Self::RotateToken(_) => "/v1/admin/tokens",
            Self::RevokeMany => "/v1/admin/revocations",
            Self::ListUsers | Self::ShowUser(_) | Self::ChangeUser(_) | Self::DeleteUser(_) => {
                "/v1/admin/users"
            }
            Self::ListKeys | Self::ImportKey | Self::RotateKeys => "/v1/admin/keys",
        }
    }
}

/// Prefix of every path of this family.
pub const PREFIX: &str = "/v1/admin/";

/// Prefix of the paths with the id or the name of a service token.
pub const TOKENS: &str = "/v1/admin/tokens/";

/// Entries of a page, by default and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Finds the command of a method and a decoded path behind [`PREFIX`].
///
/// # Errors
/// An unknown path, another method, or a path with what cannot be a user id.
pub fn route(method: &Method, path: &str) -> Result<Command, Refusal> {
    let other = |allow| Err(Refusal::MethodNotAllowed { allow });
    let user = |id: &str| fields::user_id(id);
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    match (method, path.split_once('/')) {
        ("GET", None) if path == "tokens" => Ok(Command::ListTokens),
        ("POST", None) if path == "tokens" => Ok(Command::CreateToken),
        ("POST", None) if path == "revocations" => Ok(Command::RevokeMany),
        ("GET", None) if path == "users" => Ok(Command::ListUsers),
        ("GET", None) if path == "keys" => Ok(Command::ListKeys),
        ("POST", None) if path == "keys" => Ok(Command::ImportKey),
        ("POST", Some(("keys", "rotate"))) => Ok(Command::RotateKeys),
        (_, None) if matches!(path, "tokens" | "keys") => other("GET, HEAD, POST"),
        (_, None) if path == "users" => other("GET, HEAD"),
        (_, None) if path == "revocations" => other("POST"),
        (_, Some(("keys", "rotate"))) => other("POST"),
        ("GET", Some(("users", id))) => Ok(Command::ShowUser(user(id)?)),
        ("PATCH", Some(("users", id))) => Ok(Command::ChangeUser(user(id)?)),
        ("DELETE", Some(("users", id))) => Ok(Command::DeleteUser(user(id)?)),
        (_, Some(("users", _))) => other("GET, HEAD, PATCH, DELETE"),
        (method, Some(("tokens", id))) => match (method, id.strip_suffix("/rotate")) {
            ("POST", Some(id)) => Ok(Command::RotateToken(id.into())),
            (_, Some(_)) => other("POST"),
            ("GET", None) => Ok(Command::ShowToken(id.into())),
            ("DELETE", None) => Ok(Command::RevokeToken(id.into())),
            _ => other("GET, HEAD, DELETE"),
        },
        _ => Err(Refusal::NoRoute),
    }
}

/// Runs a command. This is the one implementation behind the socket and the port.
pub async fn run(app: &Arc<App>, command: Command, query: &Query, body: RequestBody) -> Reply {
    match command {
        Command::ListTokens => tokens::list(app, query).await,
        Command::CreateToken => tokens::create(app, body).await,
        Command::ShowToken(token) => tokens::show(app, &token).await,
        Command::RotateToken(token) => tokens::rotate(app, &token, body).await,
        Command::RevokeToken(token) => tokens::revoke(app, &token).await,
        Command::RevokeMany => tokens::revoke_many(app, body).await,
        Command::ListUsers => users::list(app, query).await,
        Command::ShowUser(id) => users::show(app, &id).await,
        Command::ChangeUser(id) => users::change(app, id, body).await,
        Command::DeleteUser(id) => users::delete(app, id).await,
        Command::ListKeys => keys::list(app).await,
        Command::ImportKey => keys::import(app, body).await,
        Command::RotateKeys => keys::rotate(app, body).await,
    }
}

/// `limit` of a page, 100 if it is absent.
fn limit(query: &Query) -> Result<usize, Error> {
    let limit = query.number("limit", "invalid_limit")?.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Error::invalid("invalid_limit", "limit must be 1 to 1000."))
}

/// A page of `entries`. One more than `limit` was asked for, to show whether any follow.
fn page<T>(
    name: &str,
    entries: &[T],
    limit: usize,
    describe: fn(&T) -> Value,
    cursor: fn(&T) -> String,
) -> Reply {
    let shown: Vec<Value> = entries.iter().take(limit).map(describe).collect();
    let mut answer = json!({ name: shown });
    if entries.len() > limit {
        answer["next_cursor"] = cursor(&entries[limit - 1]).into();
    }
    json::reply(StatusCode::OK, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_lead_to_commands() {
        let found = |method: &str, path| route(&method.parse().unwrap(), path);
        let token = || "a/b".to_owned();
        assert_eq!(found("GET", "tokens/a/b").unwrap(), Command::ShowToken(token()));
        assert_eq!(found("POST", "tokens/a/b/rotate").unwrap(), Command::RotateToken(token()));
        assert_eq!(found("HEAD", "keys").unwrap(), Command::ListKeys);
        assert_eq!(found("POST", "keys/rotate").unwrap(), Command::RotateKeys);
        for (method, path, wanted) in [
            ("PUT", "tokens", "GET, HEAD, POST"),
            ("POST", "users", "GET, HEAD"),
            ("GET", "revocations", "POST"),
            ("PUT", "tokens/x", "GET, HEAD, DELETE"),
            ("GET", "tokens/x/rotate", "POST"),
            ("POST", "users/u", "GET, HEAD, PATCH, DELETE"),
            ("GET", "keys/rotate", "POST"),
        ] {
            let Err(Refusal::MethodNotAllowed { allow }) = found(method, path) else {
                panic!("{path}")
            };
            assert_eq!(allow, wanted, "{path}");
        }
        for path in ["", "x", "keys/x", "revocations/x"] {
            assert!(matches!(found("GET", path), Err(Refusal::NoRoute)), "{path}");
        }
    }
}
