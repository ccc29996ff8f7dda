//! Ballast: a file of allocated blocks that nobody reads, for what must work on a full disk.
//!
//! What lets something go takes some room itself, long before it gives any back, and so does an
//! open. Where there is none, they have it of this file, which is made smaller, and again as large
//! as it was once there is room. It is never synced: who finds it smaller, or gone, has that room.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use super::journal::{is_full, unavailable};
use crate::{meta::Result, sys::durable};

const BYTES: u64 = 64 << 20;
/// Given up at a time, so that others on the disk get at little of it.
const PIECE_BYTES: u64 = 4 << 20;
/// Never taken: a start and the audit log write small files.
const SPARE_BYTES: u64 = 4 << 20;

/// Of it, what releases leave: who deletes much must not keep from the disk what gives room back.
pub const LEFT_TO_RECLAIM: u64 = 40 << 20;
/// Of it, what is left for the next open: sled writes there where its pages lie, which is some
/// 18 MiB at a million files.
pub const LEFT_TO_OPEN: u64 = 32 << 20;

/// See the module.
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// Gives all of it up, for an open.
    ///
    /// # Errors
    /// [`crate::meta::Error::Unavailable`] when the disk fails.
    pub fn given_up(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("ballast");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable(error)),
            _ => Ok(Self { path, bytes: 0 }),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn is_whole(&self) -> bool {
        self.bytes == BYTES
    }

    /// Takes what is free until it is whole, and answers whether it is.
    ///
    /// # Errors
    /// [`crate::meta::Error::Unavailable`] when the disk fails.
    pub fn refill(&mut self) -> Result<bool> {
        if self.is_whole() {
            return Ok(true);
        }
        match self.grow() {
            Err(error) if !is_full(&error) => Err(unavailable(error)),
            _ => Ok(self.is_whole()),
        }
    }

    fn grow(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let disk = statvfs(dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let bytes = BYTES.min(self.bytes + free.saturating_sub(SPARE_BYTES));
        if bytes < BYTES.min(self.bytes + PIECE_BYTES) {
            return Ok(());
        }
        let file = durable::open_or_create(&self.path)?;
        file.set_len(bytes)?;
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            // A file system that cannot allocate ahead: nothing is held back there.
            Ok(()) | Err(Errno::OPNOTSUPP) => self.bytes = bytes,
            Err(errno) => {
                file.set_len(self.bytes)?;
                return Err(errno.into());
            }
        }
        Ok(())
    }

    /// Gives a piece up, but nothing of what is `left` to others, and answers whether it did.
    ///
    /// # Errors
    /// [`crate::meta::Error::Unavailable`] when the disk fails.
    pub fn shrink(&mut self, left: u64) -> Result<bool> {
        if self.bytes <= left {
            return Ok(false);
        }
        let bytes = self.bytes.saturating_sub(PIECE_BYTES).max(left);
        let file = File::options().write(true).open(&self.path);
        file.and_then(|file| file.set_len(bytes)).map_err(unavailable)?;
        self.bytes = bytes;
        Ok(true)
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
        assert!(ballast.refill().unwrap() && on_disk() >= BYTES);
        assert!(ballast.shrink(LEFT_TO_RECLAIM).unwrap());
        assert!(!ballast.is_whole() && on_disk() < BYTES);
        while ballast.shrink(LEFT_TO_RECLAIM).unwrap() {}
        assert_eq!(ballast.bytes(), LEFT_TO_RECLAIM);
        assert!(on_disk() >= LEFT_TO_RECLAIM && on_disk() < BYTES);
        assert!(ballast.refill().unwrap() && on_disk() >= BYTES);
        Ballast::given_up(dir.path()).unwrap();
        assert_eq!(on_disk(), 0);
    }
}
