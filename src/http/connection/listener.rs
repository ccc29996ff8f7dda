//! A listening socket, and what is served on it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// See the module.
pub struct Listener {
    pub socket: Socket,
    pub serves: Serves,
}

pub enum Socket {
    Tcp(TcpListener),
    /// Without TLS: its clients are on this machine, and most likely a proxy.
    Unix(UnixListener),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    Everything,
    /// What a monitor asks for, without a credential: `/metrics` and health.
    Watching,
}

pub type Stream = Either<TcpStream, UnixStream>;

/// `TCP_NOTSENT_LOWAT`: how many bytes of an answer the kernel buffers beyond those in flight.
/// Without this bound, the kernel buffers megabytes, and accepts more only after a third of them
/// was taken: a slow client would seem to take nothing. Half of the bound must last a fast client
/// until the daemon is woken.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// A client of a Unix socket has no address. It is given this one, and what the configuration says
/// about this address holds for it.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Listener {
    /// The network address of a listener that serves everything; `None` for a Unix socket, and for
    /// a listener that serves less.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) if self.serves == Serves::Everything => socket.local_addr().ok(),
            _ => None,
        }
    }

    pub(in crate::http) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                // Small answers are sent at once.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
                Ok((Either::Left(stream), peer))
            }
            Socket::Unix(socket) => {
                socket.accept().await.map(|(stream, _)| (Either::Right(stream), LOCAL))
            }
        }
    }
}
