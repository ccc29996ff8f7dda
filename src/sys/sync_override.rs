//! Makes every `sync_file_range` of this process a real `fdatasync`.
//!
//! sled 0.34.7 ends `flush()` in `sync_file_range(2)`, which neither commits a file's size nor
//! flushes the disk's cache: a power cut loses acknowledged commits (spacejam/sled#1452, #1351).
//! The dynamic linker resolves sled's call to the definition in this program, so the barrier sits
//! at sled's own ordering points. The sled engine checks at open, by [`calls`], that it does.
#![allow(unsafe_code)]

use std::{
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Takes the place of the C library's function of this name.
///
/// # Safety
/// As for `fdatasync(2)`: `fd` may be any number; a bad one is refused by the kernel. `-1`, the
/// one value [`BorrowedFd`] cannot hold, is refused here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: i32, _offset: i64, _bytes: i64, _flags: u32) -> i32 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    if fd < 0 {
        return -1;
    }
    // SAFETY: the descriptor is not -1 and is used only for this call, while the caller holds it.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    // The failing system call leaves errno for the caller; only EINTR is retried, as nothing
    // was given up then. Any other failure must reach the caller, never be tried again.
    loop {
        match rustix::fs::fdatasync(file) {
            Ok(()) => return 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                set_errno(errno.raw_os_error());
                return -1;
            }
        }
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut i32;
}

fn set_errno(value: i32) {
    // SAFETY: the C library returns a valid pointer to this thread's errno.
    unsafe { *__errno_location() = value };
}

/// How often the override was called so far. A store that has just been flushed must have raised
/// it; if it has not, power cuts are not covered and the daemon must not start.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}
