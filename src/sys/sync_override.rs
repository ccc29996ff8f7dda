//! Makes every `sync_file_range` of this process a real `fdatasync`.
//!
//! sled 0.34.7 ends `flush()` in `sync_file_range(2)`, which neither commits a file's size nor
//! flushes the disk's cache: a power cut loses acknowledged commits (spacejam/sled#1452, #1351).
//! The linker resolves sled's call to the definition in this program, so the real sync happens at
//! sled's own ordering points. The sled engine checks this at each open, by [`calls`].
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// fdatasync(2) of the C library: 0, or -1 with errno set.
    safe fn fdatasync(fd: i32) -> i32;
}

/// Replaces the C library's function of this name, with the same signature. `fd` may be any number:
/// the kernel refuses one that is not open, and the caller reads errno as before.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(fd: i32, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    fdatasync(fd)
}

/// How often the override has been called. A flush of a store must have raised this number; if it
/// has not, power cuts are not covered and the daemon must not start.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}
