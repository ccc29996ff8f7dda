//! The journal: every commit, durable before it is applied to sled and answered.
//!
//! sled is the index that serves reads; the journal is what makes the records survive. A sled
//! directory that is lost, damaged or behind is brought up to date from the journal, and nothing
//! lives in sled alone. Below `DATA_DIR/journal/`:
//!
//! ```text
//! <number>.log        the commits after <number>, one record each, numbered without a gap
//! <number>.snapshot   every key as it was at commit <number> or a little later
//! rebuild             sled is not to be trusted: the next open makes it anew
//! ```
//!
//! Numbers are 16 hex digits. A log or snapshot begins with a record that holds the journal's
//! random id, so that files of two data directories are never mixed.
//!
//! A snapshot is taken while commits go on. A key that changes meanwhile may be in the snapshot
//! with its old value, with its new value or not at all. The commits after the snapshot's number,
//! replayed over it, correct every such key, because a write consists of a key and its value and
//! nothing else. Once the snapshot is durable, the files before it are removed.
//!
//! Room is made before it is needed: a log is filled with zeros past its end, which are synced
//! before the first record is written over them. So an append does not fail for lack of room,
//! except on a file system that moves what is overwritten (see [`Journal::append`]). After an
//! append that failed otherwise, the store needs a restart.

pub(crate) mod record;
mod replay;
mod snapshot;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub use self::{
    record::{Builder, Record},
    replay::{Replay, Survey},
    snapshot::save,
};
pub use crate::sys::durable::is_full;
use crate::{
    meta::{Error, Result},
    sys::{durable, fault, random},
};

/// Zeros are written this far ahead of a log's end.
const ROOM_BYTES: u64 = 1 << 20;
/// With less room than this left after a commit, only commits that release something are taken.
const RESERVE_BYTES: u64 = 256 << 10;
/// A log is closed once it is this long.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Identifies the data directory to which a file belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId([u8; 16]);

impl JournalId {
    pub fn new() -> Self {
        Self(random::bytes())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// The record that begins a file.
fn head(id: JournalId, number: u64) -> Vec<u8> {
    let mut head = Builder::default();
    head.push(id.as_bytes(), None);
    head.finish(number)
}

/// The id in the record that begins a file.
fn id_of(head: &Record) -> Option<JournalId> {
    match head.writes()?.as_slice() {
        [(id, None)] => JournalId::parse(id),
        _ => None,
    }
}

/// The files of a journal.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn log(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.log"))
    }

    fn snapshot(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.snapshot"))
    }

    fn rebuild(&self) -> PathBuf {
        self.dir.join("rebuild")
    }

    /// The numbers of the files of one kind, in ascending order.
    fn numbers(&self, extension: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = PathBuf::from(entry?.file_name());
            let is_of_kind = path.extension().is_some_and(|own| own == extension);
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_of_kind);
            numbers.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Size of the newest snapshot; 0 without one.
    pub fn snapshot_bytes(&self) -> io::Result<u64> {
        let newest = self.numbers("snapshot")?.pop();
        newest.map_or(Ok(0), |number| Ok(fs::metadata(self.snapshot(number))?.len()))
    }

    /// Creates the directory.
    pub fn make(&self) -> io::Result<()> {
        durable::create_dir(&self.dir)
    }

    /// Notes durably that the next open must not trust sled.
    pub fn distrust(&self) -> io::Result<()> {
        durable::write_file(&self.rebuild(), b"sled is damaged; see the log of that time\n")
    }

    pub fn is_distrusted(&self) -> bool {
        self.rebuild().exists()
    }

