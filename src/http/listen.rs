//! The accept loop: connection permits, header timeout, drain.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};

use super::{Limits, Server, flood::Meter, respond, streams::Streams};
use crate::{app::Error, sys::random};

/// Bytes of a request's head at most; past it: 431.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Streams of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 64;
/// Window of one HTTP/2 stream, so that a transfer holds no more than its buffers.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// Window of all streams of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Connections past the limit that are being told so at a time.
const TURNED_AWAY_MAX: usize = 64;
/// How long a connection that is closed early may keep sending what nobody reads.
const LINGER: Duration = Duration::from_secs(5);

/// What the requests of one connection share.
pub struct Connection {
    pub peer: SocketAddr,
    speaking: AtomicBool,
    lingers: AtomicBool,
}

impl Connection {
    /// A request has come: from here on, the protocol's own time limits hold.
    pub fn mark_speaking(&self) {
        self.speaking.store(true, Ordering::Relaxed);
    }

    /// Closes the connection, when it is closed, only after the client had time to read.
    pub fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// Serves until `shutdown` resolves, then lets requests in flight finish.
    pub async fn run(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let graceful = GracefulShutdown::new();
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
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                // Past this limit too, a closed connection is all the answer there is.
                if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                    tokio::spawn(turn_away(stream, permit));
                }
                continue;
            };
            let watcher = graceful.watcher();
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let _permit = permit;
                let connection = Arc::new(Connection {
                    peer,
                    speaking: AtomicBool::new(false),
                    lingers: AtomicBool::new(false),
                });
                // Small answers go out at once.
                let _ = stream.set_nodelay(true);
                let io = TokioIo::new(Socket::new(stream, Arc::clone(&connection), &server.limits));
                let http = protocol(&server.limits);
                let service = service_fn(move |request| {
                    Arc::clone(&server).serve(request, Arc::clone(&connection))
                });
                let serving = http.serve_connection(io, service).into_owned();
                if let Err(error) = watcher.watch(serving).await {
                    tracing::debug!(error, %peer, "connection ended");
                }
            });
        }
        drop(listener);
        if timeout(self.limits.drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests in flight did not finish in time and were cut");
        }
    }
}

fn protocol(limits: &Limits) -> auto::Builder<Streams> {
    let header_timeout = limits.header_timeout;
    let mut http = auto::Builder::new(Streams { idle: limits.body_idle_timeout });
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES_MAX as usize)
        .half_close(true);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(header_timeout))
        .keep_alive_timeout(header_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_WINDOW_BYTES as usize);
    http
}

/// Past the connection limit: an answer, not silence.
async fn turn_away(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let id = format!("{:016x}", random::nonce());
    let body = respond::document(&Error::Busy.into(), &id);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len(),
    );
    let turn_away = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with a request unread would reset the connection and take the answer along.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // The client may be gone; there is nobody else to tell.
    let _ = timeout(LINGER, turn_away).await;
}

/// A connection's socket. It gives up on a client that does not get to its first request, which
/// hyper does not while it waits to tell HTTP/1 from HTTP/2. And when it must, it reads on for a
/// while after it was shut down for writing: closing it with bytes unread would reset the
/// connection, and the client would lose the answer that told it to stop.
struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// For the first request.
    patience: Pin<Box<Sleep>>,
    /// Longest time in which the client takes nothing of what is sent.
    write_idle: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    meter: Meter,
    shut: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn new(stream: TcpStream, connection: Arc<Connection>, limits: &Limits) -> Self {
        let patience = Box::pin(sleep(limits.header_timeout));
        let write_idle = limits.body_idle_timeout;
        Self {
            stream,
            connection,
            patience,
            write_idle,
            stalled: None,
            meter: Meter::new(),
            shut: false,
            deadline: None,
        }
    }

    /// Passes a write's outcome on, but gives up on a client that takes nothing for too long.
    fn progress(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stalled = None;
            self.meter.sent(*written.as_ref().unwrap_or(&0));
            return Poll::Ready(written);
        }
        let write_idle = self.write_idle;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_idle)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let speaking = self.connection.speaking.load(Ordering::Relaxed);
        if !speaking && self.patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if !self.meter.received(&buffer.filled()[filled..]) {
            let why = "it is flooded with frames that carry nothing";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.shut = true;
        }
        if !this.connection.lingers.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 16 << 10];
        while deadline.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The client has closed too, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
