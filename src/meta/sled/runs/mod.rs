//! The index as it lies in sled: neighbouring records are stored together in **runs** of up to a
//! kilobyte, each under one key of sled.
//!
//! sled splits a leaf at sixteen keys, however small, and keeps some bytes in memory for each leaf,
//! cached or not. So the number of keys in sled is what costs, and a run holds many records. The
//! key of a run in sled is its **bound**: the key at which the next run begins, and greater than
//! every key in the run. The bound of a table's last run is the byte after that of the table. The
//! run that covers a key is the first one with a greater bound: one lookup in sled, which is
//! atomic. So a reader that continues from the last bound misses nothing and sees nothing twice,
//! whatever was split or joined meanwhile.
//!
//! A run that grows past its [`run_bytes`] is split according to where its table grows (see
//! [`index::growth`]). A run that lost entries and is nearly empty is joined with the next.

pub(crate) mod run;
#[cfg(test)]
pub(super) mod tests;

use std::{iter::Peekable, ops::Range};

use sled::{Batch, Db, IVec, Tree};

use self::run::{Reader, Writer};
use super::{
    commit::failed,
    index::{self, Growth},
    txn::Writes,
};
use crate::meta::{Error, Result};

/// Length at which a run is split; a run exceeds it by little more than one record. The longer the
/// runs, the fewer keys sled has, and the more bytes each change writes again: where changes come
/// anywhere in a table, each one is in another run.
const fn run_bytes(growth: Growth) -> usize {
    match growth {
        Growth::AtTheEnd | Growth::AtTheBegin => 1024,
        Growth::Anywhere => 512,
    }
}

/// Most runs in one atomic batch, because readers wait while sled takes it. Few in tests, so that
/// they cover changes that take several batches.
const RUNS_AT_ONCE: usize = if cfg!(test) { 3 } else { 64 };

/// A record and its key.
pub type Entry = (Vec<u8>, IVec);

/// Every record that sled has, by its key.
#[derive(Clone)]
pub struct Runs(Tree);

/// What covers a key: a run, or, with no bytes, the place of one.
struct Run {
    bound: IVec,
    bytes: IVec,
}

impl Runs {
    pub fn new(db: &Db) -> Self {
        Self((**db).clone())
    }

    fn covering(&self, key: &[u8]) -> Result<Run> {
        let end = index::end_of_table(key);
        let run = self.0.get_gt(key).map_err(failed)?.filter(|(bound, _)| **bound <= *end);
        let (bound, bytes) = run.unwrap_or_else(|| (end.into(), IVec::default()));
        Ok(Run { bound, bytes })
    }

    /// The record of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>> {
        let run = self.covering(key)?;
        Ok(run::find(&run.bytes, key)?.map(|value| slice(&run.bytes, value)))
    }

    /// The records from `from` on in the run that covers it, or in the next run, and the bound at
    /// which the run after that begins; `None` after the last run.
    pub fn behind(&self, from: &[u8]) -> Result<(Vec<Entry>, Option<IVec>)> {
        let Some((bound, bytes)) = self.0.get_gt(from).map_err(failed)? else {
            return Ok((Vec::new(), None));
        };
        let (mut found, mut entries) = (Vec::new(), Reader::new(&bytes));
        while let Some(value) = entries.next()? {
            if entries.key() >= from {
                found.push((entries.key().to_vec(), slice(&bytes, value)));
            }
        }
        if entries.key() >= &*bound {
            return Err(elsewhere());
        }
        Ok((found, Some(bound)))
    }

    /// Applies `writes` in atomic batches of some runs each. The last batch also stores `applied`
    /// under [`index::APPLIED`].
    pub fn apply(&self, writes: &Writes, applied: &[u8]) -> Result<()> {
        let mut writes = writes.iter().peekable();
        loop {
            let mut batch = self.batch(&mut writes)?;
            let is_last = writes.peek().is_none();
            if is_last {
                batch.insert(index::APPLIED, applied);
            }
            self.0.apply_batch(batch).map_err(failed)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Makes durable everything that sled has.
    pub fn flush(&self) -> Result<()> {
        self.0.flush().map(drop).map_err(failed)
    }

    /// The changes of the first runs that `writes` fall into. Takes those writes from the iterator.
    fn batch<'a>(
        &self,
        writes: &mut Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<IVec>)>>,
    ) -> Result<Batch> {
        let mut batch = Batch::default();
        for _ in 0..RUNS_AT_ONCE {
            let Some((key, _)) = writes.peek() else { break };
            let mut run = self.covering(key)?;
            let mut merged = Writer::default();
            while merge(&run, writes, &mut merged)? {
                let Some(next) = self.next_to_join(&run, &merged)? else { break };
                batch.remove(run.bound);
                run = next;
            }
            put(&mut batch, run, merged)?;
        }
        Ok(batch)
    }

    /// The run after `run`, which lost entries and of which `left` remains, if the two fit into one
    /// run.
    fn next_to_join(&self, run: &Run, left: &Writer) -> Result<Option<Run>> {
        let is_last = *run.bound == *index::end_of_table(left.last());
        let limit = run_bytes(index::growth(left.last()));
        if left.is_empty() || left.len() >= limit / 4 || is_last {
            return Ok(None);
        }
        let next = self.covering(&run.bound)?;
        let fits = !next.bytes.is_empty() && left.len() + next.bytes.len() <= limit;
        Ok(fits.then_some(next))
    }

    /// Loads records, in order, into an index that has none.
    pub fn loader(&self) -> Loader<'_> {
        Loader { tree: &self.0, run: Writer::default(), last: Vec::new() }
    }
}

