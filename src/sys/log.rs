//! The structured log on stderr: text on a terminal, JSON otherwise. Its filter may be changed
//! while the program runs.

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::EnvFilter;

/// The filter of the running log: how to change it, and its text.
struct Filter {
    change: Change,
    text: Mutex<String>,
}

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts the log. `filter` is a `tracing` directive such as `info` or `streamlined=debug`.
///
/// # Errors
/// What is wrong with `filter`.
pub fn start(filter: &str) -> Result<(), String> {
    let (filter, text) = (parse(filter)?, Mutex::new(filter.to_owned()));
    // A line that cannot be written is lost. Otherwise tracing-subscriber would report this on the
    // same stderr, and panic in the logging thread if that fails, too.
    let builder = tracing_subscriber::fmt().with_writer(stderr).log_internal_errors(false);
    let (started, change) = if stderr().is_terminal() {
        let builder = builder.with_target(false).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (builder.try_init(), Box::new(change) as Change)
    } else {
        let builder = builder.json().flatten_event(true);
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        (builder.try_init(), Box::new(change) as Change)
    };
    started.map_err(|error| error.to_string())?;
    // Only one log can be started, so this is not set yet.
    let _ = FILTER.set(Filter { change, text });
    Ok(())
}

/// Mutes warnings about clients' faults in HTTP/2: h2 warns of each frame, so one client could fill
/// a disk.
const QUIET: &str = "h2=error";

/// # Errors
/// What is wrong with `filter`.
pub fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Characters outside ASCII make tracing-subscriber 0.3.23 panic; no target contains any.
    if !filter.is_ascii() {
        return Err("must be ASCII".into());
    }
    // Values of fields are taken literally and not as patterns: from some patterns,
    // tracing-subscriber builds tables for minutes until memory runs out.
    let builder = EnvFilter::builder().with_regex(false);
    // Of two directives for one target, the later one counts.
    builder.parse(format!("{QUIET},{filter}")).map_err(|error| error.to_string())
}

/// Changes the filter from now on.
///
/// # Errors
/// What is wrong with `filter`; it is unchanged then.
pub fn change(filter: &str) -> Result<(), String> {
    let parsed = parse(filter)?;
    let Some(running) = FILTER.get() else { return Err("the log has not started".into()) };
    let mut text = running.text.lock().unwrap_or_else(PoisonError::into_inner);
    (running.change)(parsed)?;
    filter.clone_into(&mut text);
    Ok(())
}

/// The filter in force; `None` if the log has not started.
pub fn filter() -> Option<String> {
    let text = &FILTER.get()?.text;
    Some(text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_value_is_no_pattern() {
        assert!(parse("[part{number=(}]=debug").is_ok());
    }
}
