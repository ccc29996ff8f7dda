//! Request bodies, as a byte stream that must come in time; the one response body type.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as _, Frame, Incoming, SizeHint},
};
use tokio::time::timeout;

use crate::{
    app::{
        App, Error,
        append::{Arrival, Content as Arrivals},
        checksum::Digest,
    },
    blob::Reader,
    http::{
        connection::{patience::Patience, streams::Awaited},
        telemetry::{exchange::Exchange, metrics},
    },
    metrics::Counted,
    model::principal::Principal,
};

/// How much of a request body has arrived so far.
#[derive(Default)]
pub struct Received {
    ended: AtomicBool,
    bytes: AtomicU64,
}

impl Received {
    /// Nothing has arrived yet. An empty body has ended already.
    pub fn of(body: &Incoming) -> Self {
        Self { ended: body.is_end_stream().into(), bytes: AtomicU64::new(0) }
    }

    /// Whether the end of the body was reached.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The body of a request.
pub struct RequestBody {
    body: Option<Incoming>,
    /// Whether the unread rest is read and discarded for a while when this is dropped. Some HTTP/2
    /// clients take a stream that is reset before they sent all of it for a failure, whatever the
    /// answer says. On HTTP/1.1 the socket lingers instead.
    drained: bool,
    received: Arc<Received>,
    patience: Patience,
    trailers: HeaderMap,
    sender: Option<(Arc<App>, Principal)>,
    _receiving: Option<Counted>,
}

impl RequestBody {
    pub fn new(body: Incoming, drained: bool, received: Arc<Received>, patience: Patience) -> Self {
        let receiving = (!body.is_end_stream()).then(|| metrics::RECEIVING.count());
        let (body, trailers) = (Some(body), HeaderMap::new());
        Self { body, drained, received, patience, trailers, sender: None, _receiving: receiving }
    }

    /// Says who sends the body. If that principal is no longer let in when the body ends, the body
    /// is refused.
    pub fn comes_from(&mut self, app: &Arc<App>, principal: &Principal) {
        self.sender = Some((Arc::clone(app), principal.clone()));
    }

    /// Bytes still to come, if the client declared a length.
    pub fn announced(&self) -> Option<u64> {
        self.body.as_ref().and_then(|body| body.size_hint().exact())
    }

