//! What the audit log records of requests: who, from where, what, with which outcome; never a
//! secret.

use std::{borrow::Cow, fmt::Display, net::IpAddr};

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::{
    app::{App, Error},
    http::{
        Refusal,
        endpoint::Endpoint,
        message::{body::Body, json, query::Query},
        operator,
        v1::admin::Command,
    },
    model::{id::TokenId, principal::Principal, time::UnixMillis},
    sys::audit::AuditLog,
};

/// Longest target in a line. The caller decides how long a target is, and needs no credential to
/// ask for a link.
const TARGET_BYTES_MAX: usize = 1 << 10;
/// How much of the end of a longer target is kept: the file name is there.
const TARGET_END_BYTES: usize = 320;

/// What is known about a request when its line is written.
#[derive(Default)]
pub struct Trace {
    pub who: Option<Principal>,
    /// The uid of an operator, who needs no credential.
    pub operator: Option<String>,
    /// The label of the endpoint that was requested.
    pub route: Option<&'static str>,
    pub event: Option<Event>,
    /// Whether its handler was started.
    pub is_admitted: bool,
}

/// Something that is recorded, and what it is about.
#[derive(Clone)]
pub struct Event {
    name: &'static str,
    target: Option<String>,
}

/// Set by a handler on its answer if the target of the event is known only then.
#[derive(Clone)]
struct About(String);

/// Sets the target of the event on an answer.
pub fn about(mut answer: Response<Body>, target: &impl ToString) -> Response<Body> {
    answer.extensions_mut().insert(About(target.to_string()));
    answer
}

/// Sets another event on an answer, when the request turned out to be for another endpoint.
pub fn turned_out(mut answer: Response<Body>, endpoint: &Endpoint) -> Response<Body> {
    if let Some(event) = Event::of(endpoint) {
        answer.extensions_mut().insert(event);
    }
    answer
}

impl Event {
    fn new(name: &'static str) -> Self {
        Self { name, target: None }
    }

    fn on(name: &'static str, target: &impl ToString) -> Self {
        Self { name, target: Some(target.to_string()) }
    }

    /// What a caller sends as the id or name of a token may be the token itself, so only an id is
    /// recorded.
    fn on_token(name: &'static str, token: &str) -> Self {
        TokenId::parse(token).map_or_else(|| Self::new(name), |id| Self::on(name, &id))
    }

    /// The event of an endpoint, or of the command in it.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        if let Endpoint::Admin(command) = endpoint {
            return Self::of_command(command);
        }
        let (name, target) = endpoint.facts().event?;
        Some(Self { name, target: target.map(ToString::to_string) })
    }

    /// The event of an operator's command; `query` is the query of the request, if it can be read.
    pub fn of_operator(command: &operator::Command, query: Option<&Query>) -> Option<Self> {
        Some(match command {
            operator::Command::Known | operator::Command::Metrics => return None,
            operator::Command::Collect => Self::new("gc"),
            operator::Command::Scrub => Self::new("scrub"),
            operator::Command::Check => Self::new("fsck"),
            operator::Command::Backup => {
                let dir = query.and_then(operator::backup_dir);
                dir.map_or(Self::new("backup"), |dir| Self::on("backup", &dir.display()))
            }
            // Without a filter, the command only shows the current one. The answer names a new one.
            operator::Command::Log => query?.text("filter").map(|_| Self::new("log_changed"))?,
            // A file of another server; the answer names it.
            operator::Command::Import => Self::new("import"),
            operator::Command::Admin(command) => return Self::of_command(command),
        })
    }

    pub fn of_command(command: &Command) -> Option<Self> {
        Some(match command {
            Command::ListTokens
            | Command::ShowToken(_)
            | Command::ListUsers
            | Command::ShowUser(_)
            | Command::ListKeys => return None,
            Command::CreateToken => Self::new("token_created"),
            Command::RotateToken(token) => Self::on_token("token_rotated", token),
            Command::RevokeToken(token) => Self::on_token("token_revoked", token),
            Command::RevokeMany => Self::new("tokens_revoked"),
            Command::ChangeUser(id) => Self::on("user_changed", id),
            Command::DeleteUser(id) => Self::on("user_deleted", id),
            Command::ImportKey => Self::new("key_imported"),
            Command::RotateKeys => Self::new("key_rotated"),
        })
    }
}

