//! The only writer: a thread that takes all waiting steps, makes them durable as one commit, and
//! only then applies and answers them.
//!
//! 1. Room is made in the journal and for sled. Without room, only steps that release something
//!    run, as long as the room that was made before and the [`Ballast`] last. Other steps are
//!    refused and have changed nothing. Upkeep's steps may use more of the ballast than those of
//!    clients, so while it is not whole they have a batch of their own.
//! 2. Each step runs against the stored records and what this batch wrote before it. A refused step
//!    leaves nothing in the batch and does not affect the others.
//! 3. The batch is appended to the journal as one record and synced. From here on it is durable.
//! 4. The batch is pushed to the [`Records`], where readers see it. So nothing can be read that is
//!    not durable.
//! 5. Every step of the batch is answered.
//!
//! Another thread settles what was pushed: it takes many commits at a time into sled, together with
//! the number of the last one. sled is not flushed: commits that it loses, or never had, are
//! replayed at the next open.
//!
//! When 3 fails, it is unknown what the disk holds: every step of the batch is answered with the
//! failure, and so is every later step. When settling fails, it is unknown what sled holds: every
//! later step is answered with that failure; what was answered before stays durable and visible.
//! Only a new open, which reads the disk, ends either state. After failed settling it rebuilds
//! sled.
//!
//! A full disk in 3 is handled differently: what it may have kept of the record is cut off before
//! the answer. If there is no room even for that, the answer is that the outcome is unknown, and no
//! other step is taken until there is room.
//!
//! Once the journal has grown enough, or was found damaged, another thread saves sled as a
//! snapshot, and the logs before it are removed. `flush_async` is never used: it deadlocks
//! (spacejam/sled#1308).

mod inspect;
mod patience;
mod space;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use tokio::sync::oneshot;

pub use self::patience::SECONDS as PATIENCE_SECONDS;
use super::{
    ballast::Ballast,
    journal::{self, Builder, Files, Journal, JournalId},
    open::unless_panicked,
    records::Records,
    room::Effect,
    txn::{Txn, Writes},
};
use crate::{
    meta::{Error, Result},
    metrics::{Counted, stores},
    sys::fault,
};

/// Most steps in one batch. Further steps wait for the next batch.
const BATCH_STEPS_MAX: usize = 256;
/// Most steps that wait. Beyond that: [`Error::Busy`].
const WAITING_STEPS_MAX: usize = 4096;

/// A layer is settled once its commits take `LAYER_BYTES` in the journal, or one part in
/// `LAYERS_IN_JOURNAL` of what the journal grows by before it is saved, if that is less. At twice
/// that size it is settled before the next commit. Layers four times as large brought no more
/// throughput (`docs/DESIGN.md`).
const LAYER_BYTES: u64 = 512 << 10;
const LAYERS_IN_JOURNAL: u64 = 16;

/// Tells the caller how its step ended, once the batch has ended.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;
/// Runs a step, or refuses it if it is given no batch.
type Run = Box<dyn FnOnce(&Records, Option<&mut Writes>) -> Answer + Send>;

struct Step {
    effect: Effect,
    run: Run,
    waiting: Counted,
}

/// Handle of the committer thread.
pub struct Committer {
    steps: Option<SyncSender<Step>>,
    shared: Arc<Shared>,
    /// Disconnects when the thread ends. [`Committer::close`] takes it.
    ended: Option<Mutex<Receiver<()>>>,
}

/// What the committer, its handle and the snapshot thread share.
struct Shared {
    records: Records,
    files: Files,
    id: JournalId,
    /// sled's file, see [`super::open::Opened::file`].
    file: File,
    failure: OnceLock<Error>,
    /// Held while logs must not be removed: a snapshot is taken, or logs are read or copied.
    saving: Mutex<()>,
    /// Size of the newest snapshot.
    snapshot_bytes: AtomicU64,
    /// The journal must be saved again, however little it has grown.
    is_damaged: AtomicBool,
    stopping: AtomicBool,
}

