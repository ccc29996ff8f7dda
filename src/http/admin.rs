//! The operator's door: a Unix socket in the data directory, which only its owner can open.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /gc` | what was collected |
//! | `POST /scrub` | what was read again |
//! | `POST /fsck` | what does not agree in the index |
//! | `POST /backup?dir=` | what was copied |

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

use super::{Reply, body::Body, json::reply, query::Query, respond};
use crate::{
    app::{App, Error},
    sys::random,
};

/// What the commands work on: a store and where it lies.
pub struct Door {
    pub app: Arc<App>,
    pub data_dir: PathBuf,
}

impl Door {
    /// Answers until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&self).answer_all(stream))),
                Err(error) => {
                    tracing::warn!(%error, "an operator's connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Answers the requests of one connection.
    pub async fn answer_all(self: Arc<Self>, stream: UnixStream) {
        let service = service_fn(move |request| {
            let door = Arc::clone(&self);
            async move { Ok::<_, Infallible>(door.answer(&request).await) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Who hangs up needs no answer.
        let _ = serving.await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let id = format!("{:016x}", random::nonce());
        let answered = run(&self.app, &self.data_dir, request).await;
        answered.unwrap_or_else(|refusal| respond::problem(&refusal, &id))
    }
}

async fn run(app: &App, data_dir: &Path, request: &Request<Incoming>) -> Reply {
    if *request.method() != Method::POST {
        return Err(Error::NotFound("command").into());
    }
    let query = Query::parse(request.uri().query())?;
    let report: Value = match request.uri().path() {
        "/gc" => {
            let done = app.gc().await?;
            json!({
                "sessions": done.sessions, "blobs": done.blobs, "files": done.files,
                "packs": done.packs, "moved_bytes": done.moved_bytes,
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
        "/fsck" => json!({ "findings": app.meta.check().await.map_err(Error::from)? }),
        "/backup" => {
            let missing = || Error::invalid("invalid_dir", "dir names an absolute directory.");
            let dir = query.text("dir").map(PathBuf::from).filter(|dir| dir.is_absolute());
            let done = app.backup(data_dir, &dir.ok_or_else(missing)?).await?;
            json!({ "files": done.files, "kept": done.kept, "copied_bytes": done.bytes })
        }
        _ => return Err(Error::NotFound("command").into()),
    };
    reply(StatusCode::OK, &report)
}
