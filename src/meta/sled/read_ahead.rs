//! Reads ahead what sled reads when it is opened: the segments of its log after its last snapshot,
//! in the order of the log.
//!
//! sled reads one segment, processes it, and reads the next. After a power cut, which leaves no
//! page cache, disk and processor would wait for each other all the way. So another thread asks the
//! kernel for the segments ahead of sled. This changes how long an open takes and nothing else:
//! bytes that only look like a header, or a header that is damaged, make it ask for one segment too
//! many or too few. It asks for no more than half of the free memory, because a segment that is
//! evicted before sled reads it is read twice.

use std::{
    fs::{self, File},
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use rustix::{
    fs::{Advice, fadvise},
    system::sysinfo,
};

/// Size of a segment's header: CRC-32, the LSN of the segment's first byte, and a third word. In
/// the last two, all bits but the sign are inverted (sled 0.34, `pagecache/logger.rs`).
const HEADER_BYTES: usize = 20;
const INVERTED: u64 = i64::MAX.cast_unsigned();
/// Bytes of one request. The kernel takes no more than the device's own read-ahead at a time, which
/// is seldom less.
const STEP_BYTES: usize = 128 << 10;
/// Prefix of the names of sled's snapshots. The LSN that a snapshot reaches follows in hexadecimal.
const SNAPSHOT: &str = "snap.";

/// Runs `open`, which opens sled's directory, and reads ahead meanwhile. Blocks.
pub fn beside<T>(dir: &Path, segment_bytes: u64, open: impl FnOnce() -> T) -> T {
    let is_open = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || read(dir, segment_bytes, &is_open);
        // If the thread cannot be started, the open only takes longer.
        let _ = thread::Builder::new().name("meta-ahead".into()).spawn_scoped(scope, read);
        let opened = open();
        is_open.store(true, Relaxed);
        opened
    })
}

fn read(dir: &Path, segment_bytes: u64, is_open: &AtomicBool) -> io::Result<()> {
    let log = File::open(dir.join("db"))?;
    let memory = sysinfo();
    let room = memory.freeram as u64 * u64::from(memory.mem_unit) / 2 / segment_bytes;
    let segments = behind_snapshot(dir, &log, segment_bytes)?;
    for offset in segments.into_iter().take(usize::try_from(room).unwrap_or(usize::MAX)) {
        for at in (offset..offset + segment_bytes).step_by(STEP_BYTES) {
            if is_open.load(Relaxed) {
                return Ok(());
            }
            fadvise(&log, at, NonZeroU64::new(STEP_BYTES as u64), Advice::WillNeed)?;
        }
    }
    Ok(())
}

/// The offsets of the segments that hold anything after the last snapshot, in the order of the log.
fn behind_snapshot(dir: &Path, log: &File, segment_bytes: u64) -> io::Result<Vec<u64>> {
    let noted = noted(dir)?;
    let mut segments = Vec::new();
    for offset in (0..log.metadata()?.len()).step_by(usize::try_from(segment_bytes).unwrap_or(1)) {
        let mut header = [0; HEADER_BYTES];
        if log.read_exact_at(&mut header, offset).is_err() {
            break;
        }
        let [_, _, _, _, lsn @ .., _, _, _, _, _, _, _, _] = header;
        let lsn = u64::from_le_bytes(lsn);
        let begin = lsn ^ INVERTED;
        // A free segment has no header.
        if lsn != 0 && begin.checked_add(segment_bytes).is_some_and(|end| end > noted) {
            segments.push((begin, offset));
        }
    }
    segments.sort_unstable();
    Ok(segments.into_iter().map(|(_, offset)| offset).collect())
}

/// The LSN that the last snapshot reaches; 0 without one.
fn noted(dir: &Path) -> io::Result<u64> {
    let mut noted = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let lsn = name.to_str().and_then(|name| name.strip_prefix(SNAPSHOT));
        let lsn = lsn.and_then(|lsn| u64::from_str_radix(lsn, 16).ok());
        noted = noted.max(lsn.unwrap_or_default());
    }
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 64 << 10;

    fn sled_in(dir: &Path) -> sled::Db {
        let segment_bytes = usize::try_from(SEGMENT_BYTES).unwrap();
        let config = sled::Config::new().path(dir).segment_size(segment_bytes);
        // A dropped database releases its lock a moment later.
        std::iter::repeat_with(|| config.open()).find_map(Result::ok).unwrap()
    }

    fn ahead(dir: &Path) -> Vec<u64> {
        behind_snapshot(dir, &File::open(dir.join("db")).unwrap(), SEGMENT_BYTES).unwrap()
    }

    #[test]
    fn what_sled_wrote_behind_its_snapshot_is_read_ahead_in_the_order_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut is_out_of_order = false;
        for round in 0..8_u8 {
            let marker = blake3::hash(&[round]);
            let db = sled_in(dir);
            // The same keys each time, so that sled reuses its segments.
            for key in 0..2_000_u64 {
                db.insert(key.to_be_bytes(), [round; 300].as_slice()).unwrap();
            }
            db.insert("marker", marker.as_bytes()).unwrap();
            drop(db);
            let found = ahead(dir);
            is_out_of_order |= !found.is_sorted();
            assert!(found.len() as u64 >= 2_000 * 300 / SEGMENT_BYTES, "{found:?}");
            let log = fs::read(dir.join("db")).unwrap();
            let at = log.windows(32).rposition(|bytes| bytes == marker.as_bytes()).unwrap();
            assert_eq!(found.last(), Some(&(at as u64 / SEGMENT_BYTES * SEGMENT_BYTES)));
            drop(sled_in(dir));
            assert!(ahead(dir).len() <= 2, "{:?}", ahead(dir));
        }
        assert!(is_out_of_order, "sled used no segment again");
    }

    #[test]
    fn a_directory_that_is_none_is_opened_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(beside(&dir.path().join("none"), SEGMENT_BYTES, || 7), 7);
        fs::write(dir.path().join("db"), [0xff; 100]).unwrap();
        fs::write(dir.path().join("snap.not a number"), []).unwrap();
        assert_eq!(beside(dir.path(), SEGMENT_BYTES, || 7), 7);
    }
}
