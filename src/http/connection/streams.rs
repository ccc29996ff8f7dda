//! The tasks of HTTP/2 streams. hyper asks for no more of an answer while its client gives no
//! window, so nothing of ours would notice one who never does.

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

/// Runs each stream as a task, and drops one whose answer nobody takes: h2 resets it then.
#[derive(Clone)]
pub struct Streams {
    /// With a client that does not take what is sent.
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

/// Who is to take the answer of a stream.
struct Client {
    taking: Mutex<Taking>,
    changed: Notify,
}

struct Taking {
    /// Since when the client could have the next bytes.
    awaited: Option<Instant>,
    /// How many those are.
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

    /// What it was awaited for is taken; now these bytes are there for it, or none.
    fn give(&self, bytes: Option<u64>) {
        let mut taking = self.taking();
        let had_no_end = taking.awaited.is_none();
        if let Some(since) = taking.awaited.take() {
            let taken = taking.bytes;
            taking.patience.waited(since.elapsed(), taken);
        }
        (taking.awaited, taking.bytes) = (bytes.map(|_| Instant::now()), bytes.unwrap_or(0));
        drop(taking);
        // An end that there was has only moved away.
        if had_no_end && bytes.is_some() {
            self.changed.notify_one();
        }
    }

    /// Comes to an end when there is no more patience with it; the limit that it met.
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

/// Held by the body of an answer, which tells of each of its bytes whose turn it is.
pub struct Awaited(Arc<Client>);

impl Awaited {
    /// From now on the client's; `None` where the connection itself sees to it.
    pub fn begin() -> Option<Self> {
        let client = CLIENT.try_with(Arc::clone).ok()?;
        client.give(Some(0));
        Some(Self(client))
    }

    /// The next bytes are there and wait for the client; `None` when they are not.
    pub fn gave(&self, bytes: Option<u64>) {
        self.0.give(bytes);
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.give(None);
    }
}
