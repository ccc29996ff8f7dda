//! Replays commits of the journal into sled.

use sled::IVec;

use super::{
    journal::{JournalId, Record, Replay, Survey},
    open::applied_value,
    runs::Runs,
    txn::Writes,
};
use crate::meta::{Error, Result};

/// Commits are replayed in groups of this many bytes in the journal.
const LAYER_BYTES: usize = 1 << 20;

/// What a commit, or a piece of a snapshot, writes.
pub fn writes(record: &Record) -> Result<impl Iterator<Item = (&[u8], Option<&[u8]>)>> {
    let unreadable = || Error::Corrupt("a journal record that is no run of writes".into());
    record.writes().map(Vec::into_iter).ok_or_else(unreadable)
}

/// Takes the commits after `after` into sled, many at a time, because sled syncs each batch that it
/// takes.
pub fn replay_into(runs: &Runs, survey: &Survey, id: JournalId, after: u64) -> Result<Replay> {
    let (mut layer, mut bytes) = (Writes::new(), 0);
    let replay = survey.replay(after, u64::MAX, |record| {
        layer.extend(writes(record)?.map(|(key, value)| (key.to_vec(), value.map(IVec::from))));
        bytes += record.payload().len();
        if bytes >= LAYER_BYTES {
            runs.apply(&std::mem::take(&mut layer), &applied_value(id, record.number))?;
            bytes = 0;
        }
        Ok(())
    })?;
    if !layer.is_empty() {
        runs.apply(&layer, &applied_value(id, replay.last))?;
    }
    Ok(replay)
}
