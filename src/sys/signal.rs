//! Shutdown signals.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves to the name of the first SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn shutdown() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