    /// Removes the note of [`Files::distrust`], once the sled that was not to be trusted is out of
    /// the way.
    pub fn trust(&self) -> io::Result<()> {
        match fs::remove_file(self.rebuild()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| durable::sync_dir(&self.dir)),
        }
    }

    /// Moves every log out of the way, once a snapshot holds what could be read of them.
    pub fn set_logs_aside(&self) -> io::Result<()> {
        for number in self.numbers("log")? {
            let path = self.log(number);
            fs::rename(&path, path.with_extension("log.damaged"))?;
        }
        durable::sync_dir(&self.dir)
    }

    /// Removes the files that the snapshot of `number` makes unnecessary.
    fn prune(&self, number: u64) -> io::Result<()> {
        for old in self.numbers("snapshot")?.into_iter().filter(|old| *old < number) {
            fs::remove_file(self.snapshot(old))?;
        }
        // A log ends where the next one begins.
        let logs = self.numbers("log")?;
        for pair in logs.windows(2).filter(|pair| pair[1] <= number) {
            fs::remove_file(self.log(pair[0]))?;
        }
        durable::sync_dir(&self.dir)
    }
}

struct Log {
    file: File,
    end: u64,
    zeros_until: u64,
    /// A record that was not committed may lie past the end.
    uncut: bool,
}

/// The end of the journal, where commits are appended.
pub struct Journal {
    files: Files,
    id: JournalId,
    /// The number of the last commit.
    last: u64,
    log: Option<Log>,
    /// Bytes appended since the last snapshot.
    unsaved_bytes: u64,
}

impl Journal {
    /// Continues after commit `last`, in a new log.
    pub fn after(files: Files, id: JournalId, last: u64, unsaved_bytes: u64) -> Self {
        Self { files, id, last, log: None, unsaved_bytes }
    }

