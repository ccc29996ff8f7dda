//! The accept loops: connection limit, TLS, drain.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::{
    app::Error,
    http::{
        Server,
        caller::{client, penalty::network},
        connection::{
            Connection, LINGER,
            flood::Metered,
            gate::{Gate, Pass},
            listener::{Listener, Stream},
            socket::Socket,
            streams::Streams,
        },
        message::respond,
        settings::Settings,
        telemetry::metrics,
    },
    sys::{
        counts::{Counts, Held},
        random,
    },
};

/// Flow-control window of one HTTP/2 stream, so that a transfer holds no more than its buffers.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// Flow-control window of all streams of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Most connections past the limit that are answered with 503 at a time.
const TURNED_AWAY_MAX: usize = 64;

/// What the connections of all listeners share.
struct Hall {
    connections: Arc<Gate>,
    /// Open connections by address, so that one client cannot hold all of them; for IPv6, by the
    /// 64-bit prefix that one client has.
    addresses: Arc<Counts<IpAddr>>,
    turned_away: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    tracker: TaskTracker,
}

impl Server {
    /// Serves until `shutdown` resolves, then lets requests in flight finish.
    pub async fn run(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let (stop, stopping) = watch::channel(false);
        let hall = Hall {
            connections: Arc::default(),
            addresses: Arc::default(),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            stopping,
            tracker: TaskTracker::new(),
        };
        let accepting =
            listeners.into_iter().map(|listener| Arc::clone(&self).accept(listener, &hall));
        tokio::select! {
            // The accept loops never end. Dropping them closes their sockets.
            _ = join_all(accepting) => {}
            () = shutdown => {}
        }
        hall.tracker.close();
        // Cannot fail: `hall` holds a receiver.
        let _ = stop.send(true);
        let drain_timeout = self.settings.load().drain_timeout;
        if timeout(drain_timeout, hall.tracker.wait()).await.is_err() {
            tracing::warn!("requests in flight did not finish in time and were cut");
        }
    }

    /// Accepts connections on one socket.
    async fn accept(self: Arc<Self>, listener: Listener, hall: &Hall) {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely out of file descriptors: other connections must close first.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(pass) = self.admit_connection(peer.ip(), hall) else {
                // Past `TURNED_AWAY_MAX`, the connection is closed without an answer.
                if let Ok(permit) = Arc::clone(&hall.turned_away).try_acquire_owned() {
                    tokio::spawn(Arc::clone(&self).turn_away(stream, permit));
                }
                continue;
            };
            metrics::CONNECTIONS.add(1);
            let connection = Connection::new(peer, listener.serves);
            let connecting = Arc::clone(&self).connect(stream, connection, hall.stopping.clone());
            hall.tracker.spawn(async move {
                let _held = (pass, metrics::CONNECTIONS_OPEN.count());
                connecting.await;
            });
        }
    }

    /// The TLS configuration for this stream; `None` on a Unix socket and without TLS.
    fn tls_on(&self, stream: &Stream) -> Option<Arc<ServerConfig>> {
        matches!(stream, Stream::Left(_)).then(|| self.tls.load_full()).flatten()
    }

    /// Counts a connection for as long as the result lives; `None` past a limit.
    fn admit_connection(&self, from: IpAddr, hall: &Hall) -> Option<(Pass, Held<IpAddr>)> {
        let settings = self.settings.load();
        // A proxy stands for many clients.
        let is_proxy = client::is_trusted(from, &settings.trusted_proxies);
        let max = if is_proxy { usize::MAX } else { settings.connections_per_address_max };
        let pass = hall.connections.enter(settings.connections_max);
        let arrived = hall.addresses.enter(network(from), max);
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
        stream: Stream,
        connection: Arc<Connection>,
        stopping: watch::Receiver<bool>,
    ) {
        let tls = self.tls_on(&stream);
        let socket = Socket::new(stream, Arc::clone(&connection), &self.settings.load());
        match tls {
            None => Box::pin(self.speak(socket, connection, stopping)).await,
            Some(config) => match Box::pin(TlsAcceptor::from(config).accept(socket)).await {
                Ok(stream) => {
                    metrics::TLS_HANDSHAKES.of("done").add(1);
                    Box::pin(self.speak(stream, connection, stopping)).await;
                }
                Err(error) => {
                    metrics::TLS_HANDSHAKES.of("failed").add(1);
                    tracing::debug!(%error, peer = %connection.peer, "TLS handshake failed");
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
        // Boxed, so that a connection that waits costs little memory.
        let serving =
            Box::pin(http.serve_connection(TokioIo::new(Metered::new(io)), service).into_owned());
        if let Err(error) = connection.supervise(&self, serving, stopping).await {
            if let Some(limit) = error.downcast_ref().and_then(limit) {
                metrics::LIMITS.of(limit).add(1);
            }
            tracing::debug!(error, peer = %connection.peer, "connection ended");
        }
    }

    /// Answers a connection past the limit with 503 `busy`.
    async fn turn_away(self: Arc<Self>, stream: Stream, _permit: OwnedSemaphorePermit) {
        let turn_away = async {
            match self.tls_on(&stream) {
                None => say_busy(stream).await,
                Some(config) => {
                    let mut config = ServerConfig::clone(&config);
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    let acceptor = TlsAcceptor::from(Arc::new(config));
                    say_busy(acceptor.accept(stream).await?).await
                }
            }
        };
        // The client may be gone; nobody else needs to know.
        let _ = timeout(LINGER, turn_away).await;
    }
}

/// Configures HTTP/1 and HTTP/2. It sends no HTTP/2 pings of its own: every wait has a timeout, and
/// a ping behind an answer that is taken slowly would come too late.
fn protocol(settings: &Settings) -> auto::Builder<Streams> {
    let mut http = auto::Builder::new(Streams { patience: settings.patience() });
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(settings.head_bytes_max as usize)
        .half_close(true);
    http.http2()
        .max_concurrent_streams(settings.streams_per_connection_max)
        .max_header_list_size(settings.head_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize);
    http
}

/// The limit past which hyper ended a connection.
fn limit(error: &hyper::Error) -> Option<&'static str> {
    error.is_parse_too_large().then_some("head_bytes")
}

async fn say_busy(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let id = random::request_id();
    let body = respond::document(&Error::Busy.into(), &id);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with a request unread would reset the connection, and the client would lose the
    // answer.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}
