//! Commands on data: asked of the running daemon, or done here when there is none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Builder,
};

use super::{Failures, serve};
use crate::{config::Config, http::admin, sys::data_dir};

/// The socket of a data directory.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// Binds the socket anew; whoever has the directory's lock may.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(data_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// A value as it stands in a path or a query.
pub fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// Sends one request through the operator's door and answers what came back.
pub fn call(config: &Config, method: &Method, path: &str, body: &Value) -> Result<Value, Failures> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Failures::at("runtime"))?.block_on(async {
        let dir = &config.data_dir;
        if let Ok(stream) = UnixStream::connect(socket(dir)).await {
            return ask(stream, method, path, body).await;
        }
        // No daemon: its work is done here.
        let _lock = data_dir::lock(dir).map_err(Failures::at("data directory"))?;
        let app = serve::open(config)?;
        let (ours, theirs) = UnixStream::pair().map_err(Failures::at("admin socket"))?;
        let audit = serve::open_audit(config)?;
        let door = admin::Door { app: Arc::clone(&app), data_dir: dir.clone(), audit };
        let serving = tokio::spawn(Arc::new(door).answer_all(theirs));
        let answer = ask(ours, method, path, body).await;
        serving.abort();
        app.finish().await;
        answer
    })
}

async fn ask(
    stream: UnixStream,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<Value, Failures> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Failures::at("admin socket"))?;
    tokio::spawn(connection);
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("host", "admin");
    let request = request.body(Full::new(body)).map_err(Failures::at("admin socket"))?;
    let response = sender.send_request(request).await.map_err(Failures::at("admin socket"))?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map_err(Failures::at("admin socket"))?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).map_err(Failures::at("admin socket"))?;
    if status.is_success() {
        return Ok(answer);
    }
    let detail = answer["detail"].as_str().unwrap_or("no reason was given").to_owned();
    let log = if status.is_server_error() { " (see the daemon's log)" } else { "" };
    Err(Failures(vec![format!("{detail}{log}")]))
}
