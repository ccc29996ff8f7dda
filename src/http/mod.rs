//! The HTTP surface on hyper: the only code that knows headers and status codes.
//!
//! A request passes: request id → route → credentials → role → handler → one log line.

pub mod admin;
mod audit;
pub mod body;
pub mod byteranges;
mod client;
pub mod conditional;
mod content;
mod credentials;
mod digest;
mod disposition;
mod fields;
mod flood;
mod framing;
mod health;
mod images;
pub mod import;
pub mod inline;
mod json;
pub mod listen;
pub mod openapi;
mod penalty;
mod proof;
mod query;
mod respond;
pub mod route;
mod shares;
mod streams;
pub mod structured;
mod v1;

use std::{
    convert::Infallible,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue},
    http::request::Parts,
};
use ipnet::IpNet;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use self::{
    audit::{Event, Facts, Trace},
    body::{Body, RequestBody},
    listen::Connection,
    penalty::Penalties,
    query::Query,
    route::{Access, Endpoint},
    shares::Shares,
};
use crate::{
    app::{App, Error},
    model::{
        name::UserId,
        principal::{Principal, Role},
    },
    sys::{audit::AuditLog, random},
};

/// What of tus is read without a request.
pub mod tus {
    pub use super::v1::tus::{checksum_of, concat, declared_size, metadata};
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bounds of the surface that the operator sets.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Requests in work at a time; past it: 503 `busy`.
    pub requests_max: usize,
    /// Of one principal; past it: 429 `too_many_requests`.
    pub requests_per_principal_max: usize,
    /// Requests of one of them in a second; past it: 429 too.
    pub requests_per_second_max: Option<u32>,
    pub header_timeout: Duration,
    /// Longest time without a byte of a request's body, past it: 408; and without a byte taken of
    /// an answer, past it: closed.
    pub body_idle_timeout: Duration,
    /// How long requests in flight may take after a shutdown signal.
    pub drain_timeout: Duration,
    /// Proxies whose word on the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
}

/// The service behind every connection.
pub struct Server {
    app: Arc<App>,
    /// Base of signed URLs, without a slash at the end.
    public_url: String,
    limits: Limits,
    requests: Arc<Semaphore>,
    audit: Arc<AuditLog>,
    penalties: Penalties,
    shares: Shares,
}

/// What handlers see of a request besides its body.
struct Context {
    app: Arc<App>,
    server: Arc<Server>,
    method: Method,
    headers: HeaderMap,
    query: Query,
    /// Nobody where the endpoint needs no credential and none was sent.
    principal: Option<Principal>,
}

