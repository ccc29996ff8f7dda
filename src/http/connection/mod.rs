//! One connection: what its requests share, and when it must end.
//!
//! hyper limits the streams of a connection, and `socket` limits the time of a request's head. This
//! module enforces the two limits that they do not see: how long a connection may be idle, and how
//! many requests it may have.

pub(super) mod flood;
pub(super) mod gate;
pub mod listen;
pub mod listener;
pub(super) mod patience;
pub(super) mod sending;
pub(super) mod socket;
pub(super) mod streams;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::Version;
use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::http::{
    Server,
    connection::{listener::Serves, sending::Sending},
    settings::Settings,
    telemetry::metrics,
};

/// How long a client may keep sending what nobody reads, after its connection was closed early.
/// Also how long a client may take to close a connection after it was told to.
pub const LINGER: Duration = Duration::from_secs(5);
/// The same for an HTTP/2 client that keeps saying that it takes the end of its answers.
const LINGER_MAX: Duration = Duration::from_mins(1);
/// Shortest and longest time between two checks of a connection.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(15));

/// What the requests of one connection share.
pub struct Connection {
    pub peer: SocketAddr,
    pub serves: Serves,
    began: Instant,
    speaks_http_1: AtomicBool,
    lingers: AtomicBool,
    requests: AtomicU64,
    open: AtomicUsize,
    /// When the last request ended, in milliseconds of the connection's age.
    idle_since: AtomicU64,
    /// Bytes that were sent, and the age of the connection when the last of them were.
    sent: AtomicU64,
    sent_at: AtomicU64,
    /// Bytes wait until the client takes those before them. The socket knows for how long.
    is_stalled: AtomicBool,
    /// Notified of a change that must not wait for the next check.
    changed: Notify,
}

/// A request of a connection. It is open until the last byte of its answer is handed on.
pub struct Open(Arc<Connection>);

impl Connection {
    pub fn new(peer: SocketAddr, serves: Serves) -> Arc<Self> {
        Arc::new(Self {
            peer,
            serves,
            began: Instant::now(),
            speaks_http_1: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sent_at: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Counts a request that has arrived.
    pub fn open(self: &Arc<Self>, version: Version, settings: &Settings) -> Open {
        self.speaks_http_1.store(version < Version::HTTP_2, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        if open == settings.streams_per_connection_max as usize {
            metrics::LIMITS.of("streams").add(1);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_used_up(settings) {
            self.changed.notify_one();
        }
        Open(Arc::clone(self))
    }

    /// Whether so many requests have arrived that the connection takes no more.
    pub fn is_used_up(&self, settings: &Settings) -> bool {
        self.requests() >= settings.requests_per_connection_max
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether the next byte begins the head of another HTTP/1 request.
    pub fn awaits_head(&self) -> bool {
        self.speaks_http_1() && self.is_quiet()
    }

    fn speaks_http_1(&self) -> bool {
        self.speaks_http_1.load(Ordering::Relaxed)
    }

    /// Makes the connection linger when it is closed, so that the client has time to read.
    pub fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    pub fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    /// Records that the client took `bytes` more.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.sent_at.store(self.age(), Ordering::Relaxed);
        self.is_stalled.store(false, Ordering::Relaxed);
    }

    /// Records that the client takes no more for now.
    pub fn stalls(&self) {
        self.is_stalled.store(true, Ordering::Relaxed);
    }

    /// Milliseconds since the connection began.
    fn age(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, age: &AtomicU64) -> Instant {
        self.began + Duration::from_millis(age.load(Ordering::Relaxed))
    }

    /// For how long no request was open and nothing was sent; `None` while a request is open or
    /// bytes wait to be taken.
    fn quiet(&self, now: Instant, sending: &mut Sending) -> Option<Duration> {
        let sent = self.sent.load(Ordering::Relaxed);
        let since = sending.look(now, sent, self.at(&self.sent_at)).max(self.at(&self.idle_since));
        let is_quiet = self.is_quiet() && !self.is_stalled.load(Ordering::Relaxed);
        is_quiet.then(|| now.saturating_duration_since(since))
    }

    /// The limit that the connection has met, after which it takes no more requests; `None` if it
    /// has met none.
    fn limit_met(&self, quiet: Option<Duration>, settings: &Settings) -> Option<&'static str> {
        let is_idle =
            self.requests() > 0 && quiet.is_some_and(|quiet| quiet >= settings.idle_timeout);
        if self.is_used_up(settings) {
            Some("requests_per_connection")
        } else {
            is_idle.then_some("idle")
        }
    }

    fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    fn finish(&self, serving: Pin<&mut impl GracefulConnection>) {
        if !self.speaks_http_1() && self.requests() > 0 {
            self.linger();
        }
        serving.graceful_shutdown();
    }

    /// Serves the connection to its end.
    ///
    /// # Errors
    /// The error with which hyper ends the connection.
    pub async fn supervise<C: GracefulConnection>(
        &self,
        server: &Server,
        mut serving: Pin<Box<C>>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), C::Error> {
        let mut finishing: Option<Instant> = None;
        let mut sending = Sending::new(self.began);
        loop {
            let settings = server.settings.load_full();
            let (now, is_stopping) = (Instant::now(), *stopping.borrow_and_update());
            let quiet = self.quiet(now, &mut sending);
            let limit = self.limit_met(quiet, &settings);
            match finishing {
                None if limit.is_some() || is_stopping => {
                    if let Some(limit) = limit {
                        metrics::LIMITS.of(limit).add(1);
                        tracing::debug!(peer = %self.peer, limit, "a connection met a limit");
                    }
                    self.finish(serving.as_mut());
                    finishing = Some(now);
                }
                // The client was told to close, has nothing left to take, and does not close.
                Some(since)
                    if now - since >= LINGER && quiet.is_some_and(|quiet| quiet >= LINGER) =>
                {
                    return Ok(());
                }
                _ => {}
            }
            tokio::select! {
                ended = serving.as_mut() => return ended,
                () = sleep((settings.idle_timeout / 4).clamp(LOOK_EVERY.0, LOOK_EVERY.1)) => {}
                () = self.changed.notified() => {}
                changed = stopping.changed(), if !is_stopping => drop(changed),
            }
        }
    }
}

impl Open {
    pub fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connection = &self.0;
        connection.idle_since.store(connection.age(), Ordering::Relaxed);
        connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}
