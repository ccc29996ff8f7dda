//! What the daemon tells a service manager (`sd_notify(3)`) and inherits from it
//! (`sd_listen_fds(3)`).

use std::{
    env, io,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    time::Duration,
};

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};

/// Where the service manager listens; `None` without one.
pub struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// The manager whose socket `$NOTIFY_SOCKET` names.
    ///
    /// # Errors
    /// When it does not name a socket address.
    pub fn find() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(Self(None)) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not block the daemon.
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Sends assignments, one a line.
    pub fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.0
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::warn!(%error, "the service manager could not be notified");
        }
    }

    /// Tells the manager that the configuration is being read again, until the next `READY=1`.
    pub fn tell_reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// How long the daemon may be silent before the manager kills it, if the manager watches it.
    pub fn watchdog(&self) -> Option<Duration> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_meant);
        self.0.as_ref().and(micros.map(Duration::from_micros))
    }
}

/// A listening socket inherited from the service manager.
pub struct Inherited {
    /// The name of its unit, or what `FileDescriptorName=` sets.
    pub name: String,
    pub socket: Socket,
}

pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All listening sockets that were inherited.
///
/// # Errors
/// When one of them is neither a TCP nor a Unix stream socket.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut inherited = Vec::with_capacity(sockets.len());
    for at in 0..sockets.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let socket = match sockets.take_unix_listener(at) {
            Ok(socket) => socket.map(Socket::Unix),
            Err(_) => sockets.take_tcp_listener(at)?.map(Socket::Tcp),
        };
        inherited.extend(socket.map(|socket| Inherited { name, socket }));
    }
    Ok(inherited)
}
