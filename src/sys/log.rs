//! Structured log on stderr: for people on a terminal, JSON otherwise.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` is a `tracing` directive such as `info` or `streamlined=debug`.
///
/// # Errors
/// What is wrong with `filter`.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = parse(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = if stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.map_err(|error| error.to_string())
}

/// What clients do wrong in HTTP/2. h2 warns of each frame, so that one client could fill a disk.
const QUIET: &str = "h2=error";

/// # Errors
/// What is wrong with `filter`.
pub fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Of two directives for one target the later counts.
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| error.to_string())
}
