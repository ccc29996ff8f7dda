//! Room for sled: blocks that its file will grow into are allocated before a commit is taken, so
//! that sled, which does not recover from a full disk, never meets one.

use std::{fs::File, io, os::unix::fs::MetadataExt};

use rustix::{
    fs::{FallocateFlags, SeekFrom, fallocate, seek},
    io::Errno,
};

use super::journal::{is_full, unavailable};
use crate::meta::{Error, Result};

/// Bytes that sled writes for each write that is settled. sled writes every run that changes, and
/// with every tenth change of a page all sixteen runs of that page: some 3 KiB for each changed
/// run. There are fewer changed runs than writes.
const WRITE_BYTES: u64 = 3 << 10;

/// What a step does to the room on the disk. When room is short, later variants are still taken
/// where earlier ones are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Takes,
    /// Releases something, whose room may come back later.
    Releases,
    /// Gives room back at once. Upkeep does this, and without it no room ever comes back.
    Reclaims,
}

/// Bytes allocated past the file's end, beside what the writes that wait to be settled need.
#[derive(Clone, Copy)]
pub struct Spare {
    /// With less than this left, more is allocated.
    least: u64,
    asked: u64,
}

/// For any commit: `least` is what the largest commit needs.
pub const AMPLE: Spare = Spare { least: 12 << 20, asked: 16 << 20 };
/// For a commit that releases something, on a disk that has no more: one segment, to which sled
/// moves what lies in others.
pub const SCANT: Spare = Spare { least: 4 << 20, asked: 8 << 20 };

/// For writes that were given their room before, but may have lost it: what was allocated past the
/// end of sled's file is free again whenever sled makes the file shorter.
pub const NONE: Spare = Spare { least: 0, asked: 0 };

/// Size of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// The end of `file`, and how many bytes are allocated past it.
fn ahead(file: &File) -> Result<(u64, u64)> {
    let stat = file.metadata().map_err(unavailable)?;
    Ok((stat.len(), stat.blocks().saturating_mul(BLOCK_BYTES).saturating_sub(stat.len())))
}

/// Makes sure that `file` has room for `writes` writes and for `spare`.
///
/// # Errors
/// [`Error::NoSpace`] when there is no room; [`Error::Unavailable`] when the disk fails.
pub fn reserve(file: &File, writes: usize, spare: Spare) -> Result<()> {
    let bytes = (writes as u64).saturating_mul(WRITE_BYTES);
    let (end, ahead) = ahead(file)?;
    if ahead >= bytes + spare.least {
        return Ok(());
    }
    // From the first hole, because an open can leave some: of free segments at the end, sled cuts
    // off all but one and writes to each. Not from the start, because XFS asks for free blocks for
    // all of the range. Keeps the file's size, which sled reads as the end of its log.
    let from = seek(file, SeekFrom::Hole(0)).map_or(end, |hole| hole.min(end));
    let until = end + bytes + spare.asked;
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, until - from) {
        // The file system cannot allocate ahead, so sled may meet a full disk.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) if is_full(&io::Error::from(errno)) => Err(Error::NoSpace),
        Err(errno) => Err(unavailable(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_reserved_lies_behind_the_end() {
        let file = tempfile::tempfile().unwrap();
        // Data, and behind it a hole, which sled would use first.
        file.write_all_at(&[1; 8192], 0).unwrap();
        file.set_len(16 << 20).unwrap();
        reserve(&file, 1_000, SCANT).unwrap();
        let (end, ahead) = ahead(&file).unwrap();
        assert_eq!(end, 16 << 20);
        assert!(ahead >= 1_000 * WRITE_BYTES + SCANT.least, "{ahead}");
    }
}
