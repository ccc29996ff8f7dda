//! The HTTP surface on hyper: the only code that knows headers and status codes.
//!
//! A request passes: request id → route → credentials → role → handler → one log line.

pub mod caller;
pub mod connection;
pub mod download;
pub mod endpoint;
mod health;
pub mod message;
pub mod openapi;
pub mod operator;
pub mod route;
pub mod settings;
pub mod telemetry;
mod v1;

use std::{convert::Infallible, net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue},
    http::request::Parts,
};
use rustls::ServerConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::{
    caller::{client, cors, credentials, penalty::Penalties, shares::Shares},
    connection::{Connection, gate::Gate, listener::Serves},
    download::{content, images},
    endpoint::{Access, Endpoint},
    message::{
        body::{Body, Received, RequestBody},
        fields, framing, json,
        query::Query,
        respond,
    },
    settings::Settings,
    telemetry::{
        audit::{self, Event, Told, Trace},
        exchange::Exchange,
        metrics,
    },
};
use crate::{
    app::{App, Error},
    model::{
        name::UserId,
        principal::{Audience, Principal, Role},
    },
    sys::{audit::AuditLog, random},
};

/// The parts of tus that work without a request: the parsers of its headers.
pub mod tus {
    pub use super::v1::tus::{checksum_of, concat, declared_size, metadata};
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The service behind every connection.
pub struct Server {
    app: Arc<App>,
    settings: ArcSwap<Settings>,
    /// The TLS configuration of new connections; without one they are plain.
    tls: ArcSwapOption<ServerConfig>,
    requests: Arc<Gate>,
    audit: Arc<AuditLog>,
    penalties: Penalties,
    shares: Shares,
}

/// What handlers see of a request, apart from its body.
struct Context {
    app: Arc<App>,
    settings: Arc<Settings>,
    method: Method,
    headers: HeaderMap,
    query: Query,
    /// `None` where the endpoint needs no credential, and none was sent or looked at.
    principal: Option<Principal>,
}

/// Why a request was refused: by the HTTP surface, or by a use case.
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

impl Refusal {
    /// Whether the request was refused for lack of a valid credential or link signature, so that it
    /// may be a guess. An expired link is not a guess: its signature was good.
    fn is_of_a_guess(&self) -> bool {
        let Self::App(error) = self else { return false };
        matches!(error, Error::Unauthenticated(_) | Error::LinkRefused { code: "link_invalid", .. })
    }
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::App(error.into())
    }
}

type Reply = Result<Response<Body>, Refusal>;

impl Context {
    /// # Errors
    /// [`Error::Unauthenticated`] when no credential was sent.
    fn principal(&self) -> Result<&Principal, Error> {
        self.principal.as_ref().ok_or_else(nobody)
    }

