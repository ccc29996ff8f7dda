//! Ballast: a file of allocated blocks that nobody reads, for what must work on a full disk.
//!
//! What lets something go takes some room itself, long before it gives any back, and so does an
//! open. Where there is none, they have it of this file, which is made smaller, and again as large
//! as it was once there is room. It is never synced: who finds it smaller, or gone, has that room.

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

/// What it is at the most: sled writes where its pages lie at an open, some 18 MiB at a million
/// files, and a deletion takes some 1.5 KB of journal.
const BYTES_MAX: u64 = 64 << 20;
/// On a small disk it is this part of it.
const PART_OF_DISK: u64 = 4;
/// So many pieces: one is given up at a time, so that others on the disk get at little of it. As
/// much is never taken, as a start and the audit log write small files.
const PIECES: u64 = 16;
/// How often one that is not whole looks whether there is room.
const REFILL_EVERY: Duration = Duration::from_secs(1);
/// Pieces that releases leave: who deletes much must not keep from the disk what gives room back.
const LEFT_TO_RECLAIM: u64 = 10;
/// Pieces that are left for the next open.
const LEFT_TO_OPEN: u64 = 8;

/// See the module.
pub struct Ballast {
    path: PathBuf,
    piece: u64,
    bytes: u64,
    refilled: Option<Instant>,
}

impl Ballast {
    /// Gives all of it up, for an open.
    ///
    /// # Errors
    /// [`crate::meta::Error::Unavailable`] when the disk fails.
    pub fn given_up(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("ballast");
        match fs::remove_file(&path) {
            // Some file systems take room even for that.
            Err(error) if error.kind() != io::ErrorKind::NotFound && !is_full(&error) => {
                return Err(unavailable(error));
            }
            _ => {}
        }
        let disk = statvfs(data_dir).map_err(|errno| unavailable(errno.into()))?;
        let bytes = disk.f_blocks.saturating_mul(disk.f_frsize) / PART_OF_DISK;
        Ok(Self { path, piece: bytes.min(BYTES_MAX) / PIECES, bytes: 0, refilled: None })
    }

    /// Whether clients have had their share.
    pub fn is_low(&self) -> bool {
        self.bytes <= LEFT_TO_RECLAIM * self.piece
    }

    pub fn is_whole(&self) -> bool {
        self.bytes == PIECES * self.piece
    }

    /// Takes what is free until it is whole, and answers whether it is. One that is not is looked
    /// after once a second.
    pub fn refill(&mut self) -> bool {
        let is_due = self.refilled.is_none_or(|last| last.elapsed() >= REFILL_EVERY);
        if !self.is_whole() && is_due {
            self.refilled = Some(Instant::now());
            if let Err(error) = self.grow()
                && !is_full(&error)
            {
                tracing::warn!(%error, "the ballast does not grow");
            }
        }
        self.is_whole()
    }

    /// By pieces: a quota may end it before the disk does.
    fn grow(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let disk = statvfs(dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let whole = PIECES * self.piece;
        let most = whole.min(self.bytes + free.saturating_sub(self.piece));
        if self.bytes + self.piece > most {
            return Ok(());
        }
        let file = durable::open_or_create(&self.path)?;
        // Somebody may have removed it, or cut it.
        self.bytes = self.bytes.min(file.metadata()?.len());
        while self.bytes + self.piece <= most {
            file.set_len(self.bytes + self.piece)?;
            match fallocate(&file, FallocateFlags::KEEP_SIZE, self.bytes, self.piece) {
                // A file system that cannot allocate ahead: nothing is held back there.
                Ok(()) | Err(Errno::OPNOTSUPP) => self.bytes += self.piece,
                Err(errno) => {
                    file.set_len(self.bytes)?;
                    return Err(errno.into());
                }
            }
        }
        Ok(())
    }

    /// Gives a piece up to such a step, but nothing of what is left to others, and answers whether
    /// it did.
    pub fn shrink(&mut self, effect: Effect) -> bool {
        let left = self.piece
            * match effect {
                Effect::Takes => PIECES,
                Effect::Releases => LEFT_TO_RECLAIM,
                Effect::Reclaims => LEFT_TO_OPEN,
            };
        if self.bytes <= left {
            return false;
        }
        let bytes = self.bytes.saturating_sub(self.piece).max(left);
        let file = File::options().write(true).open(&self.path);
        match file.and_then(|file| file.set_len(bytes)) {
            Ok(()) => {
                self.bytes = bytes;
                true
            }
            // It is a help, and no store: without it there is no room, and that is all.
            Err(error) => {
                tracing::warn!(%error, "the ballast cannot be given up");
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
        let (whole, kept) = (PIECES * ballast.piece, LEFT_TO_RECLAIM * ballast.piece);
        assert!(ballast.refill() && on_disk() >= whole);
        assert!(ballast.shrink(Effect::Releases));
        assert!(!ballast.is_whole() && on_disk() < whole);
        while ballast.shrink(Effect::Releases) {}
        assert!(ballast.is_low() && on_disk() >= kept && on_disk() < whole);
        assert!(ballast.shrink(Effect::Reclaims) && on_disk() < kept);
        ballast.refilled = None;
        assert!(ballast.refill() && on_disk() >= whole);
        // Somebody removes it.
        fs::remove_file(dir.path().join("ballast")).unwrap();
        assert!(!ballast.shrink(Effect::Releases) && !ballast.is_whole());
        ballast.refilled = None;
        assert!(ballast.refill() && on_disk() >= whole);
        Ballast::given_up(dir.path()).unwrap();
        assert_eq!(on_disk(), 0);
    }
}
