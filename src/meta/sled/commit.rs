//! The one writer: a thread that takes every waiting step, makes them durable as one commit and
//! only then applies and answers them.
//!
//! 1. Room is made in the journal and for sled. Without it only steps that release something run;
//!    the others are refused and have changed nothing.
//! 2. Each step runs against what is stored plus what this batch wrote before it. A refused step
//!    leaves nothing in the batch and refuses nobody else.
//! 3. The batch is appended to the journal as one record and synced. From here on it is durable.
//! 4. It is applied to sled by one atomic `apply_batch`, together with its number. sled is not
//!    flushed: what it loses is replayed at the next open. So nothing can be read that is not
//!    durable.
//! 5. Every step of the batch is answered.
//!
//! When 3 or 4 fails, nobody knows what the disk or sled holds: every step of the batch is answered
//! with the failure and so is every later one. Only a new open, which reads the disk, ends that.
//!
//! Once the journal has grown enough, or was found damaged, sled is saved as a snapshot by another
//! thread, and the logs before it go. Never `flush_async`: it deadlocks (spacejam/sled#1308).

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use sled::IVec;
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

use super::{
    codec,
    journal::{self, Builder, Files, Journal, JournalId},
    open::applied_value,
    room,
    runs::Runs,
};
use crate::{
    meta::{Error, Result},
    metrics::{Counted, stores},
    sys::fault,
};

/// Steps in one batch at most; more wait for the next.
const BATCH_STEPS_MAX: usize = 256;
/// Steps that wait at most; past it: [`Error::Busy`].
const WAITING_STEPS_MAX: usize = 4096;

/// sled can wait for ever behind a disk that failed it; past this time it has.
const COMMIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest key and value of one record together; the sum of the longest names that it can hold
/// is less. See `SEGMENT_BYTES` of `open` for why there is a bound.
pub const RECORD_BYTES_MAX: usize = 32 << 10;

/// What a commit writes.
pub type Writes = BTreeMap<Vec<u8>, Option<IVec>>;
/// Tells the caller how its step ended, once the batch did.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;
/// Runs a step, or refuses it where there is no batch for it.
type Run = Box<dyn FnOnce(&Runs, Option<&mut Writes>) -> Answer + Send>;

/// A step and whether it releases room rather than takes it.
struct Step {
    releases: bool,
    run: Run,
    waiting: Counted,
}

/// Handle of the committer thread.
pub struct Committer {
    steps: Option<SyncSender<Step>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the committer, its handle and the snapshot thread share.
struct Shared {
    runs: Runs,
    files: Files,
    id: JournalId,
    /// sled's file, see [`super::open::Opened::file`].
    file: File,
    failure: OnceLock<Error>,
    /// Held while logs must not go: a snapshot is taken, or logs are copied.
    saving: Mutex<()>,
    /// Of the newest snapshot.
    snapshot_bytes: AtomicU64,
    /// The last commit that was applied.
    applied: AtomicU64,
    /// The journal is to be saved anew, however little it has grown.
    is_damaged: AtomicBool,
    stopping: AtomicBool,
}

impl Committer {
    /// Takes over an opened store. The journal is saved anew when it has grown by `save_bytes`, or
    /// by the size of the last snapshot if that is more.
    pub fn start(runs: Runs, journal: Journal, file: File, save_bytes: u64) -> Result<Self> {
        let (steps, waiting) = sync_channel(WAITING_STEPS_MAX);
        let shared = Arc::new(Shared {
            runs,
            files: journal.files().clone(),
            id: journal.id(),
            file,
            failure: OnceLock::new(),
            saving: Mutex::default(),
            snapshot_bytes: AtomicU64::new(save_bytes),
            applied: AtomicU64::new(journal.last()),
            is_damaged: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let writer = Writer { shared: Arc::clone(&shared), journal, save_bytes, saver: None };
        let thread = std::thread::Builder::new()
            .name("meta-commit".into())
            .spawn(move || writer.run(&waiting))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Self { steps: Some(steps), shared, thread: Some(thread) })
    }

    /// # Errors
    /// The failure that ended all writing.
    pub fn ready(&self) -> Result<()> {
        self.shared.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Runs `step` in a batch and answers when the batch is durable. The step is taken even when
    /// the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when the disk is nearly full, beside what the step says.
    pub async fn commit<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(false, step).await
    }

    /// As [`Committer::commit`], for a step that lets something go: it is taken also when the disk
    /// is nearly full, or nothing could ever be deleted to make room.
    pub async fn release<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(true, step).await
    }

