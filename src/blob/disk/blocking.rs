//! Work that waits for the disk, or takes a while, off the reactor.

use tokio::{
    runtime::Handle,
    task::{JoinError, spawn_blocking},
};

use crate::blob::{Error, Result};

/// Waits for a job on the blocking pool.
pub async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(spawn_blocking(job).await)
}

/// The outcome of a blocking job; one that panicked is an I/O failure of its caller only.
pub fn joined<T>(outcome: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(Error::Io(error.to_string())))
}

/// Letting go of a large file takes a while.
pub fn off_the_reactor(job: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(job)),
        Err(_) => job(),
    }
}
