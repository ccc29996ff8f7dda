//! An append-only log in which each line carries the hash of the line before it: [`verify`] finds
//! out if lines were cut out, added or edited.
//!
//! `audit/NUMBER.jsonl` holds the lines from that number on; `audit/head` holds the number and hash
//! of the last line, so that a cut at the end shows as well. One thread writes; recording a line
//! never waits. A file is closed when it is large or old enough, and removed after the time that it
//! is kept.

mod chain;

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use serde_json::{Map, Value};

use self::chain::{Head, files, name, seal};
pub use self::chain::{Verified, verify};
use super::{
    clock::{SystemClock, Trust, Watch},
    durable,
};
use crate::metrics::stores;

/// The most lines that wait; lines past it are lost, and the loss is reported loudly.
const WAITING_LINES_MAX: usize = 8_192;
/// Most lines are shorter than this.
const LINE_BYTES: usize = 512;
/// The most lines that are written at once.
const BATCH_LINES_MAX: usize = 512;
/// The most bytes that are kept of lines that could not be written yet; lines past it are lost as
/// well.
const SEALED_BYTES_MAX: usize = 4 << 20;
/// The buffer that is kept for lines when all have been written.
const SEALED_BYTES_KEPT: usize = 64 << 10;
/// How long the first line of a batch waits for others. Without it, the thread would be woken for
/// every line and make all the calls of a batch for it.
const GATHER: Duration = Duration::from_millis(5);
/// Written lines are on the disk after this time at most.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A failed write is repeated after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A file is closed after this time, however small it is.
const FILE_AGE_MAX: Duration = Duration::from_hours(7 * 24);

/// When files are closed and removed.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub file_bytes: u64,
    pub keep: Duration,
}

/// Takes lines. Dropping it writes the lines that still wait.
pub struct AuditLog {
    lines: Option<SyncSender<Vec<u8>>>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the log in `dir` and continues behind its last whole line. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn open(dir: &Path, retention: Retention) -> io::Result<Self> {
        durable::create_dir(dir)?;
        let lost = Arc::<AtomicU64>::default();
        let writer = Writer::open(dir, retention, Arc::clone(&lost))?;
        let (lines, waiting) = sync_channel(WAITING_LINES_MAX);
        let thread =
            std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&waiting))?;
        Ok(Self { lines: Some(lines), lost, thread: Some(thread) })
    }

    /// Appends a line: the members of an object, of which there must be one at least. Does not
    /// wait.
    pub fn record(&self, line: &impl Serialize) {
        let Some(lines) = &self.lines else { return };
        let mut text = Vec::with_capacity(LINE_BYTES);
        let is_written = serde_json::to_writer(&mut text, line).is_ok();
        let is_taken = is_written && lines.try_send(text).is_ok();
        if !is_taken && lose(&self.lost, 1) == 0 {
            tracing::error!("audit lines are lost: they come faster than they can be written");
        }
    }
}

/// Counts lost lines; answers how many had been lost before and are not reported yet.
fn lose(lost: &AtomicU64, lines: u64) -> u64 {
    stores::AUDIT_LINES_LOST.add(lines);
    lost.fetch_add(lines, Ordering::Relaxed)
}

