//! `gc`, `scrub`, `fsck`, `backup` and `restore`: asked of the running daemon, or done here when
//! there is none.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
};

use super::{Failures, serve};
use crate::{
    config::Config,
    http::admin,
    meta::sled::SledMetadata,
    sys::{data_dir, durable},
};

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

fn runtime() -> Result<Runtime, Failures> {
    Builder::new_multi_thread().enable_all().build().map_err(Failures::at("runtime"))
}

/// Runs a command and prints its report; what it found is a failure.
pub fn run(config: &Config, command: &str) -> Result<(), Failures> {
    let report = runtime()?.block_on(async {
        let dir = &config.data_dir;
        if let Ok(stream) = UnixStream::connect(socket(dir)).await {
            return ask(stream, command).await;
        }
        // No daemon: its work is done here.
        let _lock = data_dir::lock(dir).map_err(Failures::at("data directory"))?;
        let app = serve::open(config)?;
        let (ours, theirs) = UnixStream::pair().map_err(Failures::at("admin socket"))?;
        let door = admin::Door { app: Arc::clone(&app), data_dir: dir.clone() };
        let serving = tokio::spawn(Arc::new(door).answer_all(theirs));
        let report = ask(ours, command).await;
        serving.abort();
        app.finish().await;
        report
    })?;
    println!("{report:#}");
    let found = ["damaged", "unreadable"].iter().any(|name| report[name].as_u64() > Some(0));
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    if found || findings > 0 {
        return Err(Failures(vec![format!("{command}: something is wrong, see above")]));
    }
    Ok(())
}

async fn ask(stream: UnixStream, command: &str) -> Result<Value, Failures> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Failures::at("admin socket"))?;
    tokio::spawn(connection);
    let request = Request::post(format!("/{command}")).header("host", "admin");
    let request = request.body(Empty::<Bytes>::new()).map_err(Failures::at("admin socket"))?;
    let response = sender.send_request(request).await.map_err(Failures::at("admin socket"))?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map_err(Failures::at("admin socket"))?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).map_err(Failures::at("admin socket"))?;
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let detail = answer["detail"].as_str().unwrap_or("no reason was given").to_owned();
    Err(Failures(vec![format!("{command}: {detail} (see the daemon's log)")]))
}

/// Takes a backup into `to`; an earlier one there is brought up to date.
pub fn backup(config: &Config, to: &Path) -> Result<(), Failures> {
    fs::create_dir_all(to).map_err(Failures::at("backup"))?;
    let to = fs::canonicalize(to).map_err(Failures::at("backup"))?;
    let bytes = to.to_str().ok_or_else(|| Failures(vec!["backup: a UTF-8 path".into()]))?;
    run(config, &format!("backup?dir={}", utf8_percent_encode(bytes, NON_ALPHANUMERIC)))
}

/// Makes a data directory of a backup, and reads all of it again.
pub fn restore(config: &Config, from: &Path) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let failed = || Failures::at("restore");
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let why = format!("restore: {} is not empty", dir.display());
        return Err(Failures(vec![why]));
    }
    if !from.join("FORMAT").exists() {
        let why = format!("restore: {} is no whole backup", from.display());
        return Err(Failures(vec![why]));
    }
    fs::create_dir_all(dir).map_err(failed())?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed())?;
    for name in ["journal", "blobs", "staging", "keys"] {
        copy(&from.join(name), &dir.join(name)).map_err(failed())?;
    }
    durable::write_file(&dir.join("FORMAT"), &fs::read(from.join("FORMAT")).map_err(failed())?)
        .map_err(failed())?;
    run(config, "fsck")?;
    run(config, "scrub")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    durable::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            let mut file = durable::create_new(&target)?;
            io::copy(&mut fs::File::open(source)?, &mut file)?;
            file.sync_all()?;
        }
    }
    durable::sync_dir(to)
}

/// `fsck --rebuild`: makes `meta/` anew from the journal, at any loss, which is told.
pub fn rebuild(config: &Config) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let lock = data_dir::lock(dir).map_err(Failures::at("data directory"))?;
    let missing = SledMetadata::rebuild(dir, config.meta_cache_bytes);
    drop(lock);
    match missing.map_err(Failures::at("fsck"))? {
        None => println!("The index was made anew from the journal; nothing is missing."),
        Some(missing) => return Err(Failures(vec![format!("fsck: rebuilt, but {missing}")])),
    }
    run(config, "fsck")
}
