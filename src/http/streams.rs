//! The tasks of HTTP/2 streams. hyper asks for no more of an answer while its client gives no
//! window, so nothing of ours would notice one who never does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::rt::Executor;
use tokio::{
    sync::Notify,
    task_local,
    time::{Instant, sleep_until},
};

use super::metrics;

task_local! {
    static CLIENT: Arc<Client>;
}

/// Runs each stream as a task, and drops one whose answer nobody takes: h2 resets it then.
#[derive(Clone)]
pub struct Streams {
    /// Longest time in which the client takes nothing of what is sent.
    pub idle: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (client, idle) = (Arc::new(Client::default()), self.idle);
        tokio::spawn(CLIENT.scope(Arc::clone(&client), async move {
            tokio::select! {
                _ = stream => {}
                () = client.stalled(idle) => metrics::LIMITS.of("answer_not_taken").add(1),
            }
        }));
    }
}

/// Who is to take the answer of a stream.
#[derive(Default)]
struct Client {
    /// Since when it could have the next bytes.
    awaited: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Client {
    fn set(&self, since: Option<Instant>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = since;
        self.changed.notify_one();
    }

    /// Comes to an end when the client was awaited for so long.
    async fn stalled(&self, idle: Duration) {
        loop {
            let since = *self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
            match since {
                Some(since) => tokio::select! {
                    () = sleep_until(since + idle) => return,
                    () = self.changed.notified() => {}
                },
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
        client.set(Some(Instant::now()));
        Some(Self(client))
    }

    /// Whether the next bytes are there and wait for the client.
    pub fn set(&self, ready: bool) {
        self.0.set(ready.then(Instant::now));
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
