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

/// What a step does to the room on the disk; what comes later is taken where others are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Takes,
    /// Lets something go, whose room may come back later.
    Releases,
    /// Has room given back at once, as upkeep does, without which nothing comes back.
    Reclaims,
}

/// Allocated behind the file's end, beside what waits to be settled needs.
#[derive(Clone, Copy)]
pub struct Spare {
    /// With less than this left, more is allocated.
    least: u64,
    asked: u64,
}

/// For any commit: the least is what the largest need.
pub const AMPLE: Spare = Spare { least: 12 << 20, asked: 16 << 20 };
/// For one that lets something go, on a disk that has no more: a segment, in which sled moves what
/// lies in others.
pub const SCANT: Spare = Spare { least: 4 << 20, asked: 8 << 20 };

/// Bytes of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// Where `file` ends, and bytes that are allocated behind that.
fn ahead(file: &File) -> Result<(u64, u64)> {
    let stat = file.metadata().map_err(unavailable)?;
    Ok((stat.len(), stat.blocks().saturating_mul(BLOCK_BYTES).saturating_sub(stat.len())))
}

/// Makes sure that `file` can take so many writes and has something to spare.
///
/// # Errors
/// [`Error::NoSpace`] when there is no room; [`Error::Unavailable`] when the disk fails.
pub fn reserve(file: &File, writes: usize, spare: Spare) -> Result<()> {
    let bytes = (writes as u64).saturating_mul(WRITE_BYTES);
    let (end, ahead) = ahead(file)?;
    if ahead >= bytes + spare.least {
        return Ok(());
    }
    // Keeps the size, which sled reads as the end of its log.
    match fallocate(file, FallocateFlags::KEEP_SIZE, end, bytes + spare.asked) {
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
    fn what_is_reserved_lies_behind_the_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        reserve(&file, 1_000, SCANT).unwrap();
        let (end, ahead) = ahead(&file).unwrap();
        assert_eq!(end, 10_000);
        assert!(ahead >= 1_000 * WRITE_BYTES + SCANT.least, "{ahead}");
    }
}
