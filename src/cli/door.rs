//! Commands on data: sent to the running daemon, or carried out by this process if there is none.

use std::{
    fmt::Display,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
};

use super::{Failures, failure, serve};
use crate::{
    config::Config,
    http::operator,
    sys::{data_dir, durable, log, owner},
};

/// The name of the socket in its data directory.
pub const SOCKET: &str = "admin.sock";
/// The longest path that `sun_path` holds, without the NUL at its end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// The admin socket of a data directory, by a path that is short enough for a socket address.
pub struct Socket {
    path: PathBuf,
    /// The open directory that `path` refers to, if the directory's own path is too long.
    _dir: Option<File>,
}

impl Socket {
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(data_dir)?;
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(SOCKET);
        Ok(Self { path, _dir: Some(dir) })
    }

    /// Binds the socket anew. The caller must hold the directory's lock.
    pub fn bind(&self) -> io::Result<UnixListener> {
        durable::remove_file(&self.path)?;
        let listener = UnixListener::bind(&self.path)?;
        // The socket is created with all permissions that the umask leaves. Until they are set
        // here, those of the directory keep others out.
        fs::set_permissions(&self.path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Whether a daemon listens on the socket.
    ///
    /// # Errors
    /// Why this cannot be determined, or that nobody listens.
    pub fn try_connect(&self) -> io::Result<()> {
        StdStream::connect(&self.path).map(drop)
    }
}

/// A value, percent-encoded for a path or a query.
pub fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// Sends one request through the operator's door and answers the response.
pub fn call(config: &Config, method: &Method, path: &str, body: &Value) -> Result<Value, Failures> {
    let door = Door::open(config)?;
    runtime()?.block_on(async {
        let asked = async { door.connect().await?.ask(method, path, json(body)).await?.accepted() };
        let answer = asked.await;
        door.close().await;
        answer
    })
}

pub fn runtime() -> Result<Runtime, Failures> {
    Builder::new_multi_thread().enable_all().build().map_err(Failures::at("runtime"))
}

/// Creates the data directory if it is missing, and says so. No other thread may have started yet.
pub fn prepare(config: &Config) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let prepared = owner::assume(dir).and_then(|()| data_dir::prepare(dir));
    if prepared.map_err(Failures::of("data directory", dir))? {
        super::tell(&format!("began a new store in {}", dir.display()));
    }
    Ok(())
}

/// What a command without a daemon logs on stderr: warnings, and what was created or upgraded.
const TOLD_HERE: &str =
    "warn,streamlined::sys::data_dir=info,streamlined::meta::sled::relocate=info";

/// Locks a data directory that no daemon uses, waiting a while for another process to let go of it.
/// No other thread may have started yet.
pub fn take(config: &Config) -> Result<File, Failures> {
    let dir = &config.data_dir;
    let taken = data_dir::patiently(|| take_now(dir));
    taken.map_err(Failures::of("data directory", dir))
}

fn take_now(dir: &Path) -> io::Result<File> {
    // A command that comes here twice has started the log already.
    let _ = log::start(TOLD_HERE);
    owner::assume(dir)?;
    data_dir::check(dir)?;
    data_dir::lock(dir)
}

/// Who carries out a command.
pub enum Door {
    Daemon(Socket),
    /// This process, on the store, which is ours as long as the lock is held.
    Here {
        inner: Arc<operator::Door>,
        _lock: File,
    },
}

impl Door {
    /// Finds the daemon, or opens the store. Waits for another command to finish, and for a daemon
    /// that has the directory but does not listen yet. Blocks. No other thread may have started
    /// yet.
    pub fn open(config: &Config) -> Result<Self, Failures> {
        let dir = &config.data_dir;
        let found = data_dir::patiently(|| match Socket::of(dir) {
            Ok(socket) if socket.try_connect().is_ok() => Ok(Err(socket)),
            _ => take_now(dir).map(Ok),
        });
        let lock = match found.map_err(Failures::of("data directory", dir))? {
            Ok(lock) => lock,
            Err(socket) => return Ok(Self::Daemon(socket)),
        };
        let app = serve::open(config)?;
        let audit = serve::open_audit(config)?;
        let inner = Arc::new(operator::Door { app, data_dir: dir.clone(), audit });
        Ok(Self::Here { inner, _lock: lock })
    }

    pub async fn connect(&self) -> Result<Connection, Failures> {
        let stream = match self {
            Self::Daemon(socket) => UnixStream::connect(&socket.path).await,
            Self::Here { inner, .. } => UnixStream::pair().map(|(ours, theirs)| {
                tokio::spawn(Arc::clone(inner).answer_all(theirs));
                ours
            }),
        };
        let stream = TokioIo::new(stream.map_err(broken)?);
        let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        tokio::spawn(connection);
        Ok(Connection { sender, is_daemon: matches!(self, Self::Daemon(_)) })
    }

    /// Waits for detached work that was begun in this process.
    pub async fn close(&self) {
        if let Self::Here { inner, .. } = self {
            inner.app.finish().await;
        }
    }
}

pub type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// A JSON body; empty for null.
pub fn json(value: &Value) -> RequestBody {
    let bytes = if value.is_null() { Bytes::new() } else { Bytes::from(value.to_string()) };
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn broken(error: impl Display) -> Failures {
    Failures::at("admin socket")(error)
}

/// A connection for one request after the other.
pub struct Connection {
    sender: SendRequest<RequestBody>,
    is_daemon: bool,
}

impl Connection {
    pub async fn ask(
        &mut self,
        method: &Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Answer, Failures> {
        self.sender.ready().await.map_err(broken)?;
        let request = Request::builder().method(method).uri(path).header("host", "admin");
        let request = request.body(body).map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        let body = serde_json::from_slice(&body).map_err(broken)?;
        Ok(Answer { status, body, is_daemon: self.is_daemon })
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    is_daemon: bool,
}

impl Answer {
    /// The response body if the request succeeded; else a failure with the reason.
    pub fn accepted(self) -> Result<Value, Failures> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        // Without a daemon, this process has logged the cause on stderr itself.
        let is_there = self.is_daemon && self.status.is_server_error();
        let log = if is_there { " (see the daemon's log)" } else { "" };
        Err(failure(format!("{}{log}", self.detail())))
    }

    pub fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or("no reason was given")
    }
}