/// A request that ends without what it asked for: at the surface, or in a use case.
#[derive(Debug)]
pub enum Refusal {
    NoRoute,
    MethodNotAllowed { allow: &'static str },
    PreconditionFailed,
    RangeNotSatisfiable { size: u64 },
    TooManyRequests,
    MediaTypeUnsupported { takes: &'static str },
    TusVersion { ours: &'static str },
    App(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::App(error.into())
    }
}

type Reply = Result<Response<Body>, Refusal>;

impl Context {
    /// # Errors
    /// [`Error::Unauthenticated`] when nothing was sent.
    fn principal(&self) -> Result<&Principal, Error> {
        let missing = || Error::Unauthenticated("no credential was sent".into());
        self.principal.as_ref().ok_or_else(missing)
    }

    /// The user that a service, or an admin, says the request is about: `user_id`, else
    /// `user_email`, which is the id of a user known by it; in `meta`, else in the query. What
    /// anybody else says does not count, so it is not even looked at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a user id.
    fn named_user(&self, meta: &mut Map<String, Value>) -> Result<Option<UserId>, Error> {
        let in_meta = ["user_id", "user_email"].map(|name| (name, meta.remove(name)));
        if self.principal()?.role() < Role::Admin {
            return Ok(None);
        }
        for (name, value) in in_meta {
            match value {
                None | Some(Value::Null) => {}
                Some(Value::String(user)) => return fields::user_id(&user).map(Some),
                Some(_) => return Err(fields::not_text(name)),
            }
        }
        let in_query = self.query.text("user_id").or_else(|| self.query.text("user_email"));
        in_query.map(fields::user_id).transpose()
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl Server {
    pub fn new(app: Arc<App>, public_url: &str, limits: Limits, audit: Arc<AuditLog>) -> Arc<Self> {
        let requests = Arc::new(Semaphore::new(limits.requests_max));
        let public_url = public_url.trim_end_matches('/').to_owned();
        let penalties = Penalties::default();
        let shares = Shares::new(limits.requests_per_principal_max, limits.requests_per_second_max);
        Arc::new(Self { app, public_url, limits, requests, audit, penalties, shares })
    }

    /// Answers one request. Never fails: every failure is an answer.
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Result<Response<Body>, Infallible> {
        connection.mark_speaking();
        let began = Instant::now();
        let id = format!("{:016x}", random::nonce());
        let is_http_1 = request.version() < Version::HTTP_2;
        let (method, path) = (request.method().clone(), logged(request.uri().path()).to_owned());
        let speaks_draft = v1::resumable::is_spoken(&path, request.headers());
        let body_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let mut trace = Trace::default();
        let peer = connection.peer.ip();
        let client = client::address(peer, request.headers(), &self.limits.trusted_proxies);
        let from = *client.as_ref().unwrap_or(&peer);
        let handling = self.handle(request, &body_read, client, &mut trace);
        let handled = AssertUnwindSafe(handling).catch_unwind().await;
        let outcome =
            handled.unwrap_or_else(|_| Err(Error::Internal("a handler panicked".into()).into()));
        let why = outcome.as_ref().err().and_then(audit::reason);
        if let Err(Refusal::App(Error::Unauthenticated(_))) = &outcome {
            self.penalties.pay(from).await;
        }
        let mut response = outcome.unwrap_or_else(|refusal| respond::problem(&refusal, &id));
        v1::tus::mark(&path, &mut response);
        if speaks_draft {
            v1::resumable::mark(&self.app.policy, &mut response);
        }
        if method == Method::HEAD {
            response = without_body(response);
        }
        if is_http_1 && !body_read.load(Ordering::Relaxed) {
            // What is left of the body is not worth reading; the answer must still arrive.
            connection.linger();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let who = trace.who.as_ref().map(ToString::to_string);
        let facts = Facts { time: self.app.clock.now(), request_id: &id, from, why };
        if let Some(line) = audit::line(trace, &response, facts) {
            self.audit.record(line);
        }
        tracing::info!(
            request_id = id,
            %method,
            path,
            status = response.status().as_u16(),
            principal = who,
            peer = %connection.peer,
            client = (from != peer).then(|| from.to_string()),
            micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "request",
        );
        Ok(response)
    }

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        body_read: &Arc<AtomicBool>,
        from: Result<IpAddr, Error>,
        trace: &mut Trace,
    ) -> Reply {
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Error::Busy)?;
        let (mut head, body) = request.into_parts();
        v1::tus::override_method(&mut head);
        let drained = head.version >= Version::HTTP_2;
        let idle = self.limits.body_idle_timeout;
        let body = RequestBody::new(body, drained, Arc::clone(body_read), idle);
        framing::check(&head)?;
        let endpoint = route::route(&head.method, head.uri.path());
        // Who may not ask is not told what there is.
        let access =
            endpoint.as_ref().map_or_else(|_| route::hidden(head.uri.path()), Endpoint::access);
        trace.event = endpoint.as_ref().ok().and_then(Event::of);
        let principal = self.admit(access, &head, from?, &mut trace.who).await?;
        let endpoint = endpoint?;
        if principal.as_ref().is_some_and(|principal| !principal.may(endpoint.action())) {
            return Err(Error::OutOfScope("kind of request").into());
        }
        let share = match &principal {
            Some(principal) => {
                let share = self.shares.take(principal, Instant::now());
                Some(share.ok_or(Refusal::TooManyRequests)?)
            }
            None => None,
        };
        let context = Context {
            app: Arc::clone(&self.app),
            server: Arc::clone(self),
            query: Query::parse(head.uri.query())?,
            method: head.method,
            headers: head.headers,
            principal,
        };
        let response = dispatch(endpoint, context, body).await?;
        Ok(response.map(|body| body.holding((permit, share))))
    }

    /// Who is asking, when the endpoint lets them; `who` is told also when it does not.
    async fn admit(
        &self,
        access: Access,
        head: &Parts,
        from: IpAddr,
        who: &mut Option<Principal>,
    ) -> Result<Option<Principal>, Error> {
        let carried = match access {
            Access::Open => return Ok(None),
            // A link is the credential; a browser adds its cookie to it unasked.
            Access::Link => credentials::in_headers(&head.headers),
            Access::Public | Access::Role(_) => credentials::carried(&head.method, &head.headers),
        };
        let principal = self.app.authenticate(&carried, from).await?;
        who.clone_from(&principal);
        match (access, &principal) {
            (Access::Role(needs), Some(principal)) if principal.role() < needs => {
                Err(Error::Denied { needs })
            }
            (Access::Role(_), None) => Err(Error::Unauthenticated("no credential was sent".into())),
            (Access::Public, None) if !self.app.policy.public_read => {
                Err(Error::Unauthenticated("no credential was sent".into()))
            }
            _ => Ok(principal),
        }
    }
}

/// A path without the secret that it may end in.
fn logged(path: &str) -> &str {
    if path.starts_with(route::BATCH) { route::BATCH } else { path }
}

async fn dispatch(endpoint: Endpoint, context: Context, body: RequestBody) -> Reply {
    match endpoint {
        Endpoint::Health => health::health(&context).await,
        Endpoint::KeySet => health::key_set(&context),
        Endpoint::Description => openapi::openapi(&context),
        Endpoint::Docs => openapi::docs(&context),
        Endpoint::GenerateToken => v1::tokens::generate(&context).await,
        Endpoint::Init => v1::uploads::init(&context, body).await,
        Endpoint::EncodedPart => v1::parts::encoded(&context, body).await,
        Endpoint::RawPart { upload, part } => v1::parts::raw(&context, upload, part, body).await,
        Endpoint::UploadStatus { upload } => v1::uploads::status(&context, upload).await,
        Endpoint::AbortUpload { upload } => v1::uploads::abort(&context, upload).await,
        Endpoint::ListUploads => v1::uploads::list(&context).await,
        Endpoint::TusOptions => v1::tus::options(&context),
        Endpoint::TusCreate => v1::tus::create(&context, body).await,
        Endpoint::TusHead { upload } => v1::tus::head(&context, upload).await,
        Endpoint::TusPatch { upload } => v1::tus::patch(&context, upload, body).await,
        Endpoint::TusDelete { upload } => v1::tus::terminate(&context, upload).await,
        Endpoint::Complete => v1::complete::complete(&context, body).await,
        Endpoint::PutContent => v1::resumable::create(&context, body).await,
        Endpoint::ResumableOptions { upload } => Ok(v1::resumable::options(&context, upload)),
        Endpoint::ResumableHead { upload } => v1::resumable::head(&context, upload).await,
        Endpoint::ResumablePatch { upload } => v1::resumable::append(&context, upload, body).await,
        Endpoint::ResumableDelete { upload } => v1::resumable::cancel(&context, upload).await,
        Endpoint::ListFiles => v1::files::list(context).await,
        Endpoint::Metadata { key } => v1::files::metadata(&context, &key).await,
        Endpoint::DeleteFile { key } => v1::files::delete(&context, key).await,
        Endpoint::Content { key } => content::by_key(&context, &key).await,
        Endpoint::Storage { key } => content::public(&context, &key).await,
        Endpoint::SignLink => v1::links::sign(&context).await,
        Endpoint::SignLinkForm => v1::links::sign_form(&context, body).await,
        Endpoint::RedeemLink { key } => content::by_link(&context, key).await,
        Endpoint::MintBatch => v1::batch::mint(&context, body).await,
        Endpoint::FetchBatch { token } => v1::batch::fetch(&context, &token).await,
        Endpoint::Image { id, disposition } => images::image(&context, id, disposition).await,
        Endpoint::Admin(command) => {
            v1::admin::run(&context.app, command, &context.query, body).await
        }
    }
}

/// The answer to a HEAD: the headers of the GET, its length among them (RFC 9110 section 9.3.2).
fn without_body(mut response: Response<Body>) -> Response<Body> {
    let has_none = [StatusCode::NOT_MODIFIED, StatusCode::NO_CONTENT];
    if !has_none.contains(&response.status())
        && let Some(length) = response.body().size_hint().exact()
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.map(|_| Body::empty())
}
