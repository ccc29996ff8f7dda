//! Durable files: everything about writing, syncing and renaming them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Whether there was no room, on the disk or in the user's disk quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` with mode 0700 if it is missing, and makes its name durable.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        created => created?,
    }
    match dir.parent() {
        None => Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
    }
}

/// As [`create_dir`], including missing parents.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    let missing = dir.ancestors().take_while(|dir| !dir.exists());
    let missing: Vec<&Path> = missing.filter(|dir| !dir.as_os_str().is_empty()).collect();
    missing.into_iter().rev().try_for_each(create_dir)
}

/// Creates a new file, mode 0600, open for reading and writing.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file for reading and writing, creating it with mode 0600 if it is missing.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Removes a file; a missing file is no error.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const TEMPORARY: &str = "tmp";

/// The name of a file while it is being written.
pub fn temporary(path: &Path) -> PathBuf {
    path.with_extension(TEMPORARY)
}

/// Whether `path` is such a name.
pub fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == TEMPORARY)
}

/// Removes temporary files that a killed process left in `dir`. Every writer there holds the
/// directory's lock, and the caller must hold it as well.
pub fn remove_temporary(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_temporary(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Writes a small file atomically: temporary name, sync, rename, sync of the directory.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    remove_file(&temporary)?;
    let mut file = create_new(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Takes an exclusive lock that lasts as long as the file is open; `None` if another process holds
/// it.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_or_create(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for the exclusive lock of a directory, which lasts as long as the returned handle.
pub fn lock_dir(dir: &Path) -> io::Result<File> {
    let handle = File::open(dir)?;
    flock(&handle, FlockOperation::LockExclusive)?;
    Ok(handle)
}
