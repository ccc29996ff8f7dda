//! Room for sled: blocks that its file will grow into are allocated before a commit is taken, so
//! that sled, which does not recover from a full disk, never meets one.

use std::{fs::File, io, os::unix::fs::MetadataExt};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::journal::{is_full, unavailable};
use crate::meta::{Error, Result};

/// What sled writes for each write that is settled. Each run that is met is written, and with every
/// tenth change of a page all of its sixteen: some 3 KiB for each of the runs, which are fewer than
/// the writes.
const WRITE_BYTES: u64 = 3 << 10;
/// Allocated ahead of the file's end beside what waits to be settled needs.
const ROOM_BYTES: u64 = 16 << 20;
/// With less than this left, more is allocated: what the largest commits need.
const ROOM_BYTES_MIN: u64 = 12 << 20;
/// Bytes of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Where `file` ends, and bytes that are allocated behind that.
fn ahead(file: &File) -> Result<(u64, u64)> {
    let stat = file.metadata().map_err(unavailable)?;
    Ok((stat.len(), stat.blocks().saturating_mul(BLOCK_BYTES).saturating_sub(stat.len())))
}

/// Whether `file` can take `writes` with what is allocated.
///
/// # Errors
/// [`Error::Unavailable`] when the disk fails.
pub fn holds(file: &File, writes: usize) -> Result<bool> {
    Ok(ahead(file)?.1 >= (writes as u64).saturating_mul(WRITE_BYTES))
}

/// Makes sure that `file` can take `waiting` writes and those of a commit.
///
/// # Errors
/// [`Error::NoSpace`] when there is no room; [`Error::Unavailable`] when the disk fails.
pub fn reserve(file: &File, waiting: usize) -> Result<()> {
    let waiting_bytes = (waiting as u64).saturating_mul(WRITE_BYTES);
    let (end, ahead) = ahead(file)?;
    if ahead >= ROOM_BYTES_MIN + waiting_bytes {
        return Ok(());
    }
    // Keeps the size, which sled reads as the end of its log.
    match fallocate(file, FallocateFlags::KEEP_SIZE, end, ROOM_BYTES + waiting_bytes) {
        // A file system that cannot allocate ahead: sled takes its chance.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) if is_full(&io::Error::from(errno)) => Err(Error::NoSpace),
        Err(errno) => Err(unavailable(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_held() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        assert!(!holds(&file, 1).unwrap());
        reserve(&file, 1_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10_000);
        assert!(holds(&file, 1_000).unwrap() && !holds(&file, 100_000).unwrap());
    }
}
