//! A connection's socket, which gives up on slow clients and can linger.
//!
//! It gives up on a client that does not get to the end of a request's head. hyper's own timeout is
//! not enough: it counts the wait for a request as a part of its head, and covers neither the first
//! head while HTTP/1 is told from HTTP/2, nor a TLS handshake. It also gives up on a client that
//! does not take what is sent.
//!
//! When told to linger, it reads on for a while after it was shut down for writing. Closing it with
//! bytes unread would reset the connection, and the client would lose the answer that told it to
//! stop. Bytes that come after the close would do the same: an HTTP/2 client acknowledges an answer
//! while the kernel may still hold the end of that answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Sleep, sleep},
};

use crate::http::{
    connection::{Connection, LINGER, LINGER_MAX, listener::Stream, patience::Patience},
    settings::Settings,
    telemetry::metrics,
};

/// See the module.
pub struct Socket {
    stream: Stream,
    connection: Arc<Connection>,
    /// Deadline of a request's head: for the first one from the start of the connection, on HTTP/1
    /// for each later one from its first byte.
    head: Pin<Box<Sleep>>,
    /// How many requests had come before the head that is timed now; `None` while none is timed.
    timed: Option<u64>,
    header_timeout: Duration,
    /// The patience with a client that does not take what is sent.
    taking: Patience,
    /// Since when the client takes nothing, and until when it may.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
    shut: bool,
    /// Until when the client may close too, and the time past which it is not waited for, whatever
    /// it sends.
    deadline: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl Socket {
    /// Boxed, because every future around it holds it: a connection that waits must cost little
    /// memory.
    pub fn new(stream: Stream, connection: Arc<Connection>, settings: &Settings) -> Box<Self> {
        Box::new(Self {
            stream,
            connection,
            head: Box::pin(sleep(settings.header_timeout)),
            timed: Some(0),
            header_timeout: settings.header_timeout,
            taking: settings.patience(),
            stalled: None,
            shut: false,
            deadline: None,
        })
    }

    /// Passes the outcome of a write on, but gives up on a client that takes too little for too
    /// long.
    fn progress(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = &written {
            let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            let bytes = *outcome.as_ref().unwrap_or(&0) as u64;
            self.taking.waited(waited, bytes);
            self.connection.sent(bytes);
            return written;
        }
        self.connection.stalls();
        let left = self.taking.left();
        let stalled = || (Instant::now(), Box::pin(sleep(left)));
        let (_, end) = self.stalled.get_or_insert_with(stalled);
        ready!(end.as_mut().poll(context));
        metrics::LIMITS.of(self.taking.answer_limit()).add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let requests = this.connection.requests();
        this.timed = this.timed.filter(|before| *before == requests);
        if this.timed.is_some() && this.head.as_mut().poll(context).is_ready() {
            let limit = if requests == 0 { "first_request" } else { "head_time" };
            metrics::LIMITS.of(limit).add(1);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let has_come = buffer.filled().len() > before;
        if has_come && this.timed.is_none() && this.connection.awaits_head() {
            this.timed = Some(requests);
            this.head.as_mut().reset(time::Instant::now() + this.header_timeout);
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
        if !this.connection.lingers() {
            return Poll::Ready(Ok(()));
        }
        let speaks_http_1 = this.connection.speaks_http_1();
        let begun = || (Box::pin(sleep(LINGER)), Instant::now() + LINGER_MAX);
        let (deadline, until) = this.deadline.get_or_insert_with(begun);
        let mut scratch = [0; 16 << 10];
        while deadline.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    // An HTTP/2 client says that it takes its answers. An HTTP/1 client only sends
                    // what nobody reads.
                    if !speaks_http_1 {
                        deadline.as_mut().reset((Instant::now() + LINGER).min(*until).into());
                    }
                }
                // The client has closed too, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
