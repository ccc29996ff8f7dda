//! Runs work that waits for the disk, or takes long, off the reactor.

use tokio::{
    runtime::Handle,
    task::{JoinError, spawn_blocking},
};

use crate::blob::{Error, Result};

/// Runs a job on the blocking pool and waits for it.
pub async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(spawn_blocking(job).await)
}

/// The outcome of a blocking job. A panic in the job is an I/O error for its caller only.
pub fn joined<T>(outcome: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(Error::Io(error.to_string())))
}

/// Runs a job on the blocking pool without waiting for it: freeing a large file takes a while.
pub fn off_the_reactor(job: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(job)),
        Err(_) => job(),
    }
}
