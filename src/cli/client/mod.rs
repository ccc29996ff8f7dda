//! The client in this binary: `put`, `get`, `ls`, `rm`, `share`. It knows the API, but nothing of
//! how the daemon works.

mod files;
mod get;
pub(super) mod progress;
mod put;
pub(super) mod trust;

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Method, Request, Response, StatusCode},
};
use zeroize::Zeroizing;

use super::{Failures, failure, say};

#[derive(Subcommand)]
pub enum ClientCommand {
    /// Upload a file; if this was interrupted, the same command resumes it.
    Put(put::Put),
    /// Download a file and verify its BLAKE3 hash.
    Get(get::Get),
    /// List files, newest first.
    Ls(files::List),
    /// Delete files.
    Rm(files::Remove),
    /// Print a signed URL with which anybody can download a file until the URL expires.
    Share(files::Share),
}

pub fn run(command: ClientCommand) -> Result<(), Failures> {
    match command {
        ClientCommand::Put(put) => put::run(&put),
        ClientCommand::Get(get) => get::run(&get),
        ClientCommand::Ls(list) => files::list(&list),
        ClientCommand::Rm(remove) => files::remove(&remove),
        ClientCommand::Share(share) => files::share(&share),
    }
}

/// Where the daemon is and who asks.
#[derive(Args)]
struct Connection {
    /// The daemon's URL.
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMLINED_SERVER",
        default_value = "http://127.0.0.1:8000"
    )]
    server: String,
    /// File that holds the token; by default the token is taken from `STREAMLINED_TOKEN`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// User that a service acts for. put and ls need it with a token of a service; the other
    /// commands then reach only files of this user.
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    #[command(flatten)]
    trust: trust::Trust,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for the head of an answer. It is long because the daemon may be completing a
/// large upload meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
/// How often a request is tried, and the wait after the first try; it grows with each further one.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The characters of a key that are percent-encoded in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// A key, encoded for a path.
fn path(key: &str) -> String {
    utf8_percent_encode(key, IN_PATH).to_string()
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// A request that was refused or not answered.
struct Refused {
    /// `None` if no answer arrived.
    status: Option<StatusCode>,
    code: String,
    detail: String,
}

impl Refused {
    /// Whether the same request may succeed in a moment.
    fn may_pass(&self) -> bool {
        self.status.is_none_or(|status| {
            status.is_server_error()
                || status == StatusCode::REQUEST_TIMEOUT
                || status == StatusCode::TOO_MANY_REQUESTS
        })
    }
}

impl From<Refused> for Failures {
    fn from(refused: Refused) -> Self {
        match refused.status {
            // The daemon's own message names the parameter of the API, not the flag.
            Some(_) if refused.code == "user_required" => {
                failure("the token is a service's: name the user that it acts for with --user")
            }
            Some(status) => failure(format!("{status}: {}", refused.detail)),
            None => failure(refused.detail),
        }
    }
}

struct Client {
    agent: Agent,
    server: String,
    token: Option<Zeroizing<String>>,
    user: Option<String>,
}

impl Client {
    fn new(connection: &Connection) -> Result<Self, Failures> {
        Self::of(connection, &connection.server)
    }

    /// A client that may also send requests to `url`.
    fn of(connection: &Connection, url: &str) -> Result<Self, Failures> {
        if !is_url(url) && !is_url(&connection.server) {
            let server = &connection.server;
            return Err(failure(format!(
                "server {server:?}: a URL begins with http:// or https://"
            )));
        }
        let (token, place) = match &connection.token_file {
            Some(path) => {
                let read = fs::read_to_string(path).map_err(Failures::of("token file", path))?;
                (Some(read), format!("token file: {}", path.display()))
            }
            None => (std::env::var("STREAMLINED_TOKEN").ok(), "STREAMLINED_TOKEN".to_owned()),
        };
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned()));
        if token.as_ref().is_some_and(|token| !token.bytes().all(|it| it.is_ascii_graphic())) {
            return Err(failure(format!("{place}: must hold a token and nothing else")));
        }
        let tls = connection.trust.config(&[&connection.server, url])?;
        Ok(Self {
            agent: Agent::config_builder()
                .tls_config(tls)
                .http_status_as_error(false)
                // The daemon never redirects, and the token must not be sent elsewhere.
                .max_redirects(0)
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(ANSWER_TIMEOUT))
                .build()
                .new_agent(),
            server: connection.server.trim_end_matches('/').to_owned(),
            token,
            user: connection.user.clone(),
        })
    }

    /// A URL on the server. If a service acts for a user, the user is in the query.
    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let user = self.user.as_deref().map(|user| ("user_id", user));
        let mut url = format!("{}{path}", self.server);
        for (at, (name, value)) in query.iter().copied().chain(user).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&super::door::encoded(value));
        }
        url
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, Refused> {
        let mut request = Request::builder().method(method).uri(url);
        // The token is sent to the server only; a signed URL carries its own credential.
        let needs_token = url.strip_prefix(&self.server).is_some_and(|path| {
            let signed = ["/get/", "/v1/files/batch-download/"];
            path.starts_with('/') && !signed.iter().any(|signed| path.starts_with(signed))
        });
        if let Some(token) = self.token.as_ref().filter(|_| needs_token) {
            let is_jwt = token.split('.').count() == 3;
            request = if is_jwt {
                request.header("authorization", format!("Bearer {}", **token))
            } else {
                request.header("x-service-token", token.as_str())
            };
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = match body {
            Some(bytes) => request.body(bytes).map(|request| self.agent.run(request)),
            None => request.body(()).map(|request| self.agent.run(request)),
        };
        let unanswered = |detail: String| Refused { status: None, code: String::new(), detail };
        let wrong = |error| unanswered(format!("{url:?} is not a valid URL: {error}"));
        let answer = answer.map_err(wrong)?.map_err(|error| {
            unanswered(format!("no answer from {}: {error}", url.split('?').next().unwrap_or(url)))
        });
        accepted(answer?)
    }

    fn fetch(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Refused> {
        self.send(Method::GET, url, headers, None)
    }

    /// Sends JSON or no body, and reads JSON.
    fn call(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let json = [("content-type", "application/json".to_owned())];
        let text = body.map(Value::to_string);
        let headers = if text.is_some() { &json[..] } else { &[] };
        read_json(self.send(method, url, headers, text.as_deref().map(str::as_bytes))?)
    }
}

fn read_json(mut answer: Response<Body>) -> Result<Value, Refused> {
    let status = Some(answer.status());
    answer.body_mut().read_json().map_err(|error| Refused {
        status,
        code: String::new(),
        detail: format!("the answer is not JSON: {error}"),
    })
}

/// The answer if it is a success, else what its problem document says.
fn accepted(mut answer: Response<Body>) -> Result<Response<Body>, Refused> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let problem: Value = answer.body_mut().read_json().unwrap_or_default();
    let text = |name: &str, otherwise: &str| problem[name].as_str().unwrap_or(otherwise).to_owned();
    Err(Refused {
        status: Some(answer.status()),
        code: text("code", ""),
        detail: text("detail", "no reason was given"),
    })
}
