//! Named points at which a test build can be made to die.
//!
//! `SLT_FAULT_POINT="NAME COUNT"` kills the process, as `kill -9` would, when it comes to
//! the point of that name for the COUNT-th time. Release builds have no such points.

/// A point between two steps of a protocol. Free in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
pub use armed::point;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// Name of the point and how often it may still be passed.
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let fault = std::env::var("SLT_FAULT_POINT").ok()?;
        let (name, count) = fault.rsplit_once(' ')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });

    pub fn point(name: &str) {
        if let Some((armed, left)) = &*ARMED
            && armed == name
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal is on its way; nothing of this thread may happen any more.
            loop {
                std::thread::park();
            }
        }
    }
}