    pub fn id(&self) -> JournalId {
        self.id
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The number of the last commit.
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn unsaved_bytes(&self) -> u64 {
        self.unsaved_bytes
    }

    /// Makes room for a record of `bytes` and some more. Returns `Ok(false)` when there is room for
    /// this record, but no more can be had.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when there is no room; nothing has changed then. [`Error::Unavailable`]
    /// when the disk fails.
    pub fn reserve(&mut self, bytes: usize) -> Result<bool> {
        let bytes = bytes as u64;
        self.cut()?;
        let log = match &mut self.log {
            Some(log) if log.end + bytes <= LOG_BYTES_MAX => log,
            full => {
                *full = None;
                full.insert(create(&self.files, self.id, self.last)?)
            }
        };
        if log.end + bytes + RESERVE_BYTES <= log.zeros_until {
            return Ok(true);
        }
        match log.extend(bytes + ROOM_BYTES) {
            Ok(()) => Ok(true),
            Err(Error::NoSpace) if log.end + bytes <= log.zeros_until => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Appends a commit durably, where [`Journal::reserve`] made room, and returns its number.
    ///
    /// # Errors
    /// [`Error::NoSpace`] on a file system that moves what is overwritten; what it may have kept of
    /// the record is cut off. [`Error::Unavailable`] when it is unknown what the disk holds. This
    /// is final, unless the journal [waits](Journal::waits_for_room) for room to cut the record
    /// off.
    pub fn append(&mut self, commit: Builder) -> Result<u64> {
        let number = self.last + 1;
        let bytes = commit.finish(number);
        let stopped = || Error::Unavailable("no log is open".into());
        let log = self.log.as_mut().ok_or_else(stopped)?;
        let written = log.file.write_all_at(&bytes, log.end);
        if let Err(error) = written.and_then(|()| log.file.sync_data()) {
            if !is_full(&error) {
                return Err(unavailable(error));
            }
            // Cut off before the answer, because a later open would replay the record.
            log.uncut = true;
            log.cut().map_err(unavailable)?;
            return Err(Error::NoSpace);
        }
        log.end += bytes.len() as u64;
        self.unsaved_bytes += bytes.len() as u64;
        self.last = number;
        Ok(number)
    }

    /// Whether a record that was not committed must be cut off before another one is appended.
    pub fn waits_for_room(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.uncut)
    }

    fn cut(&mut self) -> Result<()> {
        let cut = self.log.as_mut().map_or(Ok(()), Log::cut);
        cut.map_err(unwritten)
    }

    /// Ends the log, so that a snapshot of the last commit makes all of it unnecessary.
    ///
    /// # Errors
    /// As [`Journal::reserve`].
    pub fn close_log(&mut self) -> Result<()> {
        self.cut()?;
        self.log = None;
        self.unsaved_bytes = 0;
        Ok(())
    }
}

impl Log {
    /// Cuts off durably a record that was not committed. If that fails, it is tried again only when
    /// the cause was a full disk.
    fn cut(&mut self) -> io::Result<()> {
        if !self.uncut {
            return Ok(());
        }
        let cut = self.file.set_len(self.end).and_then(|()| self.file.sync_all());
        self.uncut = cut.as_ref().is_err_and(is_full);
        cut.map(|()| self.zeros_until = self.end)
    }

    /// Fills the log with zeros up to `room` bytes past its end, and syncs them.
    fn extend(&mut self, room: u64) -> Result<()> {
        let until = self.end + room;
        let missing = usize::try_from(until - self.zeros_until).unwrap_or(usize::MAX);
        let written = self.file.write_all_at(&vec![0; missing], self.zeros_until);
        // No record lies in what is synced here, so a failure loses nothing.
        match written.and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.zeros_until = until;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // Only gives back what was allocated; the next attempt writes there again.
                let _ = self.file.set_len(self.zeros_until);
                Err(Error::NoSpace)
            }
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// Creates a log for the commits after commit `number`, durably and with room. A failure leaves
/// nothing behind.
fn create(files: &Files, id: JournalId, number: u64) -> Result<Log> {
    let path = files.log(number);
    // An open reads every commit: if this log holds any, the open has missed them.
    if path.exists() && files.holds_commits(number).map_err(unavailable)? {
        let why = format!("{} holds commits that were not read", path.display());
        return Err(unavailable(io::Error::other(why)));
    }
    let attempt = || -> io::Result<Log> {
        durable::remove_file(&path)?;
        let file = durable::create_new(&path)?;
        let head = head(id, number);
        let end = head.len() as u64;
        let zeros_until = end + ROOM_BYTES;
        file.write_all_at(&head, 0)?;
        file.write_all_at(&vec![0; usize::try_from(ROOM_BYTES).unwrap_or(0)], end)?;
        file.sync_all()?;
        fault::point("journal: log begun");
        durable::sync_dir(&files.dir)?;
        Ok(Log { file, end, zeros_until, uncut: false })
    };
    attempt().map_err(|error| {
        // The next attempt removes the file, too.
        let _ = fs::remove_file(&path);
        unwritten(error)
    })
}

/// The error of a failed write on which nothing depends yet.
pub fn unwritten(error: io::Error) -> Error {
    if is_full(&error) { Error::NoSpace } else { unavailable(error) }
}

#[expect(clippy::needless_pass_by_value, reason = "goes into `map_err`")]
pub fn unavailable(error: io::Error) -> Error {
    Error::Unavailable(format!("journal: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(journal: &mut Journal) -> Result<u64> {
        let mut commit = Builder::default();
        commit.push(b"key", Some(b"value"));
        journal.reserve(commit.len()).and_then(|_| journal.append(commit))
    }

    #[test]
    fn a_log_that_holds_a_commit_is_never_begun_anew() {
        for damaged in [None, Some(9), Some(70)] {
            let dir = tempfile::tempdir().unwrap();
            let (files, id) = (Files::new(dir.path()), JournalId::new());
            drop(create(&files, id, 0).unwrap());
            let journal = || Journal::after(files.clone(), id, 0, 0);
            let mut first = journal();
            assert_eq!((append(&mut first), append(&mut first)), (Ok(1), Ok(2)));
            let mut bytes = fs::read(files.log(0)).unwrap();
            if let Some(at) = damaged {
                bytes[at] ^= 1;
            }
            fs::write(files.log(0), &bytes).unwrap();
            assert!(append(&mut journal()).is_err());
            assert!(fs::read(files.log(0)).unwrap() == bytes);
        }
    }
}