impl Committer {
    /// Takes over an opened store. The journal is saved as a snapshot when it has grown by
    /// `save_bytes`, or by the size of the last snapshot if that is more.
    pub fn start(
        records: Records,
        journal: Journal,
        file: File,
        ballast: Ballast,
        save_bytes: u64,
    ) -> Result<Self> {
        let (steps, waiting) = sync_channel(WAITING_STEPS_MAX);
        let snapshot_bytes = journal.files().snapshot_bytes().map_err(journal::unavailable)?;
        let shared = Arc::new(Shared {
            records,
            files: journal.files().clone(),
            id: journal.id(),
            file,
            failure: OnceLock::new(),
            saving: Mutex::default(),
            snapshot_bytes: AtomicU64::new(snapshot_bytes),
            is_damaged: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let writer = Writer {
            settler: Settler::start(&shared)?,
            layer_bytes: (save_bytes / LAYERS_IN_JOURNAL).min(LAYER_BYTES),
            shared: Arc::clone(&shared),
            journal,
            ballast,
            save_bytes,
            saver: None,
        };
        let (running, ended) = sync_channel(0);
        std::thread::Builder::new()
            .name("meta-commit".into())
            .spawn(move || {
                let _running = running;
                writer.run(&waiting);
            })
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { steps: Some(steps), shared, ended: Some(Mutex::new(ended)) })
    }

    /// # Errors
    /// The failure that ended all writing.
    pub fn ready(&self) -> Result<()> {
        self.shared.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Runs `step` in a batch and returns when the batch is durable. The step is taken even if the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when the disk is nearly full, and the errors of the step.
    pub async fn commit<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(Effect::Takes, step).await
    }

    /// As [`Committer::commit`], for a step that releases something. It is taken even when the disk
    /// is nearly full; otherwise nothing could be deleted to make room.
    pub async fn release<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(Effect::Releases, step).await
    }

    /// As [`Committer::release`], for a step of upkeep, without which nothing that was released
    /// ever gives its room back. It is taken even when the steps of clients no longer are.
    pub async fn reclaim<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(Effect::Reclaims, step).await
    }

    /// Takes into sled the commits that it does not have yet.
    ///
    /// # Errors
    /// When sled fails; then every later step is refused.
    pub async fn settle(&self) -> Result<()> {
        self.blocking(Shared::settle).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        super::blocking(move || work(&shared)).await
    }

    /// Waits until the waiting steps have ended and sled has their writes. If that takes longer
    /// than `seconds`, it counts as a failure. Blocks.
    pub fn close(&mut self, seconds: u32) {
        self.steps = None;
        self.shared.stopping.store(true, Ordering::Relaxed);
        // After a failure the thread may wait for sled for ever.
        let Some(ended) = self.ended.take().filter(|_| self.ready().is_ok()) else { return };
        // Nothing is ever sent: the channel disconnects when the thread ends.
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !patience::hangs_up(&ended, seconds) {
            self.shared.fail(&Error::Unavailable("the last commit does not finish".into()));
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        effect: Effect,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ready()?;
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |records, batch| {
            let outcome = batch.map_or(Err(Error::NoSpace), |batch| Txn::run(records, batch, step));
            Box::new(move |durable| {
                // A caller that is gone needs no answer.
                let _ = answer.send(durable.and(outcome));
            })
        });
        let stopped = || Error::Unavailable("the committer has stopped".into());
        let step = Step { effect, run, waiting: stores::COMMITS_WAITING.count() };
        match self.steps.as_ref().ok_or_else(stopped)?.try_send(step) {
            Ok(()) => {
                let Some(answer) = patience::answer(answered).await else {
                    let stuck = Error::Unavailable("a commit does not finish".into());
                    self.shared.fail(&stuck);
                    return Err(stuck);
                };
                answer.map_err(|_| stopped())?
            }
            Err(TrySendError::Full(_)) => Err(Error::Busy),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

impl Shared {
    fn fail(&self, error: &Error) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(%error, "metadata commit failed; no more writes until a restart");
        }
    }

    fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes into sled the commits that were pushed.
    fn settle(&self) -> Result<()> {
        unless_panicked(|| self.records.settle(self.id)).inspect_err(|error| self.distrust(error))
    }

    /// Stops all writing and notes that sled may have lost writes.
    fn distrust(&self, error: &Error) {
        self.fail(error);
        self.records.distrust(error);
    }

    /// Makes durable what sled has. Also fails if an earlier sync of sled's file failed, even if
    /// sled only logged that failure.
    ///
    /// # Errors
    /// The failure, after which sled is not to be trusted.
    fn sync(&self) -> Result<()> {
        let synced = self.records.flush();
        let synced = synced.and_then(|()| self.file.sync_data().map_err(journal::unavailable));
        synced.inspect_err(|error| self.distrust(error))
    }

    /// Saves all records as the snapshot of commit `number`. Logs are removed only after sled has
    /// their commits and is durable as well.
    fn save(&self, number: u64) {
        let _saving = self.saving();
        if self.settle().and_then(|()| self.sync()).is_err() {
            return;
        }
        match journal::save(&self.files, self.id, number, self.records.iter(), &self.stopping) {
            Ok(bytes) => {
                self.snapshot_bytes.store(bytes, Ordering::Relaxed);
                tracing::info!(bytes, commit = number, "saved the index");
            }
            Err(_) if self.stopping.load(Ordering::Relaxed) => {}
            Err(error) => {
                tracing::warn!(%error, "the index was not saved; the journal keeps growing");
            }
        }
    }
}

/// The thread that settles full layers.
struct Settler {
    full: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Settler {
    fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (full, waiting) = sync_channel(1);
        let shared = Arc::clone(shared);
        let settle = move || while waiting.recv().is_ok() && shared.settle().is_ok() {};
        let thread = std::thread::Builder::new().name("meta-settle".into()).spawn(settle);
        let thread = thread.map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { full, thread })
    }
}

