//! One connection: what its requests share, and when it has to end.
//!
//! hyper holds a connection to the time of a request's head and counts its streams. What it does
//! not see is watched here: that nothing is asked for, that so much was asked for, and that a
//! client does not take what it asked for. On HTTP/2 the last of these hides behind a window that
//! is never opened while pings are answered.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper_util::server::graceful::GracefulConnection;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{Server, metrics, settings::Settings};

/// How long a connection that is closed early may keep sending what nobody reads, and one that was
/// told to close may take to do so.
pub const LINGER: Duration = Duration::from_secs(5);
/// How often connections are looked at, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(15));

/// What the requests of one connection share.
pub struct Connection {
    pub peer: SocketAddr,
    began: Instant,
    speaking: AtomicBool,
    lingers: AtomicBool,
    requests: AtomicU64,
    open: AtomicUsize,
    /// When the last request ended.
    idle_since: AtomicU64,
    /// Of the answers that are being sent.
    offers: Mutex<Vec<Weak<Offer>>>,
    /// Something happened that must not wait for the next look.
    changed: Notify,
}

/// A request of a connection, until the last byte of its answer is out.
pub struct Open(Arc<Connection>);

/// Since when bytes of an answer wait for the client to take them.
pub struct Offer {
    began: Instant,
    /// In milliseconds, one too many; 0 while it is the client who waits.
    since: AtomicU64,
}

/// What is to become of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// It takes no more requests; the limit that says so.
    Finishes(&'static str),
    /// Nobody waits for it any more.
    Ends(&'static str),
}

impl Connection {
    pub fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            began: Instant::now(),
            speaking: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            offers: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A request has come: from here on, the protocol's own time limits hold.
    pub fn open(self: &Arc<Self>, settings: &Settings) -> Open {
        self.speaking.store(true, Ordering::Relaxed);
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

    /// So many requests have come that it takes no more.
    pub fn is_used_up(&self, settings: &Settings) -> bool {
        self.requests.load(Ordering::Relaxed) >= settings.requests_per_connection_max
    }

    pub fn speaks(&self) -> bool {
        self.speaking.load(Ordering::Relaxed)
    }

    /// Closes the connection, when it is closed, only after the client had time to read.
    pub fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    pub fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    /// Begins to watch an answer.
    pub fn offer(&self) -> Arc<Offer> {
        let offer = Arc::new(Offer { began: self.began, since: AtomicU64::new(0) });
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.retain(|offer| offer.strong_count() > 0);
        offers.push(Arc::downgrade(&offer));
        offer
    }

    fn longest_wait(&self, now: Instant) -> Duration {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = offers.iter().filter_map(Weak::upgrade).map(|offer| offer.wait(now));
        waits.max().unwrap_or_default()
    }

    fn judge(&self, now: Instant, settings: &Settings) -> Verdict {
        if self.longest_wait(now) >= settings.body_idle_timeout {
            return Verdict::Ends("answer_not_taken");
        }
        if self.is_used_up(settings) {
            return Verdict::Finishes("requests_per_connection");
        }
        let idle_since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        let idle = now.saturating_duration_since(self.began + idle_since);
        if self.is_quiet() && self.speaks() && idle >= settings.idle_timeout {
            return Verdict::Finishes("idle");
        }
        Verdict::Stays
    }

    fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Serves the connection to its end.
    ///
    /// # Errors
    /// What hyper says of it.
    pub async fn supervise<C: GracefulConnection>(
        &self,
        server: &Server,
        serving: C,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), C::Error> {
        let mut serving = pin!(serving);
        let mut finishing: Option<Instant> = None;
        loop {
            let (longest, is_stopping) = {
                let settings = server.settings.load();
                let shortest = settings.body_idle_timeout.min(settings.idle_timeout);
                (shortest / 4, *stopping.borrow_and_update())
            };
            let now = Instant::now();
            let verdict = self.judge(now, &server.settings.load());
            match (verdict, finishing) {
                (Verdict::Ends(limit), _) => {
                    metrics::LIMITS.of(limit).add(1);
                    tracing::info!(peer = %self.peer, limit, "a connection was cut");
                    return Ok(());
                }
                (Verdict::Finishes(limit), None) => {
                    metrics::LIMITS.of(limit).add(1);
                    tracing::debug!(peer = %self.peer, limit, "a connection is to close");
                    serving.as_mut().graceful_shutdown();
                    finishing = Some(now);
                }
                (Verdict::Stays, None) if is_stopping => {
                    serving.as_mut().graceful_shutdown();
                    finishing = Some(now);
                }
                // What is left of it is bytes that the client does not take.
                (_, Some(since)) if self.is_quiet() && now - since >= LINGER => return Ok(()),
                (_, _) => {}
            }
            tokio::select! {
                ended = serving.as_mut() => return ended,
                () = sleep(longest.clamp(LOOK_EVERY.0, LOOK_EVERY.1)) => {}
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
        let now = u64::try_from(connection.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        connection.idle_since.store(now, Ordering::Relaxed);
        connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Offer {
    /// The client has what it was given and waits for more.
    pub fn is_taken(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Bytes were made that the client may take now.
    pub fn is_made(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    fn wait(&self, now: Instant) -> Duration {
        match self.since.load(Ordering::Relaxed).checked_sub(1) {
            None => Duration::ZERO,
            Some(millis) => {
                now.saturating_duration_since(self.began + Duration::from_millis(millis))
            }
        }
    }
}
