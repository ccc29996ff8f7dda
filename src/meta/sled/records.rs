//! All records: those in sled, overlaid by the newest commits, which sled does not have yet.
//!
//! A commit is durable in the journal before anybody can see it, so sled need not have it at once.
//! Commits gather in memory in a **layer**. A full layer is **settled**: taken into sled in order
//! of its keys, so that a run that many commits changed is written once. Readers look in the layer
//! that is being filled, then in the one that is being settled, then in sled. What a kill leaves
//! unsettled is replayed by the next open.
//!
//! Settling takes many small atomic batches of sled. Readers need not wait for them: until the last
//! batch is in sled, they find everything in the layer.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::de::DeserializeOwned;
use sled::IVec;

use super::{
    codec, index,
    journal::{Files, JournalId},
    open::{applied_value, unless_panicked},
    runs::{Entry, Runs},
    txn::Writes,
};
use crate::{
    meta::{Error, Result},
    model::time::UnixMillis,
    sys::fault,
};

/// Entries of a layer that are read at a time.
const PAGE: usize = 64;

/// What to do about a damaged index, once the damage is [noted](Records::distrust).
pub const REMEDY: &str = "restart the daemon, which rebuilds it from the journal";

/// See the module.
#[derive(Clone)]
pub struct Records {
    runs: Runs,
    layers: Arc<RwLock<Layers>>,
    /// Held while a layer is settled, so that only one is at a time.
    turn: Arc<Mutex<()>>,
    /// Where it is noted that sled is not to be trusted.
    files: Option<Files>,
    is_damaged: Arc<AtomicBool>,
}

#[derive(Default)]
struct Layers {
    filling: Layer,
    settling: Option<Arc<Layer>>,
    /// How many layers were taken into sled and dropped here.
    settled: u64,
    /// The last commit that readers see.
    last: u64,
}

#[derive(Default)]
struct Layer {
    writes: Writes,
    /// Bytes of its commits in the journal.
    bytes: usize,
    /// The number of its last commit.
    number: u64,
}

/// Where the newest version of a record is: in a layer, where it may be a removal, or else in sled.
enum Newest {
    Written(Option<IVec>),
    InSled,
}

/// What waits to be settled.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// Journal bytes of the layer that is being filled.
    pub bytes: usize,
    /// Writes in all layers.
    pub writes: usize,
}

impl Layers {
    fn newest_first(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.filling).chain(self.settling.as_deref())
    }

    fn newest_of(&self, key: &[u8]) -> Newest {
        match self.newest_first().find_map(|layer| layer.writes.get(key)) {
            Some(written) => Newest::Written(written.clone()),
            None => Newest::InSled,
        }
    }

    /// The writes of all layers from `from` on and below `end`. If a layer has more than [`PAGE`]
    /// of them, `end` is moved nearer.
    fn written_from(&self, from: &[u8], end: &mut Option<IVec>) -> Writes {
        let mut written = Writes::new();
        for layer in self.newest_first() {
            let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let range = layer.writes.range::<[u8], _>((Bound::Included(from), upper));
            let mut further = None;
            for (at, (key, value)) in range.enumerate() {
                if at == PAGE {
                    further = Some(IVec::from(key.as_slice()));
                    break;
                }
                written.entry(key.clone()).or_insert_with(|| value.clone());
            }
            if let Some(further) = further {
                written.split_off(&*further);
                *end = Some(further);
            }
        }
        written
    }
}

impl Records {
    /// The records of an index that has all commits up to `last`.
    pub fn new(runs: Runs, last: u64) -> Self {
        let layers = Arc::new(RwLock::new(Layers { last, ..Layers::default() }));
        Self { runs, layers, turn: Arc::default(), files: None, is_damaged: Arc::default() }
    }

    /// As [`Records::new`], for an index that the next open rebuilds if parts of it cannot be read.
    pub fn over(runs: Runs, last: u64, files: Files) -> Self {
        Self { files: Some(files), ..Self::new(runs, last) }
    }

    /// Reads from sled. A damaged page shows only when it is read, and an open may not read it.
    fn ask_sled<T>(&self, read: impl FnOnce(&Runs) -> Result<T>) -> Result<T> {
        unless_panicked(|| read(&self.runs)).inspect_err(|error| {
            if let Error::Corrupt(_) = error {
                self.distrust(error);
            }
        })
    }

