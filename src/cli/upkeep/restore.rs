//! A data directory made of a backup.
//!
//! `RESTORING` is there first and becomes `FORMAT` last of all, by a rename: what was cut in
//! between is no data directory to anybody, and is begun again by the next restore.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::sys::{
    data_dir::{self, RESTORING},
    durable, owner,
};

/// What a backup holds, besides `FORMAT`.
const PARTS: [&str; 4] = ["journal", "blobs", "staging", "keys"];

/// Copies a backup into a directory that is empty, or that a restore before was cut in. No thread
/// may have begun before.
///
/// # Errors
/// What is wrong with which of them.
pub fn bring(dir: &Path, from: &Path) -> io::Result<()> {
    // A backup gets its mark last of all.
    data_dir::check(from).map_err(|error| io::Error::other(format!("no whole backup: {error}")))?;
    let journal = journal(from)?;
    check_free(dir)?;
    // As root alone could read what is made, where the directory is another's.
    owner::assume(dir).map_err(at(dir))?;
    durable::create_dir_all(dir).map_err(at(dir))?;
    let _lock = data_dir::patiently(|| data_dir::lock(dir)).map_err(at(dir))?;
    // Another one may have been at it until now.
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

/// The journal of a backup: that of before, where one was killed when it had just taken it away.
fn journal(from: &Path) -> io::Result<PathBuf> {
    let places = [from.join("journal"), from.join("incoming").join("old")];
    let found = places.into_iter().find(|place| place.exists());
    found.ok_or_else(|| io::Error::other(format!("{} has no journal", from.display())))
}

/// What a restore may find: the top of a file system, and what one before it left.
fn check_free(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(dir))?,
    };
    if dir.join("FORMAT").exists() {
        return Err(io::Error::other(format!(
            "{} is a data directory already; after a restore that was cut while it checked, run \
             `fsck` and `scrub` there",
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
        // Of a file that a backup was killed in.
        } else if !durable::is_temporary(&source) {
            let mut content = fs::File::open(&source).map_err(at(&source))?;
            let mut file = durable::create_new(&target).map_err(at(&target))?;
            // Which of them it was, the system does not tell.
            io::copy(&mut content, &mut file).map_err(at(&source))?;
            file.sync_all().map_err(at(&target))?;
        }
    }
    durable::sync_dir(to).map_err(at(to))
}