fn elsewhere() -> Error {
    Error::Corrupt("a run of records that belong elsewhere".into())
}

/// A value of a run, without copying it.
fn slice(run: &IVec, value: Range<usize>) -> IVec {
    run.subslice(value.start, value.len())
}

/// Appends to `merged` the entries of `run` as changed by those of `writes` that are below its
/// bound. Returns whether entries were removed.
fn merge<'a>(
    run: &Run,
    writes: &mut Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<IVec>)>>,
    merged: &mut Writer,
) -> Result<bool> {
    let mut shrank = false;
    let mut old = Reader::new(&run.bytes);
    let mut stored = old.next()?;
    loop {
        let write = writes.next_if(|(key, _)| {
            ***key < *run.bound && (stored.is_none() || key.as_slice() <= old.key())
        });
        let Some((key, written)) = write else {
            let Some(value) = stored else {
                return if old.key() < &*run.bound { Ok(shrank) } else { Err(elsewhere()) };
            };
            merged.push(old.key(), &run.bytes[value])?;
            stored = old.next()?;
            continue;
        };
        if stored.is_some() && old.key() == key.as_slice() {
            shrank |= written.is_none();
            stored = old.next()?;
        }
        if let Some(written) = written {
            merged.push(key, written)?;
        }
    }
}

/// Puts `merged` in the place of `run`, and splits it if it is too long.
fn put(batch: &mut Batch, run: Run, merged: Writer) -> Result<()> {
    if merged.is_empty() {
        if !run.bytes.is_empty() {
            batch.remove(run.bound);
        }
        return Ok(());
    }
    let growth = index::growth(merged.last());
    if merged.len() <= run_bytes(growth) {
        batch.insert(run.bound, merged.finish());
        return Ok(());
    }
    let merged = merged.finish();
    let mut lengths = lengths(growth, &run::sizes(&merged)?).into_iter();
    let mut left = lengths.next();
    let mut new = Writer::default();
    let mut entries = Reader::new(&merged);
    while let Some(value) = entries.next()? {
        if left == Some(0) {
            let full = std::mem::take(&mut new);
            batch.insert(run::separator(full.last(), entries.key()), full.finish());
            left = lengths.next();
        }
        new.push(entries.key(), &merged[value])?;
        left = left.map(|left| left - 1);
    }
    batch.insert(run.bound, new.finish());
    Ok(())
}

/// How many entries each new run takes, for entries of these `sizes`.
fn lengths(growth: Growth, sizes: &[usize]) -> Vec<usize> {
    let limit = run_bytes(growth);
    let total: usize = sizes.iter().sum();
    let sizes = sizes.iter().copied();
    match growth {
        Growth::AtTheEnd => fill(sizes, limit),
        Growth::AtTheBegin => {
            let mut lengths = fill(sizes.rev(), limit);
            lengths.reverse();
            lengths
        }
        Growth::Anywhere => fill(sizes, total.div_ceil(total.div_ceil(limit))),
    }
}

/// How many entries each run takes if it is closed as soon as it has `limit` bytes.
fn fill(sizes: impl Iterator<Item = usize>, limit: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let (mut length, mut bytes) = (0, 0);
    for size in sizes {
        length += 1;
        bytes += size;
        if bytes >= limit {
            lengths.push(length);
            (length, bytes) = (0, 0);
        }
    }
    lengths.extend((length > 0).then_some(length));
    lengths
}

/// See [`Runs::loader`].
pub struct Loader<'a> {
    tree: &'a Tree,
    run: Writer,
    last: Vec<u8>,
}

impl Loader<'_> {
    /// # Errors
    /// [`Error::Corrupt`] for a record that does not come after the one before.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key <= self.last.as_slice() {
            return Err(Error::Corrupt("records that are not in order".into()));
        }
        if key.first() != self.last.first() {
            self.close(index::end_of_table(&self.last))?;
        } else if self.run.len() >= run_bytes(index::growth(key)) {
            self.close(run::separator(&self.last, key))?;
        }
        key.clone_into(&mut self.last);
        self.run.push(key, value)
    }

    fn close(&mut self, bound: Vec<u8>) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        if run.is_empty() {
            return Ok(());
        }
        self.tree.insert(bound, run.finish()).map(drop).map_err(failed)
    }

    /// Stores the last run.
    pub fn finish(mut self) -> Result<()> {
        self.close(index::end_of_table(&self.last))
    }
}
