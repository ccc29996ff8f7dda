//! Opens sled's directory, whatever lies in it.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use sled::Db;

use super::{Place, failed_io, read_ahead};
use crate::meta::{Error, Result};

/// sled writes a page that is larger than a quarter of a segment to a file of its own, and never
/// syncs that file. A leaf holds up to 16 runs, and a chain of 10 more. Even if each of these is a
/// full run and a record of [`super::super::txn::RECORD_BYTES_MAX`], the page stays below a quarter
/// of a segment.
const SEGMENT_BYTES: usize = 4 << 20;
/// How long a store that was closed a moment ago may take to release its lock: sled's own threads
/// release it after the last handle is dropped.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// sled's message while the lock is held. sled has no error kind for this.
const LOCK_HELD: &str = "could not acquire lock";

/// Extension of a snapshot that sled did not finish before the process ended. At the next open,
/// sled takes such a file for a whole snapshot.
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
        // sled panics, instead of failing, on some damaged directories.
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
            // An error of the operating system says nothing about the files.
            Err(sled::Error::Io(error)) if error.raw_os_error().is_some() => {
                return Err(failed_io(error));
            }
            Err(error) => return Err(Error::Corrupt(error.to_string())),
            Ok(db) => return Ok(db),
        }
    }
}
