//! The directory of sled, opened whatever lies in it.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use sled::Db;

use super::{Place, failed_io, read_ahead};
use crate::meta::{Error, Result};

/// sled writes a page that is larger than a quarter of a segment into a file of its own and never
/// syncs that file. A leaf holds up to 16 runs and a chain of 10 more: at
/// [`super::super::txn::RECORD_BYTES_MAX`] and a run each, a quarter of this is never reached.
const SEGMENT_BYTES: usize = 4 << 20;
/// How long a store that was closed a moment ago may take to let go of its lock: sled's own threads
/// do it behind the last handle.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// What sled says then; it has no kind of its own for it.
const LOCK_HELD: &str = "could not acquire lock";

/// sled leaves a snapshot that it did not live to finish under this ending, and takes it for a
/// whole one at the next open.
const UNFINISHED: &str = "generating";

fn remove_unfinished(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

pub fn open_db(place: &Place) -> Result<Db> {
    remove_unfinished(&place.meta).map_err(failed_io)?;
    let config = sled::Config::new()
        .path(&place.meta)
        .cache_capacity(place.cache_bytes)
        .segment_size(SEGMENT_BYTES);
    let began = Instant::now();
    loop {
        // sled panics rather than fails on some damaged directories.
        let open = || catch_unwind(AssertUnwindSafe(|| config.open()));
        let opened = read_ahead::beside(&place.meta, SEGMENT_BYTES as u64, open)
            .map_err(|_| Error::Corrupt("sled cannot open its directory".into()))?;
        match opened {
            Err(sled::Error::Io(error)) if error.to_string().contains(LOCK_HELD) => {
                if began.elapsed() > LOCK_TIMEOUT {
                    return Err(Error::Unavailable("another process holds meta/".into()));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // What the operating system refuses says nothing about the files.
            Err(sled::Error::Io(error)) if error.raw_os_error().is_some() => {
                return Err(failed_io(error));
            }
            Err(error) => return Err(Error::Corrupt(error.to_string())),
            Ok(db) => return Ok(db),
        }
    }
}
