//! What the audit log says of requests: who, from where, what, with which outcome; never a secret.

use std::net::IpAddr;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    app::{App, Error},
    http::{
        Refusal,
        endpoint::Endpoint,
        message::{body::Body, query::Query},
        operator,
        v1::admin::Command,
    },
    model::{id::TokenId, principal::Principal},
    sys::audit::AuditLog,
};

/// Longest target of a line: it is as long as who asks wants, and nobody has to have a credential
/// to ask for a link.
const TARGET_BYTES_MAX: usize = 1 << 10;
/// What is kept of the end of a longer one: the name of a file.
const TARGET_END_BYTES: usize = 320;

/// What is known of a request once it was answered.
#[derive(Default)]
pub struct Trace {
    pub who: Option<Principal>,
    /// The user id of one who needs no credential.
    pub operator: Option<String>,
    /// What was asked for, by its label.
    pub route: Option<&'static str>,
    pub event: Option<Event>,
    /// Its handler was begun.
    pub is_admitted: bool,
}

/// Something that is worth a line, and what it is about.
#[derive(Clone)]
pub struct Event {
    name: &'static str,
    target: Option<String>,
}

/// Set by a handler on its answer when only that says what the event is about.
#[derive(Clone)]
struct About(String);

/// Says what an answer is about.
pub fn about(mut answer: Response<Body>, target: &impl ToString) -> Response<Body> {
    answer.extensions_mut().insert(About(target.to_string()));
    answer
}

/// Says that what was asked for was another thing in the end.
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

    /// What somebody takes for the id or the name of a token may be the token itself.
    fn on_token(name: &'static str, token: &str) -> Self {
        TokenId::parse(token).map_or_else(|| Self::new(name), |id| Self::on(name, &id))
    }

    /// What an endpoint says of itself, or a command.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        if let Endpoint::Admin(command) = endpoint {
            return Self::of_command(command);
        }
        let (name, target) = endpoint.facts().event?;
        Some(Self { name, target: target.map(ToString::to_string) })
    }

    /// What an operator asks for; `query` is that of a request, where it can be read.
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
            // Without a filter it only shows; the answer says with which.
            operator::Command::Log => query?.text("filter").map(|_| Self::new("log_changed"))?,
            // A file of another server; the answer says which.
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

/// Why a request was refused before anything was done, where that is a decision about who asks.
pub fn reason(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::App(Error::Unauthenticated(why)) => Some(why.clone()),
        Refusal::App(error @ (Error::Denied { .. } | Error::OutOfScope(_))) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// A request on its way to its line. A client that hangs up, or resets its HTTP/2 stream, drops the
/// handler, but not what that has begun: a backup goes on. Of a request that was let in, the line
/// says then that it was cut.
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

    /// What is known of it so far.
    pub fn trace(&mut self) -> &mut Trace {
        self.trace.get_or_insert_default()
    }

    /// Writes its line, where there is something to tell; `why` is the reason of a refusal.
    pub fn tell(&mut self, answer: &Response<Body>, why: Option<&str>) -> Trace {
        let trace = self.trace.take().unwrap_or_default();
        self.record(&trace, Some(answer), why);
        trace
    }

    fn record(&self, trace: &Trace, answer: Option<&Response<Body>>, why: Option<&str>) {
        let Trace { who, operator, event, is_admitted, .. } = trace;
        // That nobody asked for what nobody can read is nothing to tell.
        if who.is_none() && operator.is_none() && !is_admitted && why.is_none() {
            return;
        }
        let status = answer.map(Response::status);
        let event = answer.and_then(|answer| answer.extensions().get::<Event>()).or(event.as_ref());
        if event.is_none() && why.is_none() {
            return;
        }
        let Event { name, target } = event.cloned().unwrap_or_else(|| Event::new("request"));
        let about = answer.and_then(|answer| answer.extensions().get::<About>());
        let about = about.map(|About(target)| target.clone());
        let who_text = match (operator, who) {
            (Some(uid), _) => format!("operator:{uid}"),
            (None, Some(who)) => who.to_string(),
            (None, None) => "anyone".to_owned(),
        };
        let line = json!({
            "time": self.app.now().to_string(),
            "request_id": self.request_id,
            "who": who_text,
            "from": self.from.to_string(),
            "event": name,
            "target": about.or(target).map(shortened),
            "status": status.map(|status| status.as_u16()),
            "outcome": status.map_or("cut", outcome),
            "why": why,
        });
        let Value::Object(mut line) = line else { return };
        line.retain(|_, value| !value.is_null());
        if let Some(Principal::Service { token, .. }) = who {
            line.insert("token".into(), token.id.to_string().into());
        }
        self.log.record(line);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take().filter(|trace| trace.is_admitted) {
            self.record(&trace, None, None);
        }
    }
}

/// A target with an ellipsis in place of its middle where it is too long.
fn shortened(target: String) -> String {
    if target.len() <= TARGET_BYTES_MAX {
        return target;
    }
    let ellipsis = '…';
    let begin = TARGET_BYTES_MAX - TARGET_END_BYTES - ellipsis.len_utf8();
    let begin = target.floor_char_boundary(begin);
    let end = target.ceil_char_boundary(target.len() - TARGET_END_BYTES);
    format!("{}{ellipsis}{}", &target[..begin], &target[end..])
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
            let short = shortened(target.clone());
            assert!(short.len() <= TARGET_BYTES_MAX, "{text}");
            assert_eq!(short == target, target.len() <= TARGET_BYTES_MAX, "{text}");
        }
    }
}
