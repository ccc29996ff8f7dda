//! A connection's socket. It gives up on a client that does not get to its first request, which
//! hyper does not while it waits to tell HTTP/1 from HTTP/2, and a TLS handshake does not at all.
//! And when it must, it reads on for a while after it was shut down for writing: closing it with
//! bytes unread would reset the connection, and the client would lose the answer that told it to
//! stop.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    connection::{Connection, LINGER},
    metrics,
    settings::Settings,
};

/// See the module.
pub struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// For the first request.
    patience: Pin<Box<Sleep>>,
    /// Longest time in which the client takes nothing of what is sent.
    write_idle: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    shut: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub fn new(stream: TcpStream, connection: Arc<Connection>, settings: &Settings) -> Self {
        let patience = Box::pin(sleep(settings.header_timeout));
        let write_idle = settings.body_idle_timeout;
        Self {
            stream,
            connection,
            patience,
            write_idle,
            stalled: None,
            shut: false,
            deadline: None,
        }
    }

    /// Passes a write's outcome on, but gives up on a client that takes nothing for too long.
    fn progress<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write_idle = self.write_idle;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_idle)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => {
                metrics::LIMITS.of("answer_not_taken").add(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
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
        if !self.connection.speaks() && self.patience.as_mut().poll(context).is_ready() {
            metrics::LIMITS.of("first_request").add(1);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
