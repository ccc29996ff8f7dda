//! Copies the whole store, for a backup.

use std::{
    ffi::OsStr,
    fs::{self, DirEntry, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::layout::Layout;
use crate::{blob::upkeep::Copied, model::limits::TRANSFER_BUFFER_BYTES, sys::durable};

/// Copies every blob, pack and part below `to`, durably. A file that is there already with the same
/// size and modification time is skipped; if it differs, the new version goes to its path below
/// `changed`. On a failing disk much is still good: a source file that cannot be read is logged and
/// skipped. Blocks.
///
/// # Errors
/// When `to` or `changed` cannot be written.
pub fn copy(layout: &Layout, to: &Path, changed: &Path) -> io::Result<Copied> {
    let mut copied = Copied::default();
    for name in ["blobs", "staging"] {
        let from = layout.data_dir().join(name);
        let target = Target { dir: to.join(name), changed: changed.join(name) };
        let done = directory(&from, &target, &mut copied);
        passed_over(&from, done, &mut copied)?;
    }
    Ok(copied)
}

/// Where the files of a directory go: new files into `dir`, new versions of files that are there
/// into `changed`.
struct Target {
    dir: PathBuf,
    changed: PathBuf,
}

impl Target {
    fn below(&self, name: &OsStr) -> Self {
        Self { dir: self.dir.join(name), changed: self.changed.join(name) }
    }
}

/// Which side of a copy failed.
enum Failed {
    Source(io::Error),
    Target(io::Error),
}

fn passed_over(source: &Path, done: Result<(), Failed>, copied: &mut Copied) -> io::Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(Failed::Target(error)) => Err(error),
        Err(Failed::Source(error)) => {
            copied.unreadable += 1;
            tracing::error!(path = %source.display(), %error, "not in the backup: unreadable");
            Ok(())
        }
    }
}

fn directory(from: &Path, to: &Target, copied: &mut Copied) -> Result<(), Failed> {
    if !to.dir.is_dir() {
        durable::create_dir(&to.dir).map_err(Failed::Target)?;
    }
    remove_unfinished(&to.dir).map_err(Failed::Target)?;
    for entry in fs::read_dir(from).map_err(Failed::Source)? {
        let source = entry.as_ref().map_or_else(|_| from.to_owned(), DirEntry::path);
        let done = entry.map_err(Failed::Source).and_then(|entry| one(&entry, to, copied));
        passed_over(&source, done, copied).map_err(Failed::Target)?;
    }
    durable::sync_dir(&to.dir).map_err(Failed::Target)
}

/// Removes temporary files of a copy that was killed: a later copy may never write to their names.
fn remove_unfinished(to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let path = entry.path();
        if durable::is_temporary(&path) && entry.file_type()?.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn one(entry: &DirEntry, to: &Target, copied: &mut Copied) -> Result<(), Failed> {
    let (source, target) = (entry.path(), to.below(&entry.file_name()));
    if entry.file_type().map_err(Failed::Source)?.is_dir() {
        // No record names bytes that are still arriving.
        let is_arriving = entry.file_name() == "tmp";
        return if is_arriving { Ok(()) } else { directory(&source, &target, copied) };
    }
    match same(&source, &target.dir)? {
        Some(true) => copied.kept += 1,
        Some(false) => {
            durable::create_dir_all(&to.changed).map_err(Failed::Target)?;
            copied.bytes += file(&source, &target.changed)?;
        }
        None => copied.bytes += file(&source, &target.dir)?,
    }
    copied.files += 1;
    Ok(())
}

/// Whether the target is the same as the source; `None` if there is no target.
fn same(source: &Path, target: &Path) -> Result<Option<bool>, Failed> {
    let changed = |metadata: Metadata| Ok((metadata.len(), metadata.modified()?));
    let there = match fs::metadata(target).and_then(changed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        there => there.map_err(Failed::Target)?,
    };
    Ok(Some(fs::metadata(source).and_then(changed).map_err(Failed::Source)? == there))
}

/// The kernel's clock for modification times ticks at least this often, with a margin.
const TICK: Duration = Duration::from_millis(50);

/// Copies one file with its modification time. A pack that grows meanwhile is copied as it was,
/// with the earlier time, so that the next backup copies it again. A file that was modified within
/// the last tick may have changed since; it gets a time that makes the next backup copy it, too.
fn file(source: &Path, target: &Path) -> Result<u64, Failed> {
    let mut from = File::open(source).map_err(Failed::Source)?;
    let modified = from.metadata().and_then(|metadata| metadata.modified());
    let modified = modified.map_err(Failed::Source)?;
    let now = SystemTime::now();
    let is_settled = now.duration_since(modified).is_ok_and(|age| age > TICK);
    let temporary = durable::temporary(target);
    let _ = fs::remove_file(&temporary);
    let mut to = durable::create_new(&temporary).map_err(Failed::Target)?;
    let bytes = content(&mut from, &mut to).inspect_err(|_| {
        // The next backup would remove it, too.
        let _ = fs::remove_file(&temporary);
    })?;
    let publish = || {
        to.set_modified(if is_settled { modified } else { SystemTime::UNIX_EPOCH })?;
        to.sync_all()?;
        fs::rename(&temporary, target)
    };
    publish().map_err(Failed::Target)?;
    Ok(bytes)
}

/// As `io::copy`, but tells which side failed.
fn content(from: &mut File, to: &mut File) -> Result<u64, Failed> {
    let (mut buffer, mut bytes) = (vec![0; TRANSFER_BUFFER_BYTES], 0);
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(Failed::Source)?,
        };
        if read == 0 {
            return Ok(bytes);
        }
        to.write_all(&buffer[..read]).map_err(Failed::Target)?;
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_a_moment_ago_is_copied_again() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, b"content").unwrap();
        let changed = |at: SystemTime| {
            File::options().write(true).open(&from).unwrap().set_modified(at).unwrap();
            assert!(file(&from, &to).is_ok());
            assert_eq!(fs::read(&to).unwrap(), b"content");
            same(&from, &to).is_ok_and(|same| same == Some(true))
        };
        let now = SystemTime::now();
        assert!(!changed(now + Duration::from_secs(5)));
        assert!(changed(now - Duration::from_secs(5)));
    }
}
