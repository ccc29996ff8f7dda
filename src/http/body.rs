//! Request bodies as a byte stream with an idle limit; the one response body type.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body as _, Frame, Incoming, SizeHint},
};
use tokio::time::timeout;

use super::streams::Awaited;
use crate::{
    app::{
        Error,
        append::{Arrival, Content as Arrivals},
        checksum::Digest,
    },
    blob::Reader,
};

/// What a client sends.
pub struct RequestBody {
    body: Option<Incoming>,
    /// What is left when nobody reads on is read and thrown away, for a while: some HTTP/2 clients
    /// take a stream that is reset before they sent all for a failure, whatever the answer says.
    /// On HTTP/1.1 the socket lingers instead.
    drained: bool,
    /// Set once the end was reached.
    read: Arc<AtomicBool>,
    idle: Duration,
    trailers: HeaderMap,
}

impl RequestBody {
    pub fn new(body: Incoming, drained: bool, read: Arc<AtomicBool>, idle: Duration) -> Self {
        Self { body: Some(body), drained, read, idle, trailers: HeaderMap::new() }
    }

    /// Bytes still to come, when the client said so.
    pub fn announced(&self) -> Option<u64> {
        self.body.as_ref().and_then(|body| body.size_hint().exact())
    }

    /// The next bytes, `None` at the end. On HTTP/1.1 trailers are the last that is
    /// read of a connection: where they end is what readers of bare line feeds do not agree on.
    ///
    /// # Errors
    /// [`Error::BodyTimeout`] without progress, [`Error::BodyAborted`] when the client is gone.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            let frame = timeout(self.idle, body.frame()).await;
            match frame.map_err(|_| Error::BodyTimeout)? {
                None => {
                    self.read.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Some(Err(_)) => return Err(Error::BodyAborted),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => return Ok(Some(bytes)),
                    Err(frame) => {
                        self.trailers.extend(frame.into_trailers().unwrap_or_default());
                        if !self.drained {
                            return Ok(None);
                        }
                    }
                },
            }
        }
    }

    /// The bytes as a stream, and behind them what `last` makes of the trailers.
    pub fn arrivals(
        self,
        last: impl Fn(&HeaderMap) -> Result<Option<Digest>, Error> + Send + 'static,
    ) -> impl Arrivals {
        Box::pin(stream::try_unfold(Some((self, last)), |state| async move {
            let Some((mut body, last)) = state else { return Ok(None) };
            Ok(match body.next().await? {
                Some(bytes) => Some((Arrival::Bytes(bytes), Some((body, last)))),
                None => last(&body.trailers)?.map(|digest| (Arrival::Digest(digest), None)),
            })
        }))
    }
}

/// How long, and how much, is read of a body that nobody wants.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const DRAIN_BYTES_MAX: usize = 64 << 20;

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.drained && !self.read.load(Ordering::Relaxed);
        let Some(mut body) = self.body.take().filter(|_| unread) else { return };
        let drain = async move {
            let mut drained = 0;
            while let Some(Ok(frame)) = body.frame().await
                && drained < DRAIN_BYTES_MAX
            {
                drained += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        tokio::spawn(timeout(DRAIN_TIME, drain));
    }
}

/// What we send: nothing, some bytes, or a stream. A stream that fails ends the connection, so
/// that a client never takes a cut answer for a whole one.
pub struct Body {
    content: Content,
    awaited: Option<Awaited>,
    _permit: Option<Box<dyn Send>>,
}

enum Content {
    Full(Option<Bytes>),
    Stream { chunks: Chunks, length: Option<u64> },
}

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

impl Body {
    fn of(content: Content) -> Self {
        Self { content, awaited: None, _permit: None }
    }

    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Content::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Chunks as they are made, of a length not known before.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let chunks: Chunks = Box::pin(chunks);
        Self::of(Content::Stream { chunks, length: None })
    }

    /// Chunks that make `length` bytes.
    pub fn sized(
        chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: u64,
    ) -> Self {
        let chunks: Chunks = Box::pin(chunks);
        Self::of(Content::Stream { chunks, length: Some(length) })
    }

    /// The bytes of an open blob.
    pub fn reader(reader: Box<dyn Reader>, length: u64) -> Self {
        Self::sized(chunks(reader), length)
    }

    /// Keeps a request in work until the last byte of a stream is out, or nobody takes it. Bytes
    /// that are ready need no more work.
    pub(super) fn holding(self, permit: impl Send + 'static) -> Self {
        if !matches!(self.content, Content::Stream { .. }) {
            return self;
        }
        Self { awaited: Awaited::begin(), _permit: Some(Box::new(permit)), ..self }
    }
}

/// What a reader gives out.
pub fn chunks(reader: Box<dyn Reader>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(chunk) => Ok(chunk.map(|chunk| (chunk, reader))),
            Err(error) => {
                tracing::error!(%error, "a download was cut");
                Err(io::Error::other(error))
            }
        }
    })
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        match &mut this.content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream { chunks, length } => {
                let polled = chunks.poll_next_unpin(context);
                if let Some(awaited) = &this.awaited {
                    awaited.set(polled.is_ready());
                }
                if let (Poll::Ready(Some(Ok(chunk))), Some(left)) = (&polled, length) {
                    *left = left.saturating_sub(chunk.len() as u64);
                }
                polled.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream { length: Some(left), .. } => SizeHint::with_exact(*left),
            Content::Stream { length: None, .. } => SizeHint::default(),
        }
    }
}
