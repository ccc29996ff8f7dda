//! The accept loop: connection limit, TLS, drain.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{
    Server,
    addresses::{Addresses, Arrived},
    client,
    connection::{Connection, LINGER},
    flood::Metered,
    gate::{Gate, Pass},
    metrics, respond,
    settings::Settings,
    socket::Socket,
    streams::Streams,
};
use crate::{app::Error, sys::random};

/// Window of one HTTP/2 stream, so that a transfer holds no more than its buffers.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// Window of all streams of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Connections past the limit that are being told so at a time.
const TURNED_AWAY_MAX: usize = 64;

impl Server {
    /// Serves until `shutdown` resolves, then lets requests in flight finish.
    pub async fn run(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let (connections, addresses) = <(Arc<Gate>, Arc<Addresses>)>::default();
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let (stop, stopping) = watch::channel(false);
        let tracker = TaskTracker::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut shutdown => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others must close first.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(pass) = self.admit_connection(peer.ip(), &connections, &addresses) else {
                // Past this limit too, a closed connection is all the answer there is.
                if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                    tokio::spawn(Arc::clone(&self).turn_away(stream, permit));
                }
                continue;
            };
            metrics::CONNECTIONS.add(1);
            let connecting = Arc::clone(&self).connect(stream, peer, stopping.clone());
            tracker.spawn(async move {
                let _held = (pass, metrics::CONNECTIONS_OPEN.count());
                connecting.await;
            });
        }
        drop(listener);
        tracker.close();
        // Who serves the last connection may be gone already.
        let _ = stop.send(true);
        let drain_timeout = self.settings.load().drain_timeout;
        if timeout(drain_timeout, tracker.wait()).await.is_err() {
            tracing::warn!("requests in flight did not finish in time and were cut");
        }
    }

    /// What a connection holds as long as it is open; `None` past a limit.
    fn admit_connection(
        &self,
        from: IpAddr,
        connections: &Arc<Gate>,
        addresses: &Arc<Addresses>,
    ) -> Option<(Pass, Arrived)> {
        let settings = self.settings.load();
        // A proxy stands for many.
        let is_proxy = client::is_trusted(from, &settings.trusted_proxies);
        let max = if is_proxy { usize::MAX } else { settings.connections_per_address_max };
        let pass = connections.enter(settings.connections_max);
        let arrived = addresses.arrive(from, max);
        if pass.is_none() {
            metrics::LIMITS.of("connections").add(1);
        } else if arrived.is_none() {
            metrics::LIMITS.of("connections_per_address").add(1);
        }
        pass.zip(arrived)
    }

    /// Serves one connection to its end.
    async fn connect(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stopping: watch::Receiver<bool>,
    ) {
        let connection = Connection::new(peer);
        // Small answers go out at once.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream, Arc::clone(&connection), &self.settings.load());
        match self.tls.load_full() {
            None => Box::pin(self.speak(socket, connection, stopping)).await,
            Some(config) => match Box::pin(TlsAcceptor::from(config).accept(socket)).await {
                Ok(stream) => {
                    metrics::TLS_HANDSHAKES.of("done").add(1);
                    Box::pin(self.speak(stream, connection, stopping)).await;
                }
                Err(error) => {
                    metrics::TLS_HANDSHAKES.of("failed").add(1);
                    tracing::debug!(%error, %peer, "TLS handshake failed");
                }
            },
        }
    }

    async fn speak(
        self: Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        connection: Arc<Connection>,
        stopping: watch::Receiver<bool>,
    ) {
        let http = protocol(&self.settings.load());
        let (server, asked) = (Arc::clone(&self), Arc::clone(&connection));
        let service =
            service_fn(move |request| Arc::clone(&server).serve(request, Arc::clone(&asked)));
        // Moved on the heap alone: a connection that waits is to cost little.
        let serving =
            Box::pin(http.serve_connection(TokioIo::new(Metered::new(io)), service).into_owned());
        if let Err(error) = connection.supervise(&self, serving, stopping).await {
            if let Some(limit) = error.downcast_ref().and_then(limit) {
                metrics::LIMITS.of(limit).add(1);
            }
            tracing::debug!(error, peer = %connection.peer, "connection ended");
        }
    }

    /// Past the connection limit: an answer, not silence.
    async fn turn_away(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let turn_away = async {
            match self.tls.load_full() {
                None => say_busy(stream).await,
                Some(config) => {
                    let mut config = ServerConfig::clone(&config);
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    let acceptor = TlsAcceptor::from(Arc::new(config));
                    say_busy(acceptor.accept(stream).await?).await
                }
            }
        };
        // The client may be gone; there is nobody else to tell.
        let _ = timeout(LINGER, turn_away).await;
    }
}

fn protocol(settings: &Settings) -> auto::Builder<Streams> {
    let mut http = auto::Builder::new(Streams { patience: settings.patience() });
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.head_bytes_max as usize)
        .half_close(true);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(settings.header_timeout))
        .keep_alive_timeout(settings.header_timeout)
        .max_concurrent_streams(settings.streams_per_connection_max)
        .max_header_list_size(settings.head_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize);
    http
}

/// The limit past which hyper ended a connection.
fn limit(error: &hyper::Error) -> Option<&'static str> {
    if error.is_parse_too_large() {
        Some("head_bytes")
    } else if error.is_timeout() {
        Some("ping")
    } else {
        None
    }
}

async fn say_busy(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let id = format!("{:016x}", random::nonce());
    let body = respond::document(&Error::Busy.into(), &id);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with a request unread would reset the connection and take the answer along.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}