/// A line that the log writes about itself.
fn own(event: &str, of: &str, number: u64) -> Vec<u8> {
    let members = Map::from_iter([("event".into(), event.into()), (of.into(), number.into())]);
    Value::Object(members).to_string().into()
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Writer {
    dir: PathBuf,
    retention: Retention,
    lost: Arc<AtomicU64>,
    file: File,
    bytes: u64,
    begun: SystemTime,
    /// Number and hash of the last line that was written.
    head: Head,
    head_file: File,
    synced: Instant,
    is_dirty: bool,
    /// While the clock is not trusted, no file is removed as too old.
    watch: Watch,
    trust: Trust,
    /// Sealed lines behind `head` that are still to be written, and the head behind them.
    sealed: Vec<u8>,
    next: Head,
    /// When a write failed; `None` once a later one has succeeded.
    failed: Option<Instant>,
}

impl Writer {
    fn open(dir: &Path, retention: Retention, lost: Arc<AtomicU64>) -> io::Result<Self> {
        let (mut head, mut first, mut bytes) = (Head::default(), 1, 0);
        if let Some(last) = files(dir)?.pop() {
            first = last;
            (head, bytes) = chain::end(&dir.join(name(last)), Head::before(dir, last)?)?;
        }
        let mut file = durable::open_or_create(&dir.join(name(first)))?;
        let begun = file.metadata()?.created().unwrap_or_else(|_| SystemTime::now());
        // A line that a crash cut short was never counted.
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        let noted = Head::read(dir)?;
        let head_file = durable::open_or_create(&dir.join("head"))?;
        durable::sync_dir(dir)?;
        let synced = Instant::now();
        let dir = dir.to_owned();
        let next = head.clone();
        let mut writer = Self {
            dir,
            retention,
            lost,
            file,
            bytes,
            begun,
            head,
            head_file,
            synced,
            is_dirty: false,
            watch: Watch::default(),
            trust: Trust::Good,
            sealed: Vec::new(),
            next,
            failed: None,
        };
        if noted.number > writer.head.number {
            tracing::error!("the audit log ends before its last recorded line: lines were cut off");
            writer.seal(&own("audit_cut", "head", noted.number));
            writer.write()?;
            writer.sync()?;
        }
        Ok(writer)
    }

    fn run(mut self, waiting: &Receiver<Vec<u8>>) {
        loop {
            let first = match waiting.recv_timeout(SYNC_EVERY) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_some() {
                std::thread::sleep(GATHER);
            }
            let lines = first.into_iter().chain(waiting.try_iter().take(BATCH_LINES_MAX));
            self.take(lines.collect());
        }
        self.seal_gap();
        let flushed = self.flush();
        if let Err(error) = self.sync().and(flushed) {
            tracing::error!(%error, "the end of the audit log may be lost");
        }
    }

    /// Seals and writes lines. If writing fails, they are kept, up to a bound, and written with
    /// later ones.
    fn take(&mut self, lines: Vec<Vec<u8>>) {
        self.trust = self.watch.look(&SystemClock);
        self.seal_gap();
        for line in lines {
            if self.sealed.len() < SEALED_BYTES_MAX {
                self.seal(&line);
            } else {
                lose(&self.lost, 1);
            }
        }
        // A failing disk is not tried again for every line.
        if self.failed.is_some_and(|failed| failed.elapsed() < RETRY_AFTER) {
            return;
        }
        let outcome = self.flush();
        let before = self.failed;
        self.failed = outcome.is_err().then(Instant::now);
        match outcome {
            Ok(()) if before.is_some() => tracing::info!("the audit log can be written again"),
            Ok(()) => {}
            Err(error) => {
                let (waiting, lost) = (self.sealed.len(), self.lost.load(Ordering::Relaxed));
                if before.is_some() && lost == 0 {
                    tracing::debug!(%error, "the audit log still cannot be written");
                } else {
                    tracing::error!(%error, waiting, lost, "the audit log cannot be written");
                }
            }
        }
    }

    /// Seals a line that reports how many lines were lost, once there is room for it.
    fn seal_gap(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 && self.sealed.len() < SEALED_BYTES_MAX {
            self.seal(&own("audit_gap", "lost", lost));
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
    }

    /// Gives a line its place in the chain. It keeps that place, however often writing it fails.
    fn seal(&mut self, line: &[u8]) {
        let (line, next) = seal(line, &self.next);
        self.sealed.extend_from_slice(&line);
        self.sealed.push(b'\n');
        self.next = next;
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.sealed.is_empty() {
            // A failed write may have left half a line there.
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            self.rotate_when_due()?;
            self.write()?;
        }
        if self.is_dirty && self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.sealed)?;
        self.bytes += self.sealed.len() as u64;
        self.head = self.next.clone();
        self.sealed.clear();
        self.sealed.shrink_to(SEALED_BYTES_KEPT);
        self.is_dirty = true;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        // The head must never be ahead of the durable lines, or a power cut would look as if
        // somebody had cut lines out.
        self.head_file.write_all_at(self.head.to_string().as_bytes(), 0)?;
        self.head_file.sync_data()?;
        (self.is_dirty, self.synced) = (false, Instant::now());
        Ok(())
    }

    /// Begins a new file if this one is large or old enough, and removes files that need not be
    /// kept.
    fn rotate_when_due(&mut self) -> io::Result<()> {
        let age = self.begun.elapsed().unwrap_or_default();
        let is_due = self.bytes >= self.retention.file_bytes || age >= FILE_AGE_MAX;
        if self.bytes == 0 || !is_due {
            return Ok(());
        }
        self.file.sync_data()?;
        self.file = durable::create_new(&self.dir.join(name(self.head.number + 1)))?;
        (self.bytes, self.begun) = (0, SystemTime::now());
        let mut files = files(&self.dir)?;
        files.pop();
        for first in files.into_iter().take_while(|_| self.trust == Trust::Good) {
            let path = self.dir.join(name(first));
            let age = fs::metadata(&path)?.modified()?.elapsed().unwrap_or_default();
            if age < self.retention.keep {
                break;
            }
            fs::remove_file(path)?;
        }
        durable::sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests;
