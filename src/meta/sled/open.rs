//! Opens the store: sled is opened and brought to the journal's end, or rebuilt from the journal.
//!
//! | sled | journal | what is done |
//! | --- | --- | --- |
//! | empty | empty | nothing is stored yet |
//! | at commit n | has the commits after n | they are replayed |
//! | at commit n | ends before n, is gone, or has a hole before n | a snapshot of sled is saved |
//! | at commit n | lacks a commit after n | refused: acknowledged changes cannot be read |
//! | at commit n | has commits, but no file has a head | taken for sled's own, as above |
//! | behind the journal's first log, lost, damaged, foreign | whole | set aside and rebuilt |
//! | noted in `journal/rebuild` | whole | not read: set aside and rebuilt |
//! | one of the two states above | not whole | refused: sled stays where it is |
//! | damaged | empty | refused |
//! | a key for each record, as up to format 4 | whole | removed and rebuilt in runs |
//!
//! What is set aside is kept as `meta.damaged-N` and never read again.

mod directory;
mod loss;

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use sled::Db;

use self::directory::open_db;
pub use self::loss::rebuild_at_any_loss;
use super::{
    commit::failed,
    index,
    journal::{self, Files, Journal, JournalId, Record, Replay, Survey},
    read_ahead,
    records::Records,
    replay::{replay_into, writes},
    runs::Runs,
};
use crate::{
    meta::{Error, Result},
    sys::{data_dir, durable, fault, sync_override},
};

/// A store that is up to date.
pub struct Opened {
    pub db: Db,
    pub journal: Journal,
    /// sled's own file, opened separately. The kernel reports a sync error to every handle once, so
    /// this handle also gets the errors that sled was told and only logged.
    pub file: File,
}

/// Where the store's files lie, and how much sled may cache.
pub struct Place {
    data_dir: PathBuf,
    meta: PathBuf,
    files: Files,
    cache_bytes: u64,
}