    /// Notes, once and durably, that sled cannot be read or may have lost writes: it is not to be
    /// opened again.
    pub fn distrust(&self, why: &Error) {
        let Some(files) = &self.files else { return };
        if self.is_damaged.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(%why, "the index is damaged: {REMEDY}");
        if let Err(error) = files.distrust() {
            tracing::error!(%error, "the damage could not be noted, so a start may not see it: \
                stop the daemon, and rebuild the index with `streamlined fsck --rebuild`");
        }
    }

    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn layers_to_change(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the record of `key`.
    pub fn read(&self, key: &[u8]) -> Result<Option<IVec>> {
        // What is no longer in a layer is in sled.
        let newest = self.layers().newest_of(key);
        match newest {
            Newest::Written(record) => Ok(record),
            Newest::InSled => self.ask_sled(|runs| runs.get(key)),
        }
    }

    /// The record of `key`.
    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        self.read(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    pub fn contains_key(&self, key: &[u8]) -> Result<bool> {
        self.read(key).map(|record| record.is_some())
    }

    /// Every record from `start` on, in order of the keys.
    pub fn range(&self, start: &[u8]) -> Entries {
        Entries { records: self.clone(), from: Some(start.into()), read: VecDeque::new() }
    }

    /// Every record whose key begins with `prefix`.
    pub fn scan_prefix(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Entry>> + use<> {
        self.behind(prefix, None)
    }

    /// Every record whose key begins with `prefix` and comes after the key `after`.
    pub fn behind(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry>> + use<> {
        let prefix = prefix.to_vec();
        // No key lies between a key and the same key with a zero byte appended.
        let start = after.map_or_else(|| prefix.clone(), |after| [after, &[0]].concat());
        self.range(&start).take_while(move |entry| {
            entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix))
        })
    }

    /// At most `limit` records of a table, after the key `after`.
    pub fn page(&self, table: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Entry>> {
        self.behind(table, after).take(limit).collect()
    }

    /// The keys that are due in a table that is ordered by time, at most `limit`.
    pub fn due(
        &self,
        table: &[u8],
        limit: usize,
        is_due: impl Fn(UnixMillis) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let keys = self.scan_prefix(table).take(limit).map(|entry| entry.map(|(key, _)| key));
        let is_due = |key: &Result<Vec<u8>>| match key {
            // A key without a readable time must not hold back the others.
            Ok(key) => index::time(key).is_none_or(&is_due),
            Err(_) => true,
        };
        keys.take_while(is_due).collect()
    }

    /// Every record.
    pub fn iter(&self) -> Entries {
        self.range(index::FIRST_TABLE)
    }

    /// Takes in commit `number`, which has `bytes` in the journal: from here on readers see it.
    pub fn push(&self, writes: Writes, bytes: usize, number: u64) {
        let mut layers = self.layers_to_change();
        layers.filling.writes.extend(writes);
        layers.filling.bytes += bytes;
        layers.filling.number = number;
        layers.last = number;
    }

    /// The last commit that readers see, or may have seen.
    pub fn last(&self) -> u64 {
        self.layers().last
    }

    pub fn waiting(&self) -> Waiting {
        let layers = self.layers();
        let writes = layers.newest_first().map(|layer| layer.writes.len()).sum();
        Waiting { bytes: layers.filling.bytes, writes }
    }

    /// Takes into sled what was pushed before. The last batch also notes the number of the last
    /// commit. Blocks.
    ///
    /// # Errors
    /// When sled fails. What waits then stays readable, and nothing is settled any more.
    pub fn settle(&self, id: JournalId) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = self.close_layer()? else { return Ok(()) };
        self.take_into_sled(&layer, id)
    }

    /// Waits until what is being settled has been. Blocks.
    pub fn wait_for_settling(&self) {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Begins a new layer and returns the one before; `None` when that is empty.
    fn close_layer(&self) -> Result<Option<Arc<Layer>>> {
        let mut layers = self.layers_to_change();
        if layers.settling.is_some() {
            return Err(Error::Unavailable("the index has failed before".into()));
        }
        if layers.filling.writes.is_empty() {
            return Ok(None);
        }
        let layer = Arc::new(std::mem::take(&mut layers.filling));
        layers.settling = Some(Arc::clone(&layer));
        Ok(Some(layer))
    }

    fn take_into_sled(&self, layer: &Layer, id: JournalId) -> Result<()> {
        self.runs.apply(&layer.writes, &applied_value(id, layer.number))?;
        fault::point("settle: in sled");
        let mut layers = self.layers_to_change();
        layers.settling = None;
        layers.settled += 1;
        Ok(())
    }

    #[cfg(test)]
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Prevents settling while `work` runs.
    #[cfg(test)]
    pub fn while_settling<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap();
        work()
    }

    /// Makes durable everything that sled has.
    pub fn flush(&self) -> Result<()> {
        self.runs.flush()
    }
}

/// Records in order, read a run at a time.
pub struct Entries {
    records: Records,
    /// Where the next read begins; `None` after the last run.
    from: Option<IVec>,
    read: VecDeque<Entry>,
}

impl Entries {
    fn read_from(&mut self, from: &[u8]) -> Result<()> {
        let (mut stored, written, end) = loop {
            let settled = self.records.layers().settled;
            let (stored, bound) = self.records.ask_sled(|runs| runs.behind(from))?;
            let layers = self.records.layers();
            // A layer that was taken into sled between the two reads would be in neither.
            if layers.settled == settled {
                let mut end = bound;
                let written = layers.written_from(from, &mut end);
                break (stored, written, end);
            }
        };
        if let Some(end) = &end {
            stored.truncate(stored.partition_point(|(key, _)| **key < **end));
        }
        if written.is_empty() {
            self.read = stored.into();
        } else {
            let mut merged: BTreeMap<_, _> = stored.into_iter().collect();
            for (key, value) in written {
                match value {
                    Some(value) => merged.insert(key, value),
                    None => merged.remove(&key),
                };
            }
            self.read = merged.into_iter().collect();
        }
        self.from = end;
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                return Some(Ok(entry));
            }
            let from = self.from.take()?;
            if let Err(error) = self.read_from(&from) {
                return Some(Err(error));
            }
        }
    }
}
