//! A socket that clients come in by, and what they find there.

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
    /// Without TLS: whoever gets there is on this machine, and a proxy most likely.
    Unix(UnixListener),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    Everything,
    /// What a monitor asks, without a credential: `/metrics` and health.
    Watching,
}

pub type Stream = Either<TcpStream, UnixStream>;

/// What the system takes of an answer beyond what is on its way. Without a bound it takes
/// megabytes, and more only when a third of them was taken: who takes them slowly would seem to
/// take nothing. Half of it has to see a fast client through until we are woken.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Who comes by a Unix socket has no address; what the configuration says of this one holds for it.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Listener {
    /// Where everything is served, unless that is no address of a network.
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
                // Small answers go out at once.
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
