//! Named points at which a test build can be made to die or to hang.
//!
//! `SLT_FAULT_POINT="NAME COUNT"` kills the process, as `kill -9` would, when it reaches the point
//! of that name for the COUNT-th time; `SLT_HANG_POINT` stops the thread instead. If
//! `SLT_FAULT_AFTER` names a file, only passes while that file exists count: what a daemon does by
//! itself would otherwise shift the count of a test that waits for something else. Release builds
//! have no such points.

/// A point between two steps of a protocol. Costs nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}

#[cfg(debug_assertions)]
pub use armed::point;

#[cfg(debug_assertions)]
mod armed {
    use std::{
        env,
        path::PathBuf,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// The name of the point, and at which pass from now it strikes.
    struct Armed(Option<(String, AtomicU64)>);

    static DEADLY: LazyLock<Armed> = LazyLock::new(|| Armed::by("SLT_FAULT_POINT"));
    static ENDLESS: LazyLock<Armed> = LazyLock::new(|| Armed::by("SLT_HANG_POINT"));
    static AFTER: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| env::var_os("SLT_FAULT_AFTER").map(PathBuf::from));

    impl Armed {
        fn by(variable: &str) -> Self {
            let parse = |fault: String| {
                let (name, count) = fault.rsplit_once(' ')?;
                Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
            };
            Self(env::var(variable).ok().and_then(parse))
        }

        fn strikes(&self, name: &str) -> bool {
            let armed = self.0.as_ref().filter(|(armed, _)| armed == name);
            let counts = || AFTER.as_ref().is_none_or(|file| file.exists());
            armed.is_some_and(|(_, left)| counts() && left.fetch_sub(1, Ordering::SeqCst) == 1)
        }
    }

    pub fn point(name: &str) {
        if DEADLY.strikes(name) {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal is on its way; this thread must do nothing more.
            hang();
        }
        if ENDLESS.strikes(name) {
            tracing::info!(name, "hangs at a fault point");
            hang();
        }
    }

    fn hang() -> ! {
        loop {
            std::thread::park();
        }
    }
}
