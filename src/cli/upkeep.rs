//! `gc`, `scrub`, `fsck`, `backup` and `restore`: asked of the running daemon, or done here when
//! there is none. `log`, which only a running one can do.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{self, Path},
};

use hyper::Method;
use serde_json::Value;

use super::{Failures, door, say};
use crate::{
    config::Config,
    meta::sled::SledMetadata,
    sys::{data_dir, durable},
};

/// Runs a command and prints its report; what it found is a failure.
pub fn run(config: &Config, command: &str) -> Result<(), Failures> {
    let report = ask(config, command)?;
    let found = ["damaged", "unreadable"].iter().any(|name| report[name].as_u64() > Some(0));
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    if found || findings > 0 {
        return Err(Failures(vec![format!("{command}: something is wrong, see above")]));
    }
    Ok(())
}

/// Runs a command, prints its report and answers it.
fn ask(config: &Config, command: &str) -> Result<Value, Failures> {
    let report = door::call(config, &Method::POST, &format!("/{command}"), &Value::Null);
    let command = command.split('?').next().unwrap_or(command);
    let report =
        report.map_err(|Failures(why)| Failures(vec![format!("{command}: {}", why.join(", "))]))?;
    say(&format!("{report:#}"))?;
    Ok(report)
}

/// Shows what the daemon logs, after changing it.
pub fn log(config: &Config, filter: Option<&str>) -> Result<(), Failures> {
    UnixStream::connect(door::socket(&config.data_dir)).map_err(Failures::at("no daemon runs"))?;
    let change = filter.map(|filter| format!("?filter={}", door::encoded(filter)));
    let path = format!("/log{}", change.unwrap_or_default());
    let answer = door::call(config, &Method::POST, &path, &Value::Null)?;
    say(answer["filter"].as_str().unwrap_or_default())
}

/// Takes a backup into `to`; an earlier one there is brought up to date.
pub fn backup(config: &Config, to: &Path) -> Result<(), Failures> {
    let to = path::absolute(to).map_err(Failures::at("backup"))?;
    let bytes = to.to_str().ok_or_else(|| Failures(vec!["backup: a UTF-8 path".into()]))?;
    let report = ask(config, &format!("backup?dir={}", door::encoded(bytes)))?;
    match report["unreadable"].as_u64() {
        Some(files @ 1..) => Err(Failures(vec![format!(
            "backup: {files} files could not be read and are not in it, everything else is; the \
             daemon's log names them"
        )])),
        _ => Ok(()),
    }
}

/// Makes a data directory of a backup, and reads all of it again.
pub fn restore(config: &Config, from: &Path) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let failed = || Failures::at("restore");
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let why = format!("restore: {} is not empty", dir.display());
        return Err(Failures(vec![why]));
    }
    // A backup gets its mark last of all.
    data_dir::check(from).map_err(Failures::at("restore: no whole backup"))?;
    fs::create_dir_all(dir).map_err(failed())?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed())?;
    for name in ["journal", "blobs", "staging", "keys"] {
        copy(&from.join(name), &dir.join(name)).map_err(failed())?;
    }
    durable::write_file(&dir.join("FORMAT"), &fs::read(from.join("FORMAT")).map_err(failed())?)
        .map_err(failed())?;
    run(config, "fsck")?;
    run(config, "scrub")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    durable::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            let mut file = durable::create_new(&target)?;
            io::copy(&mut fs::File::open(source)?, &mut file)?;
            file.sync_all()?;
        }
    }
    durable::sync_dir(to)
}

/// `fsck --rebuild`: makes `meta/` anew from the journal, at any loss, which is told.
pub fn rebuild(config: &Config) -> Result<(), Failures> {
    let dir = &config.data_dir;
    let lock = door::take(config)?;
    let missing = SledMetadata::rebuild(dir, config.meta_cache_bytes);
    drop(lock);
    match missing.map_err(Failures::at("fsck"))? {
        None => say("The index was made anew from the journal; nothing is missing.")?,
        Some(missing) => return Err(Failures(vec![format!("fsck: rebuilt, but {missing}")])),
    }
    run(config, "fsck")
}
