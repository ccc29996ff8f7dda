//! The operator's door: a Unix socket in the data directory, which only its owner can open.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /gc` | what was collected |
//! | `POST /scrub` | what was read again |
//! | `POST /fsck` | what does not agree in the index |
//! | `POST /backup?dir=` | what was copied |
//! | `PUT /import?file=`, `POST /import/known` | what is listed now, see `import` |
//! | `POST /log?filter=` | what is logged from now on; without `filter`, what is logged |
//! | `GET /metrics` | as on the port, see [`super::telemetry::metrics`] |
//! | `/v1/admin/…` | as on the port, see `v1/admin` |
//!
//! Only root and the daemon's own user are let in, whatever the mode of the socket says.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::HeaderValue,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

use super::{
    REQUEST_ID, Reply,
    connection::patience::Patience,
    import,
    message::{
        body::{Body, RequestBody},
        json::reply,
        query::Query,
        respond,
    },
    route,
    telemetry::{
        audit::{self, Event, Facts},
        metrics,
    },
    v1::admin as commands,
};
use crate::{
    app::{App, Error},
    sys::{audit::AuditLog, log, random},
};

/// A command's body comes as a whole or not at all; content comes as fast as a disk reads it.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const CONTENT_IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// What the commands work on: a store and where it lies.
pub struct Door {
    pub app: Arc<App>,
    pub data_dir: PathBuf,
    pub audit: Arc<AuditLog>,
}

impl Door {
    /// Answers until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_operator(&stream) => {
                    drop(tokio::spawn(Arc::clone(&self).answer_all(stream)));
                }
                Ok(_) => tracing::warn!("another user was turned away from the admin socket"),
                Err(error) => {
                    tracing::warn!(%error, "an operator's connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Answers the requests of one connection.
    pub async fn answer_all(self: Arc<Self>, stream: UnixStream) {
        let uid =
            stream.peer_cred().map_or_else(|_| "unknown".into(), |peer| peer.uid().to_string());
        let service = service_fn(move |request| {
            let (door, uid) = (Arc::clone(&self), uid.clone());
            async move { Ok::<_, Infallible>(door.answer(request, &uid).await) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Who hangs up needs no answer.
        let _ = serving.await;
    }

    async fn answer(&self, request: Request<Incoming>, uid: &str) -> Response<Body> {
        let id = format!("{:016x}", random::nonce());
        let path = request.uri().path();
        let mut event = None;
        let answered = match path.strip_prefix(commands::PREFIX).map(str::to_owned) {
            Some(path) => self.command(&path, request, &mut event).await,
            None if path == "/import" || path == "/import/known" => {
                self.import(request, &mut event).await
            }
            None if path == "/metrics" => Ok(metrics::page(&self.app).await),
            None => run(&self.app, &self.data_dir, &request).await,
        };
        let mut answer = answered.unwrap_or_else(|refusal| respond::problem(&refusal, &id));
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        let time = self.app.now();
        let facts = Facts { time, request_id: &id, from: Ipv4Addr::LOCALHOST.into(), why: None };
        if let Some(line) = audit::operator_line(event.as_ref(), uid, &answer, facts) {
            self.audit.record(line);
        }
        answer
    }

    async fn command(
        &self,
        path: &str,
        request: Request<Incoming>,
        event: &mut Option<Event>,
    ) -> Reply {
        let (head, body) = request.into_parts();
        let path = route::decode(path)?;
        let command = commands::route(&head.method, &path)?;
        *event = Event::of_command(&command);
        let query = Query::parse(head.uri.query())?;
        let body =
            RequestBody::new(body, false, Arc::default(), Patience::new(BODY_IDLE_TIMEOUT, 0));
        commands::run(&self.app, command, &query, body).await
    }

    async fn import(&self, request: Request<Incoming>, event: &mut Option<Event>) -> Reply {
        let (head, body) = request.into_parts();
        let query = Query::parse(head.uri.query())?;
        let body =
            RequestBody::new(body, false, Arc::default(), Patience::new(CONTENT_IDLE_TIMEOUT, 0));
        match (head.method.as_str(), head.uri.path()) {
            ("POST", "/import/known") => import::known(&self.app, body).await,
            ("PUT", "/import") => {
                *event = Some(Event::imported());
                import::file(&self.app, &query, body).await
            }
            _ => Err(Error::NotFound("command").into()),
        }
    }
}

/// Asks the kernel who connected (`SO_PEERCRED`).
fn is_operator(stream: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn run(app: &Arc<App>, data_dir: &Path, request: &Request<Incoming>) -> Reply {
    if *request.method() != Method::POST {
        return Err(Error::NotFound("command").into());
    }
    let query = Query::parse(request.uri().query())?;
    let report: Value = match request.uri().path() {
        "/gc" => {
            let done = app.gc().await?;
            json!({
                "sessions": done.sessions, "tokens": done.tokens, "blobs": done.blobs,
                "files": done.files, "packs": done.packs, "moved_bytes": done.moved_bytes,
                "freed_bytes": done.freed_bytes,
            })
        }
        "/scrub" => {
            let done = app.scrub_now(u64::MAX).await?;
            json!({
                "blobs": done.blobs, "bytes": done.bytes, "damaged": done.damaged,
                "unreadable": done.unreadable,
            })
        }
        "/fsck" => json!({ "findings": app.check_index().await? }),
        "/backup" => {
            let missing = || Error::invalid("invalid_dir", "dir names an absolute directory.");
            let dir = query.text("dir").map(PathBuf::from).filter(|dir| dir.is_absolute());
            let done = app.backup(data_dir, &dir.ok_or_else(missing)?).await?;
            json!({
                "files": done.files, "kept": done.kept, "unreadable": done.unreadable,
                "copied_bytes": done.bytes,
            })
        }
        "/log" => {
            if let Some(filter) = query.text("filter") {
                log::change(filter).map_err(|why| Error::invalid("invalid_filter", why))?;
                tracing::info!(filter, "what is logged was changed");
            }
            json!({ "filter": log::filter() })
        }
        _ => return Err(Error::NotFound("command").into()),
    };
    reply(StatusCode::OK, &report)
}
