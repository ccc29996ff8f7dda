//! Ballast: a file of allocated blocks that nobody reads, for work that must succeed on a full
//! disk.
//!
//! A step that releases something takes some room itself, long before it gives any back, and so
//! does an open. When the disk has no room left, they take it from this file: the file is made
//! smaller, and grows to its full size again once there is room. It is never synced: whoever finds
//! it smaller or gone has that room.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use super::{
    journal::{is_full, unavailable},
    room::Effect,
};
use crate::{meta::Result, sys::durable};

/// Largest size of the ballast. A deletion takes some 1.5 KB of journal.
const BYTES_MAX: u64 = 64 << 20;
/// On a small disk the ballast is the disk's size divided by this.
const PART_OF_DISK: u64 = 4;
/// The ballast consists of this many pieces. One piece is given up at a time, so that other users
/// of the disk can take little of it.
const PIECES: u64 = 16;
/// The ballast leaves a piece divided by this free, because a start and the audit log write small
/// files.
const PART_LEFT_FREE: u64 = 4;
/// How often a ballast that is not whole checks whether there is room.
const REFILL_EVERY: Duration = Duration::from_secs(1);
/// The next open has this part of the ballast, and for the list of the places of its pages that
/// sled writes there (18 MiB at a million files) this part of the size of sled's file, but no more
/// than half of the ballast.
const PART_TO_OPEN: u64 = 4;
const PART_OF_INDEX: u64 = 8;
/// Pieces beyond that for the work that gives room back: a client that deletes much must not use
/// them up.
const PIECES_TO_RECLAIM: u64 = 2;

/// See the module.
pub struct Ballast {
    path: PathBuf,
    /// sled's file.
    index: PathBuf,
    piece: u64,
    bytes: u64,
    refilled: Option<Instant>,
}

impl Ballast {
    /// Gives up the whole ballast, for an open.
    ///
    /// # Errors
    /// [`crate::meta::Error::Unavailable`] when the disk fails.
    pub fn given_up(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("ballast");
        match fs::remove_file(&path) {
            // Some file systems need room even to remove a file.
            Err(error) if error.kind() != io::ErrorKind::NotFound && !is_full(&error) => {
                return Err(unavailable(error));
            }
            _ => {}
        }
        let disk = statvfs(data_dir).map_err(|errno| unavailable(errno.into()))?;
        let bytes = disk.f_blocks.saturating_mul(disk.f_frsize) / PART_OF_DISK;
        let (index, piece) = (data_dir.join("meta/db"), bytes.min(BYTES_MAX) / PIECES);
        Ok(Self { path, index, piece, bytes: 0, refilled: None })
    }

    pub fn is_whole(&self) -> bool {
        self.bytes == PIECES * self.piece
    }

    /// Grows the ballast with free room until it is whole, and returns whether it is whole. Tries
    /// once a second at most.
    pub fn refill(&mut self) -> bool {
        let is_due = self.refilled.is_none_or(|last| last.elapsed() >= REFILL_EVERY);
        if !self.is_whole() && is_due {
            self.refilled = Some(Instant::now());
            if let Err(error) = self.grow()
                && !is_full(&error)
            {
                tracing::warn!(%error, "the ballast cannot be refilled");
            }
        }
        self.is_whole()
    }

    /// Grows by pieces, because a quota may end the growth before the disk is full.
    fn grow(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let disk = statvfs(dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let file = durable::open_or_create(&self.path)?;
        // Somebody may have removed or truncated the file.
        self.bytes = self.bytes.min(file.metadata()?.len());
        let left_free = self.piece / PART_LEFT_FREE;
        let most = self.bytes.saturating_add(free.saturating_sub(left_free));
        let most = most.min(PIECES * self.piece);
        while self.bytes < most {
            let bytes = self.piece.min(most - self.bytes);
            file.set_len(self.bytes + bytes)?;
            match fallocate(&file, FallocateFlags::KEEP_SIZE, self.bytes, bytes) {
                // The file system cannot allocate ahead: nothing is reserved there.
                Ok(()) | Err(Errno::OPNOTSUPP) => self.bytes += bytes,
                Err(errno) => {
                    file.set_len(self.bytes)?;
                    return Err(errno.into());
                }
            }
        }
        Ok(())
    }

    /// What a step with this effect must leave.
    fn left_by(&self, effect: Effect) -> u64 {
        let whole = PIECES * self.piece;
        let index = fs::metadata(&self.index).map_or(u64::MAX, |index| index.len());
        let to_open = (whole / PART_TO_OPEN).saturating_add(index / PART_OF_INDEX).min(whole / 2);
        match effect {
            Effect::Takes => whole,
            Effect::Releases => to_open + PIECES_TO_RECLAIM * self.piece,
            Effect::Reclaims => to_open,
        }
    }

    /// Gives up a piece for a step with this effect, but nothing of the share of other effects, and
    /// returns whether it did.
    pub fn shrink(&mut self, effect: Effect) -> bool {
        let left = self.left_by(effect);
        if self.bytes <= left {
            return false;
        }
        let bytes = self.bytes.saturating_sub(self.piece).max(left);
        let file = File::options().write(true).open(&self.path);
        match file.and_then(|file| file.set_len(bytes)) {
            Ok(()) => {
                self.bytes = bytes;
                // What is left of a piece comes back before others take it.
                self.refilled = None;
                true
            }
            // The ballast is only a help: without it there is less room, and nothing is lost.
            Err(error) => {
                tracing::warn!(%error, "the ballast cannot be freed");
                self.bytes = 0;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_given_up_in_pieces_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let on_disk =
            || fs::metadata(dir.path().join("ballast")).map_or(0, |own| own.blocks() * 512);
        let mut ballast = Ballast::given_up(dir.path()).unwrap();
        let (whole, kept) = (PIECES * ballast.piece, ballast.left_by(Effect::Releases));
        assert!(ballast.refill() && on_disk() >= whole);
        assert!(ballast.shrink(Effect::Releases));
        assert!(!ballast.is_whole() && on_disk() < whole);
        while ballast.shrink(Effect::Releases) {}
        assert!(on_disk() >= kept && on_disk() < whole);
        assert!(ballast.shrink(Effect::Reclaims) && on_disk() < kept);
        assert!(ballast.refill() && on_disk() >= whole);
        // With a smaller index, less is left for the next open.
        fs::create_dir(dir.path().join("meta")).unwrap();
        fs::write(&ballast.index, b"").unwrap();
        assert!(ballast.left_by(Effect::Releases) < kept);
        assert_eq!(ballast.left_by(Effect::Reclaims), whole / PART_TO_OPEN);
        // Somebody removes it.
        fs::remove_file(dir.path().join("ballast")).unwrap();
        assert!(!ballast.shrink(Effect::Releases) && !ballast.is_whole());
        ballast.refilled = None;
        assert!(ballast.refill() && on_disk() >= whole);
        Ballast::given_up(dir.path()).unwrap();
        assert_eq!(on_disk(), 0);
    }
}
