//! The one writer: a thread that takes every waiting step, applies them as one batch, flushes
//! once and only then answers.
//!
//! 1. Each step runs against what is stored plus what this batch wrote before it. A refused step
//!    leaves nothing in the batch and refuses nobody else.
//! 2. The batch is applied by one atomic `apply_batch`.
//! 3. `flush()` blocks until the log is on the disk (two `fdatasync`, see `sys::sync_override`).
//!    Never `flush_async`: it deadlocks (spacejam/sled#1308).
//! 4. Every step of the batch is answered.
//!
//! When 2 or 3 fails, nobody knows what the disk holds: every step of the batch is answered with
//! the failure and so is every later one. Only a new open, which reads the disk, ends that.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use serde::{Serialize, de::DeserializeOwned};
use sled::{IVec, Tree};
use tokio::sync::oneshot;

use super::codec;
use crate::meta::{Error, Result};

/// Steps in one batch at most; more wait for the next.
const BATCH_STEPS_MAX: usize = 512;
/// Steps that wait at most; past it: [`Error::Busy`].
const WAITING_STEPS_MAX: usize = 4096;

/// Longest key and value of one record together; the sum of the longest names that it can hold
/// is less. See `SEGMENT_BYTES` of the engine for why there is a bound.
pub const RECORD_BYTES_MAX: usize = 32 << 10;

type Writes = BTreeMap<Vec<u8>, Option<IVec>>;
/// Tells the caller how its step ended, once the batch did.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;
type Step = Box<dyn FnOnce(&Tree, &mut Writes) -> Answer + Send>;

/// Handle of the committer thread.
pub struct Committer {
    steps: Option<SyncSender<Step>>,
    failure: Arc<OnceLock<Error>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub fn start(tree: Tree) -> Result<Self> {
        let (steps, waiting) = sync_channel(WAITING_STEPS_MAX);
        let failure = Arc::new(OnceLock::new());
        let failed = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("meta-commit".into())
            .spawn(move || run(&tree, &waiting, &failed))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { steps: Some(steps), failure, thread: Some(thread) })
    }

    /// # Errors
    /// The failure that ended all writing.
    pub fn ready(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Runs `step` in a batch and answers when the batch is durable. The step is taken even when
    /// the caller stops waiting.
    pub async fn commit<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ready()?;
        let (answer, answered) = oneshot::channel();
        let step: Step = Box::new(move |tree, batch| {
            let mut txn = Txn { tree, batch, own: Writes::new() };
            let outcome = step(&mut txn);
            if outcome.is_ok() {
                let own = txn.own;
                batch.extend(own);
            }
            Box::new(move |flushed| {
                // A caller that is gone needs no answer.
                let _ = answer.send(flushed.and(outcome));
            })
        });
        let stopped = || Error::Unavailable("the committer has stopped".into());
        match self.steps.as_ref().ok_or_else(stopped)?.try_send(step) {
            Ok(()) => answered.await.map_err(|_| stopped())?,
            Err(TrySendError::Full(_)) => Err(Error::Busy),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

impl Drop for Committer {
    /// Lets the steps that wait finish.
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was caught and answered already.
            let _ = thread.join();
        }
    }
}

fn run(tree: &Tree, waiting: &Receiver<Step>, failure: &OnceLock<Error>) {
    while let Ok(first) = waiting.recv() {
        let steps = std::iter::once(first).chain(waiting.try_iter()).take(BATCH_STEPS_MAX);
        let mut writes = Writes::new();
        let mut answers = Vec::new();
        // sled panics on some damage; that must not take waiting callers with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            answers.extend(steps.map(|step| step(tree, &mut writes)));
            if let Some(failure) = failure.get() {
                return Err(failure.clone());
            }
            make_durable(tree, std::mem::take(&mut writes))
        }));
        let outcome =
            outcome.unwrap_or_else(|_| Err(Error::Unavailable("the engine panicked".into())));
        if let Err(error) = &outcome
            && failure.set(error.clone()).is_ok()
        {
            tracing::error!(%error, "metadata commit failed; no more writes until a restart");
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }
}

fn make_durable(tree: &Tree, writes: Writes) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let mut batch = sled::Batch::default();
    for (key, value) in writes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    tree.apply_batch(batch).map_err(failed)?;
    tree.flush().map_err(failed)?;
    Ok(())
}

/// What a failure of sled itself means to a caller.
pub fn failed(error: sled::Error) -> Error {
    match error {
        sled::Error::Corruption { .. } => Error::Corrupt(error.to_string()),
        error => Error::Unavailable(error.to_string()),
    }
}

/// What one step reads and writes: its own writes over the batch's over what is stored.
pub struct Txn<'a> {
    tree: &'a Tree,
    batch: &'a Writes,
    own: Writes,
}

impl Txn<'_> {
    pub fn read(&self, key: &[u8]) -> Result<Option<IVec>> {
        match self.own.get(key).or_else(|| self.batch.get(key)) {
            Some(written) => Ok(written.clone()),
            None => self.tree.get(key).map_err(failed),
        }
    }

    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        self.read(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Every entry under `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, IVec>> {
        let mut found = BTreeMap::new();
        for entry in self.tree.scan_prefix(prefix) {
            let (key, value) = entry.map_err(failed)?;
            found.insert(key.to_vec(), value);
        }
        for writes in [self.batch, &self.own] {
            let newer = writes.range(prefix.to_vec()..);
            for (key, value) in newer.take_while(|(key, _)| key.starts_with(prefix)) {
                match value {
                    Some(value) => found.insert(key.clone(), value.clone()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found)
    }

    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, record: &T) -> Result<()> {
        let bytes = codec::encode(record)?;
        if key.len() + bytes.len() > RECORD_BYTES_MAX {
            return Err(Error::Corrupt(format!("a record of {} bytes", bytes.len())));
        }
        self.write(key, bytes);
        Ok(())
    }

    pub fn write(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.own.insert(key, Some(value.into()));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }
}