impl Place {
    pub fn new(data_dir: &Path, cache_bytes: u64) -> Self {
        let files = Files::new(&data_dir.join("journal"));
        Self { data_dir: data_dir.into(), meta: data_dir.join("meta"), files, cache_bytes }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Keeps out versions that do not know the newest layout.
    pub fn stamp(&self) -> Result<()> {
        data_dir::stamp(&self.data_dir).map_err(failed_io)
    }

    pub fn is_stamped(&self) -> Result<bool> {
        data_dir::is_stamped(&self.data_dir).map_err(failed_io)
    }
}

/// See the module. Blocks.
///
/// # Errors
/// [`Error::Corrupt`] when acknowledged changes cannot be read; [`Error::Unavailable`] when the
/// disk fails, or when this build would lose data in a power cut.
pub fn open(place: &Place) -> Result<Opened> {
    let made = place.files.make();
    made.map_err(|error| Error::Unavailable(format!("journal: {error}")))?;
    let survey = place.files.survey()?;
    if survey.id.is_none() && !survey.is_headless {
        return begin(place, &survey);
    }
    let id = survey.id.unwrap_or_else(JournalId::new);
    if place.files.is_distrusted() {
        return rebuild(place, &survey, id, "it lost writes or could not be read");
    }
    let was_there = fs::read_dir(&place.meta).is_ok_and(|mut entries| entries.next().is_some());
    let found = unless_panicked(|| {
        let db = open_db(place)?;
        Ok(Found {
            lies_in_runs: lies_in_runs(place, &db)?,
            is_half_made: is_half_made(&db)?,
            has_records: has_records(&db)?,
            applied: applied(&db)?,
            db,
        })
    });
    let Found { lies_in_runs, is_half_made, has_records, applied, db } = match found {
        Err(Error::Corrupt(why)) => return rebuild(place, &survey, id, &why),
        found => found?,
    };
    // A journal without a head belongs to the index beside it.
    let id = survey.id.or_else(|| applied.map(|(own, _)| own)).unwrap_or(id);
    if !lies_in_runs {
        return convert(place, db, &survey, id, applied);
    }
    let applied = match applied {
        Some((own, number)) if own == id && !is_half_made => number,
        // No commit was applied yet.
        None if !has_records && survey.snapshot.is_none() && survey.reaches(0) => 0,
        found => {
            drop(db);
            if is_half_made || !was_there {
                fs::remove_dir_all(&place.meta).map_err(failed_io)?;
            }
            let why = match found {
                Some(_) => "it belongs to another journal",
                None if was_there => "it is incomplete",
                None => "it was missing",
            };
            return rebuild(place, &survey, id, why);
        }
    };
    let replay = unless_panicked(|| {
        prove_durable(&db, &place.meta)?;
        replay(&db, &survey, id, applied)
    });
    let replay = match replay {
        Err(Error::Corrupt(why)) => {
            drop(db);
            return rebuild(place, &survey, id, &why);
        }
        replay => replay?,
    };
    fault::point("open: replayed");
    // The logs do not bring sled up to the snapshot's commit.
    if survey.snapshot.is_some_and(|snapshot| snapshot > replay.last.max(applied)) {
        drop(db);
        return rebuild(place, &survey, id, "it is older than the journal's snapshot");
    }
    if let Some(damage) = replay.damage {
        return Err(Error::Corrupt(format!(
            "{damage}. `streamlined fsck --rebuild` goes on without these commits"
        )));
    }
    if replay.last > applied && was_there {
        tracing::info!(commits = replay.last - applied, "replayed commits that the index lacked");
    } else if replay.last > applied {
        let commits = replay.last;
        tracing::warn!(commits, "meta/ held no index: rebuilt from the journal, nothing is lost");
    }
    let last = replay.last.max(applied);
    let mut opened = opened(place, db, id, last, survey.unsaved_bytes()?)?;
    if replay.has_hole || replay.last < applied || !survey.reaches(applied) {
        tracing::warn!(
            "the journal is damaged; the index has all that it held, and is saved again"
        );
        opened.save()?;
    }
    // Left behind by a rebuild that did not finish.
    let _ = fs::remove_dir_all(loss::new_journal(place));
    Ok(opened)
}

/// Opens a store that has no journal: a new one, one of format 1, or one that lost its journal.
fn begin(place: &Place, survey: &Survey) -> Result<Opened> {
    debug_assert!(survey.id.is_none());
    let db = open_db(place)?;
    let is_new = !has_records(&db)?;
    if is_half_made(&db)? {
        let why = "the index is half made, and there is no journal to build it from";
        return Err(Error::Corrupt(why.into()));
    }
    if !lies_in_runs(place, &db)? {
        let (id, last) = applied(&db)?.unwrap_or_else(|| (JournalId::new(), 0));
        let records = db
            .range(index::FIRST_TABLE..)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value)).map_err(failed));
        saved(journal::save(&place.files, id, last, records, &AtomicBool::new(false)))?;
        drop(db);
        return open(place);
    }
    prove_durable(&db, &place.meta)?;
    let applied = applied(&db)?;
    if applied.is_some() {
        tracing::warn!(
            "the journal is gone, with all changes that the index did not have yet; the index is \
             saved as a new journal, that of another store: backups need a new directory"
        );
    }
    let last = applied.map_or(0, |(_, last)| last);
    // A new id: its backups must not replace those that have commits which the journal lost.
    let mut opened = opened(place, db, JournalId::new(), last, 0)?;
    if !is_new || last > 0 {
        opened.save()?;
    }
    Ok(opened)
}

fn opened(place: &Place, db: Db, id: JournalId, last: u64, unsaved_bytes: u64) -> Result<Opened> {
    let file = File::options().read(true).write(true).open(place.meta.join("db"));
    let file = file.map_err(failed_io)?;
    let journal = Journal::after(place.files.clone(), id, last, unsaved_bytes);
    Ok(Opened { db, journal, file })
}

impl Opened {
    /// Saves what sled holds as a snapshot, so that the journal begins there.
    fn save(&mut self) -> Result<()> {
        let (id, last) = (self.journal.id(), self.journal.last());
        mark_applied(&self.db, id, last)?;
        self.db.flush().map_err(failed)?;
        self.journal.close_log()?;
        save_as(self.journal.files(), &self.db, id, last)?;
        self.journal.files().set_logs_aside().map_err(failed_io)
    }
}

/// Saves what sled holds as the snapshot of commit `last`.
fn save_as(files: &Files, db: &Db, id: JournalId, last: u64) -> Result<()> {
    let records = Records::new(Runs::new(db), last);
    saved(journal::save(files, id, last, records.iter(), &AtomicBool::new(false)))
}

/// Rebuilds an index that could not be read after it was opened. Fails as an open does.
pub fn made_anew(place: &Place, why: &str) -> Result<Opened> {
    let survey = place.files.survey()?;
    let id = survey.id.ok_or(Error::NotFound)?;
    rebuild(place, &survey, id, why)
}

