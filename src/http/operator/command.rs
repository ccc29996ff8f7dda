//! The commands that an operator can send to the socket, and what runs them.

use std::{path::Path, sync::Arc};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Door, import};
use crate::{
    app::{App, Error},
    http::{
        Refusal, Reply,
        message::{body::RequestBody, json::reply, query::Query},
        route::decode,
        telemetry::{audit, metrics},
        v1::admin,
    },
    sys::log,
};

/// Every command of the operator's socket; see [`super`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Collect,
    Scrub,
    Check,
    Backup,
    Log,
    Import,
    /// Which files are listed already under the keys of an import.
    Known,
    Metrics,
    /// A command that admins can send to the port as well.
    Admin(admin::Command),
}

/// Finds the command of a method and a path.
///
/// # Errors
/// No such command.
pub fn route(method: &Method, path: &str) -> Result<Command, Refusal> {
    if let Some(path) = path.strip_prefix(admin::PREFIX) {
        return Ok(Command::Admin(admin::route(method, &decode(path)?)?));
    }
    match (method.as_str(), path) {
        ("POST", "/gc") => Ok(Command::Collect),
        ("POST", "/scrub") => Ok(Command::Scrub),
        ("POST", "/fsck") => Ok(Command::Check),
        ("POST", "/backup") => Ok(Command::Backup),
        ("POST", "/log") => Ok(Command::Log),
        ("PUT", "/import") => Ok(Command::Import),
        ("POST", "/import/known") => Ok(Command::Known),
        (_, "/metrics") => Ok(Command::Metrics),
        _ => Err(Error::NotFound("command").into()),
    }
}

/// Runs a command.
pub async fn run(door: &Door, command: Command, query: &Query, body: RequestBody) -> Reply {
    let app = &door.app;
    let report = match command {
        Command::Collect => collect(app).await?,
        Command::Scrub => scrub(app).await?,
        Command::Check => json!({ "findings": app.check().await? }),
        Command::Backup => backup(door, query).await?,
        Command::Log => return change_log(query),
        Command::Import => return import::file(app, query, body).await,
        Command::Known => return import::known(app, body).await,
        Command::Metrics => return Ok(metrics::page(app).await),
        Command::Admin(command) => return admin::run(app, command, query, body).await,
    };
    reply(StatusCode::OK, &report)
}

async fn collect(app: &Arc<App>) -> Result<Value, Error> {
    let done = app.gc().await?;
    Ok(json!({
        "sessions": done.sessions, "tokens": done.tokens, "blobs": done.blobs,
        "files": done.files, "packs": done.packs, "moved_bytes": done.moved_bytes,
        "freed_bytes": done.freed_bytes,
    }))
}

async fn scrub(app: &App) -> Result<Value, Error> {
    let done = app.scrub_now(u64::MAX).await?;
    Ok(json!({
        "blobs": done.blobs, "bytes": done.bytes, "damaged": done.damaged,
        "unreadable": done.unreadable,
    }))
}

/// The directory of a backup: `dir` of the query, if that is an absolute path.
pub fn backup_dir(query: &Query) -> Option<&Path> {
    query.text("dir").map(Path::new).filter(|dir| dir.is_absolute())
}

async fn backup(door: &Door, query: &Query) -> Result<Value, Error> {
    let missing = || Error::invalid("invalid_dir", "dir must be an absolute path.");
    let done = door.app.backup(&door.data_dir, backup_dir(query).ok_or_else(missing)?).await?;
    Ok(json!({
        "files": done.files, "kept": done.kept, "unreadable": done.unreadable,
        "copied_bytes": done.bytes,
    }))
}

fn change_log(query: &Query) -> Reply {
    let changed = query.exact("filter");
    if changed == Some("") {
        // An empty filter would silence the log; `off` does so explicitly.
        let detail = "The filter must not be empty; off logs nothing.";
        return Err(Error::invalid("invalid_filter", detail).into());
    }
    if let Some(filter) = changed {
        log::change(filter).map_err(|why| Error::invalid("invalid_filter", why))?;
        tracing::info!(filter, "the log filter was changed");
    }
    let answer = reply(StatusCode::OK, &json!({ "filter": log::filter() }))?;
    // The filter is recorded only after the check: a text that is no filter may be anything.
    Ok(match changed {
        Some(filter) => audit::about(answer, &filter),
        None => answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_paths_lead_to_commands() {
        let found = |method: &str, path| route(&method.parse().unwrap(), path);
        assert_eq!(found("POST", "/gc").unwrap(), Command::Collect);
        assert_eq!(found("PUT", "/import").unwrap(), Command::Import);
        assert_eq!(found("GET", "/metrics").unwrap(), Command::Metrics);
        let list = Command::Admin(admin::Command::ListUsers);
        assert_eq!(found("GET", "/v1/admin/users").unwrap(), list);
        for (method, path) in [
            ("GET", "/gc"),
            ("POST", "/import"),
            ("PUT", "/import/known"),
            ("POST", "/"),
            ("POST", "/v1/files/init"),
        ] {
            let refused = found(method, path);
            assert!(matches!(refused, Err(Refusal::App(Error::NotFound("command")))), "{path}");
        }
    }
}