    /// Whether the body has no bytes. A body of declared length is not read to find out.
    ///
    /// # Errors
    /// As [`RequestBody::next`].
    pub async fn is_empty(&mut self) -> Result<bool, Error> {
        if let Some(announced) = self.announced() {
            return Ok(announced == 0);
        }
        while let Some(bytes) = self.next().await? {
            if !bytes.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next bytes, `None` at the end. On HTTP/1.1, nothing is read from a connection after
    /// trailers: readers that accept bare line feeds disagree about where trailers end.
    ///
    /// # Errors
    /// [`Error::BodyTimeout`] when the body makes no progress or too little, [`Error::BodyAborted`]
    /// when the client is gone, and at the end [`Error::Unauthenticated`] when the sender is no
    /// longer let in.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = self.read().await?;
        if let (None, Some((app, sender))) = (&bytes, &self.sender) {
            app.check_standing(sender).await?;
        }
        Ok(bytes)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            let since = Instant::now();
            let frame = timeout(self.patience.left(), body.frame()).await;
            let frame = frame.map_err(|_| {
                metrics::LIMITS.of(self.patience.body_limit()).add(1);
                Error::BodyTimeout
            })?;
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.patience.waited(since.elapsed(), data.map_or(0, |data| data.len() as u64));
            match frame {
                None => {
                    self.received.ended.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Some(Err(_)) => return Err(Error::BodyAborted),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        let length = bytes.len() as u64;
                        self.received.bytes.fetch_add(length, Ordering::Relaxed);
                        metrics::BYTES.of("in").add(length);
                        return Ok(Some(bytes));
                    }
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

    /// The bytes as a stream, followed by what `last` makes of the trailers.
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

/// For how long an unwanted body is read, and how much of it.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const DRAIN_BYTES_MAX: usize = 64 << 20;

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.drained && !self.received.ended();
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

/// The body of an answer: nothing, some bytes, or a stream. A stream that fails ends the connection
/// or the HTTP/2 stream, so that a client never takes a truncated answer for a whole one.
pub struct Body {
    content: Content,
    awaited: Option<Awaited>,
    _permit: Option<Box<dyn Send>>,
    exchange: Option<Box<Exchange>>,
}

enum Content {
    Full(Bytes),
    Stream { chunks: Chunks, rest: Bytes, length: Option<u64> },
}

/// Most bytes that an HTTP/2 stream is handed at a time. That the client took them is known only
/// when it asks for the next ones. Smaller pieces cost more.
const PIECE_BYTES_MAX: usize = 32 << 10;

impl Content {
    /// The next bytes, at most `bytes_max` of them.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let (bytes, left) = match self {
            Self::Full(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Full(bytes) => (bytes, None),
            Self::Stream { chunks, rest, length } => {
                if rest.is_empty() {
                    match ready!(chunks.poll_next_unpin(context)) {
                        Some(Ok(chunk)) => *rest = chunk,
                        other => return Poll::Ready(other),
                    }
                }
                (rest, length.as_mut())
            }
        };
        let piece = bytes.split_to(bytes.len().min(bytes_max));
        if let Some(left) = left {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// Bytes still to come, where that is known.
    fn left(&self) -> Option<u64> {
        match self {
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Stream { length, .. } => *length,
        }
    }
}

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

impl Body {
    fn of(content: Content) -> Self {
        Self { content, awaited: None, _permit: None, exchange: None }
    }

    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Content::Full(bytes.into()))
    }

    /// Chunks as they are made, `length` bytes in all if that is known before.
    pub fn stream(
        chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        let chunks: Chunks = Box::pin(chunks);
        Self::of(Content::Stream { chunks, rest: Bytes::new(), length })
    }

    /// The bytes of an open blob.
    pub fn reader(reader: Box<dyn Reader>, length: u64) -> Self {
        Self::stream(chunks(reader), Some(length))
    }

    /// An answer with this body and no headers yet.
    pub fn answer(self, status: StatusCode) -> Response<Self> {
        let mut response = Response::new(self);
        *response.status_mut() = status;
        response
    }

    /// Keeps a request in work until the last byte of a stream is handed on, or until the stream is
    /// dropped. A body of ready bytes needs no more work, so it does not hold the permit.
    pub(in crate::http) fn holding(self, permit: impl Send + 'static) -> Self {
        let permit = self.streams().then(|| Box::new(permit) as _);
        Self { _permit: permit, ..self }
    }

    /// Reports what becomes of the body to `exchange`, and ends the body when the client does not
    /// take it.
    pub(in crate::http) fn told(self, exchange: Box<Exchange>) -> Self {
        let awaited = if self.is_end_stream() { None } else { Awaited::begin() };
        Self { awaited, exchange: Some(exchange), ..self }
    }

    pub(in crate::http) fn streams(&self) -> bool {
        matches!(self.content, Content::Stream { .. })
    }
}

/// The chunks that a reader returns.
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
        let bytes_max = this.awaited.as_ref().map_or(usize::MAX, |_| PIECE_BYTES_MAX);
        let polled = this.content.poll_next(context, bytes_max);
        let left = this.content.left();
        if let Some(awaited) = &this.awaited {
            awaited.gave(match &polled {
                Poll::Ready(Some(Ok(chunk))) => Some(chunk.len() as u64),
                Poll::Ready(_) => Some(0),
                Poll::Pending => None,
            });
        }
        if let Some(exchange) = &mut this.exchange {
            exchange.gave(&polled, left);
        }
        polled.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.content.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
