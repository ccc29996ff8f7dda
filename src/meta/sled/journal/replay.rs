//! Reading the journal back.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::RangeInclusive,
    path::PathBuf,
};

use rustix::fs::{Advice, fadvise};

use super::{
    Files, JournalId, Record, head, id_of,
    record::{Builder, Records},
    unavailable, unwritten,
};
use crate::{
    meta::{Error, Result},
    sys::durable,
};

/// What the journal's files hold, as far as their names and heads say.
pub struct Survey {
    files: Files,
    /// `None` when there is no file with a head.
    pub id: Option<JournalId>,
    /// The commit of the newest snapshot.
    pub snapshot: Option<u64>,
    /// No file has a head, but there are commits.
    pub is_headless: bool,
    logs: Vec<u64>,
}

/// The outcome of a replay.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The last commit that was read; the one after which reading began, if the journal ends with
    /// it. If it is before that one, sled is ahead of the journal.
    pub last: u64,
    /// Commits that were not asked for cannot be read. Nothing is lost as long as sled has them.
    pub has_hole: bool,
    /// Where commits that were asked for are missing. No commit after them was replayed.
    pub damage: Option<Damage>,
}

/// Commits that are lost. A later commit may depend on one that cannot be read, so the whole
/// commits after it are lost with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    path: PathBuf,
    position: u64,
    unreadable: RangeInclusive<u64>,
    /// The last commit that is whole, or was.
    until: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, position, unreadable, until } = self;
        let (first, last) = (unreadable.start(), unreadable.end());
        write!(f, "{} is damaged at byte {position}: ", path.display())?;
        let them = if first == last {
            write!(f, "commit {first} cannot be read")?;
            "it"
        } else {
            write!(f, "commits {first} to {last} cannot be read")?;
            "them"
        };
        match until.checked_sub(last + 1) {
            None => Ok(()),
            Some(0) => write!(f, ", and {until} after {them} is left out"),
            Some(_) => write!(f, ", and {} to {until} after {them} are left out", last + 1),
        }
    }
}

/// What cannot be read of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Gaps {
    path: PathBuf,
    position: u64,
    bytes: u64,
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, position, bytes } = self;
        let path = path.display();
        write!(f, "{path} is damaged at byte {position}")?;
        match bytes {
            0 => f.write_str(", and everything after that is left out"),
            _ => write!(f, ", and the records in {bytes} bytes of it are left out"),
        }
    }
}

impl Files {
    /// Lists the files and reads their heads.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when files of two journals lie together.
    pub fn survey(&self) -> Result<Survey> {
        let snapshots = self.numbers("snapshot").map_err(unavailable)?;
        let logs = self.numbers("log").map_err(unavailable)?;
        let paths = snapshots.iter().map(|number| self.snapshot(*number));
        let mut found = None;
        for path in paths.chain(logs.iter().map(|number| self.log(*number))) {
            let head = Records::open(&path).and_then(|mut records| records.next());
            let id = head.map_err(unavailable)?.as_ref().and_then(id_of);
            if found.is_some() && id.is_some() && id != found {
                let other = path.display();
                return Err(Error::Corrupt(format!("{other} belongs to another data directory")));
            }
            found = found.or(id);
        }
        let snapshot = snapshots.last().copied();
        let mut is_headless = false;
        if found.is_none() {
            // A snapshot gets its name only once it is whole.
            is_headless = snapshot.is_some();
            for log in &logs {
                is_headless |= self.holds_commits(*log).map_err(unavailable)?;
            }
        }
        Ok(Survey { files: self.clone(), id: found, snapshot, is_headless, logs })
    }

    /// Whether a log holds a commit, whatever else in it is damaged.
    pub fn holds_commits(&self, log: u64) -> io::Result<bool> {
        let mut records = Records::open(&self.log(log))?;
        let is_begun = records.next()?.is_some();
        Ok(is_begun && records.next()?.is_some() || records.resume(log)?.is_some())
    }
}

impl Survey {
    /// Whether the logs can bring a store that has every commit up to `number` up to date.
    pub fn reaches(&self, number: u64) -> bool {
        self.snapshot == Some(number) || self.logs.iter().any(|log| *log <= number)
    }

    /// Bytes of the logs that the newest snapshot does not make unnecessary.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the size of a log cannot be read.
    pub fn unsaved_bytes(&self) -> Result<u64> {
        let saved = self.snapshot.unwrap_or(0);
        let first = self.logs.iter().rposition(|log| *log <= saved).unwrap_or(0);
        let lengths = self.logs[first..].iter().map(|number| fs::metadata(self.files.log(*number)));
        lengths.map(|log| Ok(log.map_err(unavailable)?.len())).sum()
    }

