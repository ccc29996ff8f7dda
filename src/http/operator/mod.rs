//! The operator's door: a Unix socket in the data directory, which only its owner can open.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /gc` | what was collected |
//! | `POST /scrub` | what was read again |
//! | `POST /fsck` | what does not agree in the index |
//! | `POST /backup?dir=` | what was copied |
//! | `PUT /import?file=`, `POST /import/known` | what is listed now, see [`import`] |
//! | `POST /log?filter=` | what is logged from now on; without `filter`, what is logged |
//! | `GET /metrics` | as on the port, see [`super::telemetry::metrics`] |
//! | `/v1/admin/…` | as on the port, see `v1/admin` |
//!
//! Only root and the daemon's own user are admitted, whatever the mode of the socket says. Their
//! commands are recorded in the audit log like the requests of clients.

mod command;
pub mod import;

use std::{convert::Infallible, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use hyper::{
    Request, Response, body::Incoming, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

pub use self::command::{Command, backup_dir};
use super::{
    REQUEST_ID, Reply,
    connection::patience::Patience,
    message::{
        body::{Body, RequestBody},
        query::Query,
        respond,
    },
    telemetry::audit::{Event, Told, Trace},
};
use crate::{
    app::App,
    sys::{audit::AuditLog, random},
};

/// Longest pause in the body of a command, which comes as a whole or not at all, and in content,
/// which comes as fast as a disk reads it.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const CONTENT_IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// What the commands work on: the application, its data directory and the audit log.
pub struct Door {
    pub app: Arc<App>,
    pub data_dir: PathBuf,
    pub audit: Arc<AuditLog>,
}

impl Door {
    /// Accepts and answers connections until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_operator(&stream) => {
                    drop(tokio::spawn(Arc::clone(&self).answer_all(stream)));
                }
                Ok(_) => tracing::warn!("another user was turned away from the admin socket"),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket was not accepted");
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
        // A client that hangs up needs no answer.
        let _ = serving.await;
    }

    async fn answer(&self, request: Request<Incoming>, uid: &str) -> Response<Body> {
        let request_id = random::request_id();
        let mut told = Told::new(&self.app, &self.audit, &request_id, Ipv4Addr::LOCALHOST.into());
        told.trace().operator = Some(uid.to_owned());
        let answered = self.run(request, told.trace()).await;
        let mut answer = answered.unwrap_or_else(|refusal| respond::problem(&refusal, &request_id));
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        told.tell(&answer, None);
        answer
    }

    async fn run(&self, request: Request<Incoming>, trace: &mut Trace) -> Reply {
        let (head, body) = request.into_parts();
        let command = command::route(&head.method, head.uri.path())?;
        let query = Query::parse(head.uri.query());
        trace.event = Event::of_operator(&command, query.as_ref().ok());
        trace.is_admitted = true;
        let query = query?;
        let is_import = matches!(command, Command::Import | Command::Known);
        let patience = if is_import { CONTENT_IDLE_TIMEOUT } else { BODY_IDLE_TIMEOUT };
        let body = RequestBody::new(body, false, Arc::default(), Patience::new(patience, 0));
        command::run(self, command, &query, body).await
    }
}

/// Asks the kernel who connected (`SO_PEERCRED`).
fn is_operator(stream: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}