/// Rebuilds the index. Nothing is changed before the whole journal was read: an index with one
/// damaged page has everything else, and may be the only one that does.
fn rebuild(place: &Place, survey: &Survey, id: JournalId, why: &str) -> Result<Opened> {
    if let Some(damage) = Whole::read(survey)?.damage {
        return Err(Error::Corrupt(format!(
            "{damage}, and the index cannot be used: {why}. `streamlined fsck --rebuild` goes on \
             with what can be read"
        )));
    }
    let opened = make_anew(place, survey, id, Loss::Refused)?;
    tracing::warn!(
        why,
        commits = opened.journal.last(),
        "the index in meta/ could not be used and was rebuilt from the journal; nothing is lost; \
         the old index, if there was one, is kept beside it as meta.damaged-N"
    );
    Ok(opened)
}

/// What the journal holds when all of it is read.
struct Whole {
    last: u64,
    has_hole: bool,
    /// What cannot be read, so that the journal ends early.
    damage: Option<String>,
}

impl Whole {
    fn read(survey: &Survey) -> Result<Self> {
        let read = || {
            let base = survey.load(|record| writes(record).map(drop))?;
            let replay = survey.replay(base, u64::MAX, |record| writes(record).map(drop))?;
            let Replay { last, has_hole, damage } = replay;
            let last = last.max(base);
            Ok(Self { last, has_hole, damage: damage.map(|damage| damage.to_string()) })
        };
        match read() {
            Err(Error::Corrupt(damage)) => {
                Ok(Self { last: 0, has_hole: false, damage: Some(damage) })
            }
            read => read,
        }
    }
}

/// Rebuilds an index of format 4 or before from the journal. The journal has all of it, and is read
/// to its end before the index is removed.
fn convert(
    place: &Place,
    db: Db,
    survey: &Survey,
    id: JournalId,
    applied: Option<(JournalId, u64)>,
) -> Result<Opened> {
    drop(db);
    if applied.is_some_and(|(own, _)| own != id) {
        return rebuild(place, survey, id, "it belongs to another journal");
    }
    let whole = Whole::read(survey)?;
    let hole = whole.has_hole.then(|| "commits are missing".to_owned());
    let ends = applied.is_some_and(|(_, number)| number > whole.last);
    let end = ends.then(|| "the journal ends before the index".to_owned());
    let damage = whole.damage.or(hole).or(end);
    if let Some(damage) = damage {
        return Err(Error::Corrupt(format!(
            "the index cannot be rebuilt in its new layout from the journal: {damage}. To repair \
             the journal from the index, start the previous version, run its `fsck` while it \
             runs, store something, and upgrade again"
        )));
    }
    fs::remove_dir_all(&place.meta).map_err(failed_io)?;
    let opened = make_anew(place, survey, id, Loss::Refused)?;
    tracing::info!(commits = opened.journal.last(), "the index was rebuilt in its new layout");
    Ok(opened)
}

/// Whether an index may be rebuilt without what cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    Refused,
    Taken,
}

/// Rebuilds the index. The caller has read the whole journal.
fn make_anew(place: &Place, survey: &Survey, id: JournalId, loss: Loss) -> Result<Opened> {
    set_aside(&place.meta).map_err(failed_io)?;
    place.files.trust().map_err(failed_io)?;
    let db = open_db(place)?;
    db.insert(index::HALF_MADE, &[]).map_err(failed)?;
    lies_in_runs(place, &db)?;
    prove_durable(&db, &place.meta)?;
    let runs = Runs::new(&db);
    let mut loader = runs.loader();
    let mut load = |record: &Record| {
        for (key, value) in writes(record)? {
            loader.push(key, value.unwrap_or_default())?;
        }
        Ok(())
    };
    let base = match loss {
        Loss::Refused => survey.load(&mut load)?,
        Loss::Taken => survey.load_readable(&mut load)?.0,
    };
    loader.finish()?;
    let replay = replay_into(&runs, survey, id, base)?;
    // The journal was whole when it was read before: the disk has changed.
    if let (Loss::Refused, Some(damage)) = (loss, replay.damage) {
        return Err(Error::Corrupt(damage.to_string()));
    }
    let last = replay.last.max(base);
    match loss {
        Loss::Refused => mark_applied(&db, id, last)?,
        // An index that lost something is whole only once it has a journal of its own.
        Loss::Taken => db.remove(index::APPLIED).map(drop).map_err(failed)?,
    }
    db.remove(index::HALF_MADE).map_err(failed)?;
    db.flush().map_err(failed)?;
    opened(place, db, id, last, survey.unsaved_bytes()?)
}