    /// The user whom a service or an admin names as the subject of the request. The body names the
    /// user by `user_id`, else by `user_email`, for users whose id is their email address. If it
    /// names none, the query does. What other callers name does not count, so it is not even looked
    /// at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a user id.
    fn named_user(
        &self,
        user_id: Option<Value>,
        user_email: Option<Value>,
    ) -> Result<Option<UserId>, Error> {
        if self.principal()?.role() < Role::Admin {
            return Ok(None);
        }
        let named = |name, value| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(user)) => fields::user_id(&user).map(Some),
            // Some callers number their users.
            Some(Value::Number(user)) => {
                let whole = json::Whole::deserialize(user).map_err(|_| fields::not_text(name))?;
                fields::user_id(&whole.0.to_string()).map(Some)
            }
            Some(_) => Err(fields::not_text(name)),
        };
        let (id, email) = (named("user_id", user_id)?, named("user_email", user_email)?);
        match id.or(email) {
            Some(user) => Ok(Some(user)),
            None => self.query.user(),
        }
    }

    /// As [`Context::named_user`], from members of `meta`. They are taken out of it: what remains
    /// is the caller's own.
    fn named_in(&self, meta: &mut Map<String, Value>) -> Result<Option<UserId>, Error> {
        let [user_id, user_email] = ["user_id", "user_email"].map(|name| meta.remove(name));
        self.named_user(user_id, user_email)
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl Server {
    pub fn new(app: Arc<App>, settings: Settings, audit: Arc<AuditLog>) -> Arc<Self> {
        Arc::new(Self {
            app,
            settings: ArcSwap::from_pointee(settings),
            tls: ArcSwapOption::empty(),
            requests: Arc::default(),
            audit,
            penalties: Penalties::default(),
            shares: Shares::default(),
        })
    }

    /// Replaces the settings, for open connections as well.
    pub fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Replaces the TLS configuration, for new connections only.
    pub fn set_tls(&self, config: Option<Arc<ServerConfig>>) {
        self.tls.store(config);
    }

    /// Answers one request. Never fails: every failure is an answer.
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Result<Response<Body>, Infallible> {
        let settings = self.settings.load_full();
        let id = random::request_id();
        let open = connection.open(request.version(), &settings);
        let mut exchange = Box::new(Exchange::new(&request, id, open));
        let is_http_1 = request.version() < Version::HTTP_2;
        let is_head = request.method() == Method::HEAD;
        let marks = cors::Marks::of(&settings.allowed_origins, request.headers());
        // Decoded as the router decodes it. A path that cannot be decoded belongs to no upload
        // protocol.
        let path = route::decode(exchange.path()).unwrap_or_default();
        let speaks_draft = v1::resumable::is_spoken(&path, request.headers());
        let peer = connection.peer.ip();
        let client = client::address(peer, request.headers(), &settings.trusted_proxies);
        let from = *client.as_ref().unwrap_or(&peer);
        let mut told = Told::new(&self.app, &self.audit, &exchange.request_id, from);
        // A connection reserves memory for this future for as long as it is open. The future that
        // handles a request is large, so it is boxed: it exists only as long as its request.
        let handling = Box::pin(self.handle(
            request,
            &exchange.received,
            &settings,
            connection.serves,
            client,
            told.trace(),
        ));
        let handled = AssertUnwindSafe(handling).catch_unwind().await;
        let outcome =
            handled.unwrap_or_else(|_| Err(Error::Internal("a handler panicked".into()).into()));
        let why = outcome.as_ref().err().and_then(audit::reason);
        let is_guess = outcome.as_ref().is_err_and(Refusal::is_of_a_guess);
        let refused = |refusal| respond::problem(&refusal, &exchange.request_id);
        let mut response = outcome.unwrap_or_else(refused);
        v1::tus::mark(&path, &mut response);
        if speaks_draft {
            v1::resumable::mark(&self.app.policy(), &mut response);
        }
        marks.put_on(&mut response);
        if is_head {
            response = without_body(response);
        }
        let is_unread = !exchange.received.ended();
        if is_http_1 && (is_unread || connection.is_used_up(&settings)) {
            // The rest of the body is not worth reading, but the answer must still reach the
            // client.
            if is_unread {
                connection.linger();
            }
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Ok(id) = HeaderValue::from_str(&exchange.request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let Trace { who, route, .. } = told.tell(&response, why.as_deref());
        if is_guess {
            // The audit line was written before this wait, so a client that hangs up is recorded
            // too.
            self.penalties.pay(from).await;
        }
        exchange.answered(&response, route, who.as_ref().map(ToString::to_string), from);
        Ok(response.map(|body| body.told(exchange)))
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        received: &Arc<Received>,
        settings: &Arc<Settings>,
        serves: Serves,
        from: Result<IpAddr, Error>,
        trace: &mut Trace,
    ) -> Reply {
        let permit = self.requests.enter(settings.requests_max).ok_or_else(|| {
            metrics::LIMITS.of("requests").add(1);
            Error::Busy
        })?;
        let (mut head, body) = request.into_parts();
        v1::tus::override_method(&mut head)?;
        let drained = head.version >= Version::HTTP_2;
        let mut body = RequestBody::new(body, drained, Arc::clone(received), settings.patience());
        framing::check(&head)?;
        if let Some(allowed) = cors::preflight(&settings.allowed_origins, &head) {
            return Ok(allowed);
        }
        let endpoint = route::route(&head.method, head.uri.path());
        let metrics = match serves {
            Serves::Everything => settings.metrics,
            Serves::Watching => Audience::Anybody,
        };
        let endpoint = endpoint.and_then(|endpoint| offered(endpoint, serves, metrics));
        // A caller without access is not told which paths and methods exist.
        let access = match &endpoint {
            Ok(Endpoint::Metrics) if metrics == Audience::Anybody => Access::Open,
            Ok(endpoint) => endpoint.access(),
            Err(_) => route::hidden(head.uri.path()),
        };
        trace.route = endpoint.as_ref().ok().map(|endpoint| endpoint.facts().label);
        trace.event = endpoint.as_ref().ok().and_then(Event::of);
        let principal = self.admit(access, &head, &settings.public_url, from?).await?;
        trace.who.clone_from(&principal);
        let endpoint = endpoint?;
        if let Some(principal) = &principal {
            check(principal, &endpoint)?;
        }
        let share = match &principal {
            Some(principal) => {
                body.comes_from(&self.app, principal);
                let share = self.shares.take(
                    principal,
                    Instant::now(),
                    settings.requests_per_principal_max,
                    settings.requests_per_second_max,
                );
                Some(share.ok_or(Refusal::TooManyRequests)?)
            }
            None => None,
        };
        let query = Query::parse(head.uri.query())?;
        let principal = match principal {
            // If the service names a user, whatever it asks for by key or id must belong to that
            // user.
            Some(service @ Principal::Service { .. }) => {
                Some(self.app.naming(&service, query.user()?)?)
            }
            other => other,
        };
        let context = Context {
            app: Arc::clone(&self.app),
            settings: Arc::clone(settings),
            query,
            method: head.method,
            headers: head.headers,
            principal,
        };
        trace.is_admitted = true;
        let response = dispatch(endpoint, context, body).await?;
        Ok(response.map(|body| body.holding((permit, share))))
    }

    /// Authenticates the caller; `None` only where `access` allows a request without a credential.
    async fn admit(
        &self,
        access: Access,
        head: &Parts,
        public_url: &str,
        from: IpAddr,
    ) -> Result<Option<Principal>, Error> {
        let (carried, may_be_nobody) = match access {
            Access::Open => return Ok(None),
            // The link itself is the credential. The cookie is ignored: browsers add it unasked.
            Access::Link => (credentials::in_headers(&head.headers), true),
            Access::Public => {
                (credentials::carried(head, public_url), self.app.policy().public_read)
            }
            Access::Role(_) => (credentials::carried(head, public_url), false),
        };
        let principal = self.app.authenticate(&carried, from).await?;
        if principal.is_none() && !may_be_nobody { Err(nobody()) } else { Ok(principal) }
    }
}

fn nobody() -> Error {
    Error::Unauthenticated("no credential was sent".into())
}

/// Refuses a caller whose role or whose token does not allow this endpoint.
fn check(principal: &Principal, endpoint: &Endpoint) -> Result<(), Error> {
    match endpoint.access() {
        Access::Role(needs) if principal.role() < needs => Err(Error::Denied { needs }),
        _ if !principal.may(endpoint.action()) => Err(Error::OutOfScope("kind of request")),
        _ => Ok(()),
    }
}

/// Hides the endpoints that this socket does not serve, and `/metrics` if nobody gets it on the
/// port.
fn offered(endpoint: Endpoint, serves: Serves, metrics: Audience) -> Result<Endpoint, Refusal> {
    match endpoint {
        Endpoint::Metrics | Endpoint::Health if serves == Serves::Watching => Ok(endpoint),
        _ if serves == Serves::Watching => Err(Refusal::NoRoute),
        Endpoint::Metrics if metrics == Audience::Nobody => Err(Refusal::NoRoute),
        endpoint => Ok(endpoint),
    }
}

async fn dispatch(endpoint: Endpoint, context: Context, body: RequestBody) -> Reply {
    match endpoint {
        Endpoint::Health => health::health(&context).await,
        Endpoint::KeySet => health::key_set(&context),
        Endpoint::Description => openapi::openapi(&context),
        Endpoint::Docs => openapi::docs(&context),
        Endpoint::Metrics => Ok(metrics::page(&context.app).await),
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
