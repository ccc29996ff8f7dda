//! Snapshots: all records in one file, so that the logs before it can be removed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Builder, Files, JournalId, head};
use crate::{
    meta::{Error, Result, sled::runs::Entry},
    sys::{durable, fault},
};

/// Bytes of writes in one record of a snapshot.
const RECORD_BYTES: usize = 256 << 10;

/// Saves `records`, which are all records, as the snapshot of commit `number`, which must be
/// applied. Later commits may go on meanwhile. Removes the files before the snapshot and returns
/// its size in bytes. Setting `stop` ends the work early.
///
/// # Errors
/// [`Error::NoSpace`], and when sled or the disk fails. If the snapshot cannot be written, what was
/// written of it is removed, and nothing else has changed.
pub fn save(
    files: &Files,
    id: JournalId,
    number: u64,
    records: impl Iterator<Item = Result<Entry>>,
    stop: &AtomicBool,
) -> Result<u64> {
    let temporary = files.dir.join("snapshot.tmp");
    let written = write(&temporary, id, number, records, stop);
    if written.is_err() {
        // The next save removes the file, too.
        let _ = fs::remove_file(&temporary);
    }
    let bytes = written?;
    let publish = || -> io::Result<()> {
        fault::point("snapshot: durable");
        fs::rename(&temporary, files.snapshot(number))?;
        durable::sync_dir(&files.dir)?;
        fault::point("snapshot: named");
        files.prune(number)?;
        fault::point("snapshot: logs gone");
        Ok(())
    };
    publish().map_err(super::unwritten)?;
    Ok(bytes)
}

fn write(
    path: &Path,
    id: JournalId,
    number: u64,
    records: impl Iterator<Item = Result<Entry>>,
    stop: &AtomicBool,
) -> Result<u64> {
    let _ = fs::remove_file(path);
    let file = durable::create_new(path).map_err(super::unwritten)?;
    let mut out = BufWriter::with_capacity(RECORD_BYTES, file);
    let mut bytes = 0;
    let mut put = |record: &[u8]| {
        bytes += record.len() as u64;
        out.write_all(record).map_err(super::unwritten)
    };
    put(&head(id, number))?;
    let mut record = Builder::default();
    for entry in records {
        let (key, value) = entry?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Unavailable("the store is closing".into()));
        }
        record.push(&key, Some(&value));
        if record.len() >= RECORD_BYTES {
            put(&std::mem::take(&mut record).finish(number))?;
        }
    }
    if !record.is_empty() {
        put(&record.finish(number))?;
    }
    // A record without writes marks the end of the snapshot.
    put(&Builder::default().finish(number))?;
    let sync = |out: BufWriter<File>| out.into_inner().map_err(io::Error::from)?.sync_all();
    sync(out).map_err(super::unwritten)?;
    Ok(bytes)
}