struct Writer {
    shared: Arc<Shared>,
    settler: Settler,
    layer_bytes: u64,
    journal: Journal,
    ballast: Ballast,
    save_bytes: u64,
    saver: Option<JoinHandle<()>>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Step>) {
        while let Ok(first) = waiting.recv() {
            let steps = std::iter::once(first).chain(waiting.try_iter()).take(BATCH_STEPS_MAX);
            let apart = !self.ballast.is_whole();
            let (reclaiming, others): (Vec<_>, Vec<_>) =
                steps.partition(|step| apart && step.effect == Effect::Reclaims);
            for batch in [others, reclaiming] {
                if !batch.is_empty() {
                    self.commit_and_answer(batch);
                }
            }
            self.settle_when_due();
            self.save_when_due();
        }
        if let Some(saver) = self.saver.take() {
            let _ = saver.join();
        }
        let has_room = self.make_room_for_waiting(Effect::Reclaims);
        let Settler { full, thread } = self.settler;
        drop(full);
        let _ = thread.join();
        if self.shared.failure.get().is_none() {
            // A failure is already logged, and the next open replays the rest.
            let _ = has_room.and_then(|()| self.shared.settle()).and_then(|()| self.shared.sync());
        }
    }

    /// Commits one batch and answers its steps.
    fn commit_and_answer(&mut self, steps: Vec<Step>) {
        let mut answers = Vec::new();
        // A panic must not leave waiting callers without an answer.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.commit(steps, &mut answers)))
            .unwrap_or_else(|_| Err(Error::Unavailable("the committer panicked".into())));
        if let Err(error) = &outcome
            && *error != Error::NoSpace
            && !self.journal.waits_for_room()
        {
            self.shared.fail(error);
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }

    fn commit(&mut self, steps: Vec<Step>, answers: &mut Vec<Answer>) -> Result<()> {
        let has_failed = self.shared.failure.get().cloned();
        let taken = has_failed.map_or_else(|| self.make_room(&steps), Err);
        let mut writes = Writes::new();
        let records = &self.shared.records;
        for step in steps {
            let is_taken = taken.as_ref().is_ok_and(|taken| step.effect >= *taken);
            drop(step.waiting);
            answers.push((step.run)(records, is_taken.then_some(&mut writes)));
        }
        let taken = taken?;
        if writes.is_empty() {
            return Ok(());
        }
        let mut record = Builder::default();
        for (key, value) in &writes {
            record.push(key, value.as_deref());
        }
        let bytes = record.len();
        self.make_room_for(taken, bytes, writes.len())?;
        fault::point("commit: before the journal");
        let sync = stores::SYNC_SECONDS.of("index");
        let number = sync.time(|| self.journal.append(record))?;
        stores::COMMIT_STEPS.observe(answers.len() as u64);
        fault::point("commit: journal durable");
        self.shared.records.push(writes, bytes, number);
        fault::point("commit: seen");
        Ok(())
    }

    /// Has a full layer settled in parallel with the next commits, or before them if commits come
    /// faster than layers are settled.
    fn settle_when_due(&self) {
        let bytes = self.shared.records.waiting().bytes as u64;
        if bytes < self.layer_bytes || self.shared.failure.get().is_some() {
            return;
        }
        if bytes >= self.layer_bytes * 2 {
            let _ = self.shared.settle();
        } else {
            // A settling that is already requested will take this layer, too.
            let _ = self.settler.full.try_send(());
        }
    }

    fn save_when_due(&mut self) {
        let due = self.save_bytes.max(self.shared.snapshot_bytes.load(Ordering::Relaxed));
        let is_busy = self.saver.as_ref().is_some_and(|saver| !saver.is_finished());
        let is_due =
            self.journal.unsaved_bytes() >= due || self.shared.is_damaged.load(Ordering::Relaxed);
        // A snapshot would use up the room that the ballast gave up for other things.
        if !is_due || is_busy || !self.ballast.is_whole() || self.shared.failure.get().is_some() {
            return;
        }
        match self.journal.close_log() {
            Ok(()) => {}
            Err(Error::NoSpace) => return,
            Err(error) => return self.shared.fail(&error),
        }
        self.shared.is_damaged.store(false, Ordering::Relaxed);
        let (shared, number) = (Arc::clone(&self.shared), self.journal.last());
        let saver = std::thread::Builder::new().name("meta-save".into());
        match saver.spawn(move || shared.save(number)) {
            Ok(saver) => self.saver = Some(saver),
            Err(error) => tracing::warn!(%error, "the index was not saved"),
        }
    }
}

/// What a failure of sled itself means to a caller.
pub fn failed(error: sled::Error) -> Error {
    match error {
        sled::Error::Corruption { .. } => Error::Corrupt(error.to_string()),
        error => Error::Unavailable(error.to_string()),
    }
}
