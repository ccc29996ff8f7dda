//! `gc`, `scrub`, `fsck`, `backup` and `restore`: carried out by the running daemon, or by this
//! process if there is none. `log`, which only a running daemon can do.

mod restore;

use std::{
    io,
    path::{self, Path},
};

use hyper::Method;
use serde_json::Value;

use super::{
    Failures,
    door::{self, Socket},
    failure, say,
};
use crate::{
    config::Config,
    meta::{self, sled::SledMetadata},
    sys::log,
};

/// Runs a command and prints its report; findings in the report are a failure.
pub fn run(config: &Config, command: &str) -> Result<(), Failures> {
    let report = ask(config, command)?;
    let found = ["damaged", "unreadable"].iter().any(|name| report[name].as_u64() > Some(0));
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    if found || findings > 0 {
        return Err(failure(format!("{command}: something is wrong, see the report above")));
    }
    Ok(())
}

/// Runs a command, prints its report and returns it.
fn ask(config: &Config, command: &str) -> Result<Value, Failures> {
    let report = door::call(config, &Method::POST, &format!("/{command}"), &Value::Null);
    let command = command.split('?').next().unwrap_or(command);
    let report = report.map_err(|Failures(why)| Failures::at(command)(why.join(", ")))?;
    say(&format!("{report:#}"))?;
    Ok(report)
}

/// Changes the log filter of the daemon if `filter` is given, and prints the filter in force.
pub fn log(config: &Config, filter: Option<&str>) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let found = Socket::of(dir).and_then(|socket| socket.try_connect());
    found.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let socket = dir.join(door::SOCKET);
            let whose = "is only for the daemon's own user and root";
            failure(format!("{} {whose}: {error}", socket.display()))
        }
        _ => failure(format!("no daemon runs on {}: {error}", dir.display())),
    })?;
    let change = filter.map(|filter| format!("?filter={}", door::encoded(filter)));
    let path = format!("/log{}", change.unwrap_or_default());
    let answer = door::call(config, &Method::POST, &path, &Value::Null)?;
    say(answer["filter"].as_str().unwrap_or_default())
}

/// Makes a backup in `to`, or brings an earlier one there up to date.
pub fn backup(config: &Config, to: &Path) -> Result<(), Failures> {
    let to = path::absolute(to).map_err(Failures::at("backup"))?;
    let bytes = to.to_str().ok_or_else(|| failure("backup: the path must be UTF-8"))?;
    let report = ask(config, &format!("backup?dir={}", door::encoded(bytes)))?;
    match report["unreadable"].as_u64() {
        Some(files @ 1..) => Err(failure(format!(
            "backup: {files} files could not be read and were not copied, everything else was; the \
             log names them"
        ))),
        _ => Ok(()),
    }
}

/// Makes a data directory of a backup, and reads all of it again to check it.
pub fn restore(config: &Config, from: &Path) -> Result<(), Failures> {
    restore::bring(&config.data_dir, from).map_err(Failures::at("restore"))?;
    // That the index is made anew is expected here and need not be logged.
    let _ = log::start("warn,streamlined::meta::sled::open=error");
    let checked = run(config, "fsck");
    match (checked, run(config, "scrub")) {
        (Err(Failures(mut wrong)), Err(Failures(more))) => {
            wrong.extend(more);
            Err(Failures(wrong))
        }
        (checked, scrubbed) => checked.and(scrubbed),
    }
}

/// `fsck --rebuild`: makes `meta/` anew from the journal. If changes are missing there, it goes on
/// with what can be read of both, at any loss, and reports what is lost.
pub fn rebuild(config: &Config) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let lock = door::take(config)?;
    let missing = SledMetadata::rebuild(dir, config.meta_cache_bytes);
    drop(lock);
    match missing {
        Err(meta::Error::NotFound) => Err(failure(format!(
            "fsck: {} has no journal to rebuild an index from: put journal/ back, or restore a \
             backup into another directory",
            dir.display(),
        ))),
        Err(error) => Err(Failures::at("fsck")(error)),
        Ok(None) => say("Index and journal are whole; nothing is missing."),
        Ok(Some(missing)) => Err(failure(format!(
            "fsck: the index was rebuilt, but {missing}. The old journal is kept as \
             journal.damaged-N; from now on, back up to an empty directory"
        ))),
    }?;
    run(config, "fsck")
}