/// A line. Members that do not apply are left out.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "json::shown")]
    time: UnixMillis,
    request_id: &'a str,
    #[serde(serialize_with = "json::shown")]
    who: &'a dyn Display,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    from: IpAddr,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// Why a request was refused before anything was done, if that is a decision about the caller.
pub fn reason(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::App(Error::Unauthenticated(why)) => Some(why.clone()),
        Refusal::App(error @ (Error::Denied { .. } | Error::OutOfScope(_))) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// A request whose line is still to be written. A client that hangs up, or resets its HTTP/2
/// stream, drops the handler, but not the work that the handler has begun: a backup goes on. If the
/// request was admitted, its line then says that it was cut.
pub struct Told<'a> {
    app: &'a App,
    log: &'a AuditLog,
    request_id: String,
    from: IpAddr,
    trace: Option<Trace>,
}

impl<'a> Told<'a> {
    pub fn new(app: &'a App, log: &'a AuditLog, request_id: &str, from: IpAddr) -> Self {
        Self { app, log, request_id: request_id.to_owned(), from, trace: None }
    }

    /// What is known about the request so far.
    pub fn trace(&mut self) -> &mut Trace {
        self.trace.get_or_insert_default()
    }

    /// Writes the line, if there is something to record; `why` is the reason of a refusal.
    pub fn tell(&mut self, answer: &Response<Body>, why: Option<&str>) -> Trace {
        let trace = self.trace.take().unwrap_or_default();
        self.record(&trace, Some(answer), why);
        trace
    }

    fn record(&self, trace: &Trace, answer: Option<&Response<Body>>, why: Option<&str>) {
        let Trace { who, operator, event, is_admitted, .. } = trace;
        // Without a known caller, a handler that was started or the reason of a refusal, there is
        // nothing to record.
        if who.is_none() && operator.is_none() && !is_admitted && why.is_none() {
            return;
        }
        let status = answer.map(Response::status);
        let event = answer.and_then(|answer| answer.extensions().get::<Event>()).or(event.as_ref());
        if event.is_none() && why.is_none() {
            return;
        }
        let about = answer.and_then(|answer| answer.extensions().get::<About>());
        let known = event.and_then(|event| event.target.as_ref());
        let target = about.map(|About(target)| target).or(known);
        let operator = operator.as_ref().map(|uid| format!("operator:{uid}"));
        let token = match who {
            Some(Principal::Service { token, .. }) => Some(token.id.to_string()),
            _ => None,
        };
        self.log.record(&Line {
            time: self.app.now(),
            request_id: &self.request_id,
            who: match (&operator, who) {
                (Some(operator), _) => operator,
                (None, Some(who)) => who,
                (None, None) => &"anyone",
            },
            token,
            from: self.from,
            event: event.map_or("request", |event| event.name),
            target: target.map(|target| shortened(target)),
            status: status.map(|status| status.as_u16()),
            outcome: status.map_or("cut", outcome),
            why,
        });
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take().filter(|trace| trace.is_admitted) {
            self.record(&trace, None, None);
        }
    }
}

/// The target; if it is too long, with an ellipsis in place of its middle.
fn shortened(target: &str) -> Cow<'_, str> {
    if target.len() <= TARGET_BYTES_MAX {
        return Cow::Borrowed(target);
    }
    let ellipsis = '…';
    let begin = TARGET_BYTES_MAX - TARGET_END_BYTES - ellipsis.len_utf8();
    let begin = target.floor_char_boundary(begin);
    let end = target.ceil_char_boundary(target.len() - TARGET_END_BYTES);
    Cow::Owned(format!("{}{ellipsis}{}", &target[..begin], &target[end..]))
}

fn outcome(status: StatusCode) -> &'static str {
    if status.is_server_error() {
        "failed"
    } else if status.is_client_error() {
        "refused"
    } else {
        "done"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_any_length_fits() {
        for (text, times) in [("x", 1024), ("x", 1025), ("ü", 9000), ("…", 700), ("🦀", 256)] {
            let target = text.repeat(times);
            let short = shortened(&target);
            assert!(short.len() <= TARGET_BYTES_MAX, "{text}");
            assert_eq!(short == target, target.len() <= TARGET_BYTES_MAX, "{text}");
        }
    }
}