fn replay(db: &Db, survey: &Survey, id: JournalId, applied: u64) -> Result<Replay> {
    let runs = Runs::new(db);
    let replay = replay_into(&runs, survey, id, applied)?;
    if replay.last > applied {
        db.flush().map_err(failed)?;
    }
    Ok(replay)
}

/// What is found in sled at an open.
struct Found {
    lies_in_runs: bool,
    is_half_made: bool,
    has_records: bool,
    applied: Option<(JournalId, u64)>,
    db: Db,
}

/// Runs `work`, which reads sled's pages: sled panics on some that are damaged.
pub fn unless_panicked<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err(Error::Corrupt("sled cannot read its directory".into())))
}

/// Whether sled holds anything but what the engine notes for itself.
fn has_records(db: &Db) -> Result<bool> {
    let first = db.range(index::FIRST_TABLE..).next();
    first.transpose().map(|first| first.is_some()).map_err(failed)
}

fn is_half_made(db: &Db) -> Result<bool> {
    db.contains_key(index::HALF_MADE).map_err(failed)
}

/// Whether records lie in runs. If there are no records yet, they do from now on, and versions
/// before format 5, which would take runs for records, are kept out.
fn lies_in_runs(place: &Place, db: &Db) -> Result<bool> {
    if db.contains_key(index::LIES_IN_RUNS).map_err(failed)? {
        return Ok(true);
    }
    if has_records(db)? {
        return Ok(false);
    }
    place.stamp()?;
    db.insert(index::LIES_IN_RUNS, &[]).map(|_| true).map_err(failed)
}

/// The last commit that sled has, and the journal to which that commit belongs.
fn applied(db: &Db) -> Result<Option<(JournalId, u64)>> {
    let Some(bytes) = db.get(index::APPLIED).map_err(failed)? else { return Ok(None) };
    let parsed = bytes
        .split_last_chunk::<8>()
        .and_then(|(id, number)| Some((JournalId::parse(id)?, u64::from_be_bytes(*number))));
    parsed.map(Some).ok_or_else(|| Error::Corrupt("the record of applied commits".into()))
}

/// The value of [`index::APPLIED`].
pub fn applied_value(id: JournalId, number: u64) -> Vec<u8> {
    [id.as_bytes(), &number.to_be_bytes()].concat()
}

fn mark_applied(db: &Db, id: JournalId, number: u64) -> Result<()> {
    db.insert(index::APPLIED, applied_value(id, number)).map(drop).map_err(failed)
}

/// Moves a directory away under the first free name.
fn set_aside(dir: &Path) -> io::Result<()> {
    // An empty directory is not kept.
    if !dir.exists() || fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    let aside = (1_u32..).map(|n| dir.with_extension(format!("damaged-{n}")));
    for aside in aside {
        if !aside.exists() {
            fs::rename(dir, aside)?;
            break;
        }
    }
    dir.parent().map_or(Ok(()), durable::sync_dir)
}

/// Writes and flushes one record, checks that the flush was a real sync, then syncs every file of
/// the store and its directories: sled never syncs its `conf` file itself.
fn prove_durable(db: &Db, dir: &Path) -> Result<()> {
    let before = sync_override::calls();
    db.insert(index::PROBE, &[]).map_err(failed)?;
    db.remove(index::PROBE).map_err(failed)?;
    db.flush().map_err(failed)?;
    if sync_override::calls() == before {
        let why = "sled's sync is not overridden in this build: a power cut would lose data";
        return Err(Error::Unavailable(why.into()));
    }
    sync_files(dir).map_err(failed_io)
}

fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    durable::sync_dir(dir)?;
    dir.parent().map_or(Ok(()), durable::sync_dir)
}

/// Opens sled once more so that it notes where its pages lie, which it does only at an open.
/// Otherwise the next open reads everything that was written since the last one. Those bytes are in
/// the page cache now, but may not be then. Blocks.
///
/// # Errors
/// As [`open`]. A failure loses nothing.
pub fn note_pages(place: &Place) -> Result<()> {
    drop(open_db(place)?);
    sync_files(&place.meta).map_err(failed_io)
}

/// The outcome of a snapshot without which the store does not open.
fn saved(saved: Result<u64>) -> Result<()> {
    match saved {
        Err(Error::NoSpace) => Err(no_room("No space left on device")),
        saved => saved.map(drop),
    }
}

fn failed_io(error: io::Error) -> Error {
    if journal::is_full(&error) {
        return no_room(error);
    }
    Error::Unavailable(error.to_string())
}

fn no_room(why: impl Display) -> Error {
    Error::Unavailable(format!("{why}: a start needs 64 MiB at a million files"))
}