    /// Passes every commit after `after` up to `until` to `apply`, in order, until the end of the
    /// journal or damage. The logs are synced first: a commit that a killed process wrote but did
    /// not sync is part of the store from here on. The logs are read from the disk, not from the
    /// page cache, which keeps what a failed sync did not write to the disk.
    ///
    /// # Errors
    /// Those of `apply`, and [`Error::Unavailable`] when a file cannot be read.
    pub fn replay(
        &self,
        after: u64,
        until: u64,
        mut apply: impl FnMut(&Record) -> Result<()>,
    ) -> Result<Replay> {
        // None of the logs says to which journal it belongs.
        let has_hole = self.id.is_none() && !self.logs.is_empty();
        let mut replay = Replay { last: after, has_hole, ..Replay::default() };
        let first = self.logs.iter().rposition(|log| *log <= after).unwrap_or(self.logs.len());
        let logs = self.logs.get(first..).filter(|logs| !logs.is_empty());
        if let (None, Some(next)) = (logs, self.logs.first().filter(|_| after < until)) {
            replay.damage = Some(Damage {
                path: self.files.log(after),
                position: 0,
                unreadable: after + 1..=*next,
                until: self.end_of(&self.logs, *next)?.min(until),
            });
            return Ok(replay);
        }
        let Some(logs) = logs.filter(|_| after < until) else { return Ok(replay) };
        let mut last = logs[0];
        for (place, number) in logs.iter().enumerate() {
            let path = self.files.log(*number);
            File::open(&path).and_then(|log| as_on_disk(&log)).map_err(unavailable)?;
            let mut records = Records::open(&path).map_err(unavailable)?;
            let is_last = place + 1 == logs.len();
            match records.next().map_err(unavailable)?.as_ref().and_then(id_of) {
                Some(id) if Some(id) == self.id => {}
                // A crash while the log was created, unless commits are found in it.
                _ if is_last && *number == last => {}
                _ => replay.has_hole = true,
            }
            loop {
                let position = records.position();
                let mut record = records.next().map_err(unavailable)?;
                if record.is_none() {
                    record = records.resume(last).map_err(unavailable)?;
                    replay.has_hole |= record.is_some();
                }
                let Some(record) = record else { break };
                if record.number <= last && record.number <= after {
                    continue;
                }
                // Commits that sled has may be missing here.
                if record.number != last + 1 && record.number > after + 1 {
                    replay.last = last;
                    let whole = end(&mut records, record.number)?;
                    replay.damage = Some(Damage {
                        path,
                        position,
                        unreadable: last + 1..=record.number - 1,
                        until: self.end_of(&logs[place + 1..], whole)?.min(until),
                    });
                    return Ok(replay);
                }
                last = record.number;
                if last > after {
                    apply(&record)?;
                }
                if last >= until {
                    replay.last = last;
                    return Ok(replay);
                }
            }
            if let Some(next) = logs.get(place + 1)
                && *next != last
            {
                replay.has_hole = true;
                if *next > last.max(after) {
                    replay.last = last;
                    replay.damage = Some(Damage {
                        path,
                        position: records.position(),
                        unreadable: last + 1..=*next,
                        until: self.end_of(&logs[place + 1..], *next)?.min(until),
                    });
                    return Ok(replay);
                }
                last = *next;
            }
        }
        replay.last = last;
        Ok(replay)
    }

    /// The last commit that any of these logs holds as a whole, or `last` if that is later.
    fn end_of(&self, logs: &[u64], last: u64) -> Result<u64> {
        logs.iter().try_fold(last, |last, number| {
            let mut records = Records::open(&self.files.log(*number)).map_err(unavailable)?;
            end(&mut records, last.max(*number))
        })
    }

    /// The last commit that the files hold, or held before they were damaged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a file cannot be read.
    pub fn end(&self) -> Result<u64> {
        self.end_of(&self.logs, self.snapshot.unwrap_or(0))
    }

    /// Passes every record of the newest snapshot to `load` and returns the snapshot's commit.
    /// Returns 0 when there is no snapshot: then the first log begins with the first commit.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the snapshot is damaged.
    pub fn load(&self, mut load: impl FnMut(&Record) -> Result<()>) -> Result<u64> {
        let Some(number) = self.snapshot else { return Ok(0) };
        let path = self.files.snapshot(number);
        let mut records = Records::open(&path).map_err(unavailable)?;
        let mut is_whole = false;
        records.next().map_err(unavailable)?;
        while let Some(record) = records.next().map_err(unavailable)? {
            is_whole = record.payload().is_empty();
            load(&record)?;
        }
        if is_whole {
            return Ok(number);
        }
        let position = records.position();
        Err(Error::Corrupt(format!("{} is damaged at byte {position}", path.display())))
    }

