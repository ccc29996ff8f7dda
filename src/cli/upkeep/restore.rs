//! Makes a data directory of a backup.
//!
//! `RESTORING` is written first; at the very end it is renamed to `FORMAT`. A directory whose
//! restore was interrupted is therefore not taken for a data directory, and the next restore begins
//! anew.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::sys::{
    data_dir::{self, RESTORING},
    durable, owner,
};

/// What a backup holds besides `FORMAT`.
const PARTS: [&str; 4] = ["journal", "blobs", "staging", "keys"];

/// Copies a backup into a directory that is empty or in which an earlier restore was interrupted.
/// No other thread may have started yet.
///
/// # Errors
/// What is wrong, with the path of the directory or file.
pub fn bring(dir: &Path, from: &Path) -> io::Result<()> {
    // A backup gets its `FORMAT` last, so one that has it is whole.
    data_dir::check(from)
        .map_err(|error| io::Error::other(format!("not a complete backup: {error}")))?;
    let journal = journal(from)?;
    check_free(dir)?;
    // If root restored into another user's directory, only root could read the files.
    owner::assume(dir).map_err(at(dir))?;
    durable::create_dir_all(dir).map_err(at(dir))?;
    let _lock = data_dir::patiently(|| data_dir::lock(dir)).map_err(at(dir))?;
    // Another restore may have held the lock until now.
    check_free(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at(dir))?;
    let (marker, format) = (dir.join(RESTORING), from.join("FORMAT"));
    let bytes = fs::read(&format).map_err(at(&format))?;
    durable::write_file(&marker, &bytes).map_err(at(&marker))?;
    for name in PARTS {
        let (source, target) = (from.join(name), dir.join(name));
        if target.exists() {
            fs::remove_dir_all(&target).map_err(at(&target))?;
        }
        copy(if name == "journal" { &journal } else { &source }, &target)?;
    }
    fs::rename(&marker, dir.join("FORMAT")).map_err(at(&marker))?;
    durable::sync_dir(dir).map_err(at(dir))
}

/// The journal of a backup, or the previous journal if a backup was killed just after it had moved
/// that one away.
fn journal(from: &Path) -> io::Result<PathBuf> {
    let places = [from.join("journal"), from.join("incoming").join("old")];
    let found = places.into_iter().find(|place| place.exists());
    found.ok_or_else(|| io::Error::other(format!("{} has no journal", from.display())))
}

/// Checks that `dir` holds nothing but what the top of a file system holds, and what an interrupted
/// restore left.
fn check_free(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(dir))?,
    };
    if dir.join("FORMAT").exists() {
        return Err(io::Error::other(format!(
            "{} is a data directory already; if a restore to it was interrupted while it checked \
             the data, run `fsck` and `scrub` on it",
            dir.display(),
        )));
    }
    let is_begun = dir.join(RESTORING).exists();
    for entry in entries {
        let name = entry.map_err(at(dir))?.file_name();
        let is = |known: &str| name == *known;
        let is_known = ["LOCK", "lost+found", "RESTORING.tmp"].into_iter().any(is);
        let is_ours = is(RESTORING) || PARTS.into_iter().any(is);
        if !(is_known || is_begun && is_ours) {
            let why = format!("{} is not empty: it holds {}", dir.display(), name.display());
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    durable::create_dir(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(at(&source))?.is_dir() {
            copy(&source, &target)?;
        // Temporary files are left over from a backup that was killed.
        } else if !durable::is_temporary(&source) {
            let mut content = fs::File::open(&source).map_err(at(&source))?;
            let mut file = durable::create_new(&target).map_err(at(&target))?;
            // The error may be of either file; the system does not tell which.
            io::copy(&mut content, &mut file).map_err(at(&source))?;
            file.sync_all().map_err(at(&target))?;
        }
    }
    durable::sync_dir(to).map_err(at(to))
}
