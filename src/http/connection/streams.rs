//! The tasks of HTTP/2 streams. hyper does not poll the body of an answer while the client gives no
//! window, so nothing else would notice a client that never gives one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::rt::Executor;
use tokio::{
    sync::Notify,
    task_local,
    time::{Instant, sleep_until},
};

use crate::http::{connection::patience::Patience, telemetry::metrics};

task_local! {
    static CLIENT: Arc<Client>;
}

/// Runs each stream as a task, and drops a task whose answer the client does not take. h2 then
/// resets the stream.
#[derive(Clone)]
pub struct Streams {
    /// The patience with a client that does not take what is sent.
    pub patience: Patience,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let client = Arc::new(Client::new(self.patience.clone()));
        tokio::spawn(CLIENT.scope(Arc::clone(&client), async move {
            tokio::select! {
                _ = stream => {}
                limit = client.stalled() => metrics::LIMITS.of(limit).add(1),
            }
        }));
    }
}

/// The client that is to take the answer of a stream.
struct Client {
    taking: Mutex<Taking>,
    changed: Notify,
}

struct Taking {
    /// Since when the next bytes have been ready for the client; `None` while they are not ready.
    awaited: Option<Instant>,
    /// How many bytes are ready.
    bytes: u64,
    patience: Patience,
}

impl Client {
    fn new(patience: Patience) -> Self {
        let taking = Taking { awaited: None, bytes: 0, patience };
        Self { taking: Mutex::new(taking), changed: Notify::new() }
    }

    fn taking(&self) -> MutexGuard<'_, Taking> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the client took the bytes that were ready, and how many are ready now, if any.
    fn give(&self, bytes: Option<u64>) {
        let mut taking = self.taking();
        let had_no_end = taking.awaited.is_none();
        if let Some(since) = taking.awaited.take() {
            let taken = taking.bytes;
            taking.patience.waited(since.elapsed(), taken);
        }
        (taking.awaited, taking.bytes) = (bytes.map(|_| Instant::now()), bytes.unwrap_or(0));
        drop(taking);
        // A deadline that was already set has only moved away: nobody has to be woken.
        if had_no_end && bytes.is_some() {
            self.changed.notify_one();
        }
    }

    /// Resolves when no patience with the client is left, to the limit that the client has met.
    async fn stalled(&self) -> &'static str {
        loop {
            let end = {
                let taking = self.taking();
                let end = taking.awaited.map(|since| since + taking.patience.left());
                end.map(|end| (end, taking.patience.answer_limit()))
            };
            match end {
                Some((end, limit)) if end <= Instant::now() => return limit,
                Some((end, _)) => sleep_until(end).await,
                None => self.changed.notified().await,
            }
        }
    }
}

/// Held by the body of an answer, which tells for all of its bytes whether they wait for the
/// client.
pub struct Awaited(Arc<Client>);

impl Awaited {
    /// Begins to wait for the client of this stream; `None` on HTTP/1, where the socket does this.
    pub fn begin() -> Option<Self> {
        let client = CLIENT.try_with(Arc::clone).ok()?;
        client.give(Some(0));
        Some(Self(client))
    }

    /// Records that the next bytes are ready and wait for the client; `None` when they are not
    /// ready.
    pub fn gave(&self, bytes: Option<u64>) {
        self.0.give(bytes);
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.give(None);
    }
}