    /// See [`crate::meta::Metadata::export`].
    pub async fn export(&self, data_dir: &Path) -> Result<()> {
        let (shared, to) = (Arc::clone(&self.shared), Files::new(&data_dir.join("journal")));
        let exported = spawn_blocking(move || shared.export(&to)).await;
        exported.map_err(|error| Error::Unavailable(error.to_string()))?
    }

    /// Reads the journal and answers what is damaged in it. Beside a good index that is mended with
    /// the next commit.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be read.
    pub async fn check_journal(&self, index_is_good: bool) -> Result<Vec<String>> {
        let shared = Arc::clone(&self.shared);
        let checked = spawn_blocking(move || shared.check_journal(index_is_good)).await;
        checked.map_err(|error| Error::Unavailable(error.to_string()))?
    }

    async fn send<T: Send + 'static>(
        &self,
        releases: bool,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ready()?;
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |runs, batch| {
            let outcome = batch.map_or(Err(Error::NoSpace), |batch| {
                let mut txn = Txn { runs, batch, own: Writes::new() };
                let outcome = step(&mut txn);
                if outcome.is_ok() {
                    let own = txn.own;
                    batch.extend(own);
                }
                outcome
            });
            Box::new(move |durable| {
                // A caller that is gone needs no answer.
                let _ = answer.send(durable.and(outcome));
            })
        });
        let stopped = || Error::Unavailable("the committer has stopped".into());
        let step = Step { releases, run, waiting: stores::COMMITS_WAITING.count() };
        match self.steps.as_ref().ok_or_else(stopped)?.try_send(step) {
            Ok(()) => {
                let Ok(answer) = timeout(COMMIT_TIMEOUT, answered).await else {
                    let stuck = Error::Unavailable("a commit does not come to its end".into());
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

impl Drop for Committer {
    /// Lets the steps that wait finish.
    fn drop(&mut self) {
        self.steps = None;
        self.shared.stopping.store(true, Ordering::Relaxed);
        // After a failure it may wait for sled for ever.
        if let Some(thread) = self.thread.take().filter(|_| self.ready().is_ok()) {
            // A panic there was caught and answered already.
            let _ = thread.join();
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

    /// A snapshot and the commits that came while it was taken.
    fn export(&self, to: &Files) -> Result<()> {
        let _saving = self.saving();
        to.make().map_err(journal::unavailable)?;
        let number = self.applied.load(Ordering::Acquire);
        journal::save(to, self.id, number, self.runs.iter(), &self.stopping)?;
        let last = self.applied.load(Ordering::Acquire);
        self.files.survey()?.copy(number, last, to)
    }

    fn check_journal(&self, index_is_good: bool) -> Result<Vec<String>> {
        let _saving = self.saving();
        // What is applied was durable before; what comes behind it may be half-written.
        let last = self.applied.load(Ordering::Acquire);
        let findings = match self.files.survey() {
            Err(Error::Corrupt(why)) => vec![why],
            survey => survey?.check(last)?,
        };
        if !findings.is_empty() && index_is_good {
            tracing::error!(?findings, "the journal is damaged; the next commit saves it anew");
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        Ok(findings)
    }

    /// Saves sled as the snapshot of commit `number`. Logs go only when sled is durable as well:
    /// a sync of it that failed, even one that sled took note of and forgot, shows here.
    fn save(&self, number: u64) {
        let _saving = self.saving();
        let synced = self.runs.flush();
        let synced = synced.and_then(|()| self.file.sync_data().map_err(journal::unavailable));
        if let Err(error) = synced {
            self.fail(&error);
            if let Err(error) = self.files.distrust() {
                tracing::error!(%error, "the index may have lost writes: remove meta/ before the \
                    next start, which makes it anew from the journal");
            }
            return;
        }
        match journal::save(&self.files, self.id, number, self.runs.iter(), &self.stopping) {
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

struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    save_bytes: u64,
    saver: Option<JoinHandle<()>>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Step>) {
        while let Ok(first) = waiting.recv() {
            let steps = std::iter::once(first).chain(waiting.try_iter()).take(BATCH_STEPS_MAX);
            let mut answers = Vec::new();
            // sled panics on some damage; that must not take waiting callers with it.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.commit(steps, &mut answers)));
            let outcome =
                outcome.unwrap_or_else(|_| Err(Error::Unavailable("the engine panicked".into())));
            if let Err(error) = &outcome
                && *error != Error::NoSpace
            {
                self.shared.fail(error);
            }
            for answer in answers {
                answer(outcome.clone());
            }
            self.save_when_due();
        }
        if let Some(saver) = self.saver.take() {
            let _ = saver.join();
        }
    }

    fn commit(
        &mut self,
        steps: impl Iterator<Item = Step>,
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        let has_failed = self.shared.failure.get().cloned();
        let room = has_failed.map_or_else(|| self.make_room(), Err);
        let mut writes = Writes::new();
        let runs = &self.shared.runs;
        for step in steps {
            let is_taken = step.releases || matches!(room, Ok(true));
            drop(step.waiting);
            answers.push((step.run)(runs, is_taken.then_some(&mut writes)));
        }
        match room {
            Err(error) if error != Error::NoSpace => return Err(error),
            _ if writes.is_empty() => return Ok(()),
            _ => {}
        }
        let mut record = Builder::default();
        for (key, value) in &writes {
            record.push(key, value.as_deref());
        }
        self.journal.reserve(record.len())?;
        fault::point("commit: before the journal");
        let sync = stores::SYNC_SECONDS.of("index");
        let number = sync.time(|| self.journal.append(record))?;
        stores::COMMIT_STEPS.observe(answers.len() as u64);
        fault::point("commit: journal durable");
        runs.apply(&writes, &applied_value(self.shared.id, number))?;
        self.shared.applied.store(number, Ordering::Release);
        fault::point("commit: applied");
        Ok(())
    }

    /// Whether steps that take room may run.
    fn make_room(&mut self) -> Result<bool> {
        let has_room = self.journal.reserve(0)?;
        room::reserve(&self.shared.file)?;
        Ok(has_room)
    }

    fn save_when_due(&mut self) {
        let due = self.save_bytes.max(self.shared.snapshot_bytes.load(Ordering::Relaxed));
        let is_busy = self.saver.as_ref().is_some_and(|saver| !saver.is_finished());
        let is_due =
            self.journal.unsaved_bytes() >= due || self.shared.is_damaged.load(Ordering::Relaxed);
        if !is_due || is_busy || self.shared.failure.get().is_some() {
            return;
        }
        self.shared.is_damaged.store(false, Ordering::Relaxed);
        self.journal.close_log();
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

/// What one step reads and writes: its own writes over the batch's over what is stored.
pub struct Txn<'a> {
    runs: &'a Runs,
    batch: &'a Writes,
    own: Writes,
}

impl Txn<'_> {
    /// What is stored, without what this batch wrote.
    pub fn runs(&self) -> &Runs {
        self.runs
    }

    pub fn read(&self, key: &[u8]) -> Result<Option<IVec>> {
        match self.own.get(key).or_else(|| self.batch.get(key)) {
            Some(written) => Ok(written.clone()),
            None => self.runs.get(key),
        }
    }

    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        self.read(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Every entry under `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, IVec>> {
        let mut found = BTreeMap::new();
        for entry in self.runs.scan_prefix(prefix) {
            let (key, value) = entry?;
            found.insert(key, value);
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