    /// As [`Survey::load`], but passes over what cannot be read, and returns it beside the commit.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the snapshot cannot be read at all.
    pub fn load_readable(
        &self,
        mut load: impl FnMut(&Record) -> Result<()>,
    ) -> Result<(u64, Option<Gaps>)> {
        let Some(number) = self.snapshot else { return Ok((0, None)) };
        let path = self.files.snapshot(number);
        let mut records = Records::open(&path).map_err(unavailable)?;
        let (mut is_whole, mut gaps) = (false, None);
        let mut gap = |position: u64, bytes: u64| {
            let path = path.clone();
            gaps.get_or_insert(Gaps { path, position, bytes: 0 }).bytes += bytes;
        };
        records.next().map_err(unavailable)?;
        loop {
            let position = records.position();
            let mut record = records.next().map_err(unavailable)?;
            if record.is_none() {
                record = records.resume_piece(number).map_err(unavailable)?;
                let next = record.as_ref().map(|it| records.position() - it.bytes_in_file());
                if next.is_some() || !is_whole {
                    gap(position, next.unwrap_or(records.end()).saturating_sub(position));
                }
            }
            let Some(record) = record else { break };
            if record.number == number {
                is_whole = record.payload().is_empty();
                load(&record)?;
            }
        }
        Ok((number, gaps))
    }

    /// Reads what a store with every commit up to `last` would be rebuilt from, and returns what is
    /// damaged, a line each.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a file cannot be read.
    pub fn check(&self, last: u64) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        let base = match self.load(|_| Ok(())) {
            Err(Error::Corrupt(damage)) => {
                findings.push(damage);
                self.snapshot.unwrap_or(0)
            }
            loaded => loaded?,
        };
        let replay = self.replay(base, last, |_| Ok(()))?;
        if let Some(damage) = replay.damage {
            findings.push(damage.to_string());
        } else if replay.last < last {
            let first = replay.last + 1;
            findings.push(format!("commits {first} to {last} are not in the journal"));
        } else if replay.has_hole {
            findings.push("a log is damaged, but only where it holds no needed commit".into());
        }
        Ok(findings)
    }

    /// Copies the newest snapshot, if there is one, and returns its commit.
    ///
    /// # Errors
    /// As [`Survey::load`].
    pub fn copy_snapshot(&self, to: &Files) -> Result<u64> {
        let number = self.load(|_| Ok(()))?;
        if self.snapshot.is_some() {
            let path = to.snapshot(number);
            let copy = fs::copy(self.files.snapshot(number), &path).and_then(|_| File::open(&path));
            copy.and_then(|copy| copy.sync_all()).map_err(unavailable)?;
        }
        Ok(number)
    }

    /// Copies the commits after `after` up to `last` into a new log of another directory. The new
    /// log gets the journal id `id`, because the files here may no longer hold it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] in the other directory; [`Error::Corrupt`] when commits are missing;
    /// [`Error::Unavailable`] when the commits cannot be read or written.
    pub fn copy(&self, id: JournalId, after: u64, last: u64, to: &Files) -> Result<()> {
        let path = to.log(after);
        let mut out = BufWriter::new(durable::create_new(&path).map_err(unwritten)?);
        out.write_all(&head(id, after)).map_err(unwritten)?;
        let replay = self.replay(after, last, |record| {
            let mut copy = Builder::default();
            for (key, value) in record.writes().ok_or_else(|| Error::Corrupt("a commit".into()))? {
                copy.push(key, value);
            }
            out.write_all(&copy.finish(record.number)).map_err(unwritten)
        })?;
        if replay.last < last {
            let damage = replay.damage.map(|damage| damage.to_string());
            return Err(Error::Corrupt(damage.unwrap_or_else(|| "commits missing".into())));
        }
        let file = out.into_inner().map_err(|error| unwritten(error.into()))?;
        file.sync_all().and_then(|()| durable::sync_dir(&to.dir)).map_err(unwritten)
    }
}

/// Syncs a file and has the kernel drop its cached pages.
fn as_on_disk(file: &File) -> io::Result<()> {
    file.sync_data()?;
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// The last commit that the rest of `records` holds as a whole, or `last` if that is later.
fn end(records: &mut Records, mut last: u64) -> Result<u64> {
    loop {
        let mut record = records.next().map_err(unavailable)?;
        if record.is_none() {
            record = records.resume(last).map_err(unavailable)?;
        }
        let Some(record) = record else { return Ok(last) };
        last = last.max(record.number);
    }
}
