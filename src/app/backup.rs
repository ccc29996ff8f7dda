//! A copy of everything, taken while the daemon works.
//!
//! A backup is a data directory without `meta/`, which is rebuilt from the journal. It contains the
//! journal, blobs, parts and keys; `FORMAT` is written last. Nothing is removed from the store
//! while the backup is taken, so whatever its index names is still there to be copied; later
//! changes only add. Files that an earlier backup into the same directory has are not copied again.
//!
//! A backup replaces the journal in its target, and a data directory cannot do without its journal.
//! So nothing is touched in a directory that a daemon has served from, or that holds another
//! store's backup. While a backup is written, the lock of its target keeps out daemons and other
//! backups.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;

use super::{App, Error, Result};
use crate::{
    blob::upkeep::Copied,
    meta::Exported,
    sys::{
        data_dir,
        durable::{self, is_full},
    },
};

/// The mode bits of a directory that let group and others create and replace files in it.
const OTHERS_WRITE: u32 = 0o022;

impl App {
    /// Copies the store in `from`, which is this store's data directory, to `to`. The backup runs
    /// to its end even when nobody waits any more, since its unfinished files have names that a
    /// second backup would use. It is no step of `App::detached`, because collections and a stop
    /// wait for those steps.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `to` is no place for a backup or cannot be written at all;
    /// [`Error::Conflict`] when another backup or a daemon uses `to`, when `to` holds the backup of
    /// another store or a later one of this store, or when it has no room; [`Error::Unavailable`]
    /// when writing fails later. An earlier backup in `to` stays good until the last step: some
    /// renames, of changed files and of the journal.
    pub async fn backup(self: &Arc<Self>, from: &Path, to: &Path) -> Result<Copied> {
        let alone = Arc::clone(&self.backing_up).try_lock_owned().map_err(|_| {
            Error::conflict("backup_running", "A backup is being taken; try again when it is done.")
        })?;
        let (app, from, to) = (Arc::clone(self), from.to_owned(), to.to_owned());
        let taking = tokio::spawn(async move {
            let _alone = alone;
            app.take_backup(&from, &to).await
        });
        taking.await?
    }

    async fn take_backup(&self, from: &Path, to: &Path) -> Result<Copied> {
        let _target = {
            let from = from.to_owned();
            on_disk(to, move |to| begin(&from, to)).await??
        };
        match self.meta.exported(to).await? {
            Some(Exported::Foreign) => {
                let why = format!(
                    "{} holds the backup of another store, which this backup would overwrite. A \
                     store that lost changes also counts as another one. Name an empty directory; \
                     if this store is new and should not be, restore that backup.",
                    to.display(),
                );
                return Err(Error::conflict("other_store", why));
            }
            Some(Exported::Ahead) => {
                let why = format!(
                    "{} holds changes that this store does not have: the store is an older copy. \
                     Name an empty directory, or restore that backup.",
                    to.display(),
                );
                return Err(Error::conflict("newer_backup", why));
            }
            Some(Exported::Before) | None => {}
        }
        let made = on_disk(to, make_room).await?;
        made.map_err(|error| unwritable(to, &error))?;
        let _hold = self.hold().await;
        let exported = self.meta.export(&to.join("incoming")).await;
        exported.map_err(|error| of_target(to, error.into()))?;
        let copied = self.blobs.copy(to, &to.join("incoming")).await;
        let mut copied = copied.map_err(|error| of_target(to, error.into()))?;
        let from = from.to_owned();
        let finished = on_disk(to, move |to| finish(&from, to)).await?;
        copied.unreadable += finished
            .map_err(|error| if is_full(&error) { no_room(to) } else { unavailable(to, &error) })?;
        Ok(copied)
    }
}

/// A full disk is the target's, although the stores report it as their own.
fn of_target(to: &Path, error: Error) -> Error {
    if matches!(error, Error::NoSpace) { no_room(to) } else { error }
}

fn no_room(to: &Path) -> Error {
    tracing::error!(to = %to.display(), "no room for the backup");
    let why = format!(
        "There is no room left on the disk of {}. An earlier backup there stays good.",
        to.display(),
    );
    Error::conflict("backup_full", why)
}

fn unwritable(to: &Path, error: &io::Error) -> Error {
    if is_full(error) {
        return no_room(to);
    }
    let why = format!("The user who owns the store cannot write to {}: {error}.", to.display());
    Error::invalid("invalid_dir", why)
}

/// Checks and locks the target; the lock lasts as long as the handle. Puts back what a killed
/// backup had moved away.
fn begin(from: &Path, to: &Path) -> Result<File> {
    let unwritable = |error: io::Error| unwritable(to, &error);
    let source = fs::canonicalize(from).map_err(|error| unavailable(from, &error))?;
    let target = real(to).map_err(unwritable)?;
    if source.starts_with(&target) || target.starts_with(&source) {
        let why = "A backup needs a directory of its own, which neither lies in the data \
                   directory nor contains it.";
        return Err(Error::invalid("invalid_dir", why));
    }
    durable::create_dir_all(to).map_err(unwritable)?;
    if !is_ours(to).map_err(unwritable)? {
        let why = format!("{} holds something other than a backup.", to.display());
        return Err(Error::invalid("invalid_dir", why));
    }
    let lock = data_dir::lock(to).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::conflict(
            "dir_in_use",
            format!("{} is in use by a daemon or another backup.", to.display()),
        ),
        _ => unwritable(error),
    })?;
    // Checked under the lock: a daemon creates `meta/` only after it has the lock.
    if to.join("meta").try_exists().map_err(unwritable)? {
        let why = format!("{} is a data directory, not a backup: it has meta/.", to.display());
        return Err(Error::invalid("invalid_dir", why));
    }
    give_back(to).map_err(unwritable)?;
    close(to);
    Ok(lock)
}

/// Removes the permission of others to write into a backup, which they could use to put their own
/// key or journal there. Who may list the directory is up to its owner: the files in it are
/// private.
fn close(to: &Path) {
    let closed = fs::metadata(to).and_then(|dir| {
        let mode = dir.permissions().mode();
        match mode & !OTHERS_WRITE {
            same if same == mode => Ok(()),
            closed => fs::set_permissions(to, Permissions::from_mode(closed)),
        }
    });
    if let Err(error) = closed {
        tracing::warn!(path = %to.display(), %error, "other users may write into the backup");
    }
}

/// Whether a directory is empty or a backup, finished or not, so that its content may be replaced.
fn is_ours(to: &Path) -> io::Result<bool> {
    if data_dir::check(to).is_ok() {
        return Ok(true);
    }
    // A backup that found no room for more leaves only `LOCK`. One that did not reach its last step
    // may leave `FORMAT.tmp`. `lost+found` is there when the directory is the top of a file system.
    let begun =
        ["incoming", "blobs", "staging", "keys", "journal", "FORMAT.tmp", "LOCK", "lost+found"];
    let is_begun = ["LOCK", "incoming"].iter().all(|name| to.join(name).exists());
    let known = if is_begun { &begun[..] } else { &begun[5..] };
    let is_known = |name: &OsStr| known.iter().any(|known| name == *known);
    Ok(fs::read_dir(to)?.all(|entry| entry.is_ok_and(|entry| is_known(&entry.file_name()))))
}

fn unavailable(path: &Path, error: &io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

/// Resolves a path that need not exist yet.
fn real(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent().zip(path.file_name())) {
        (Err(error), Some((parent, name))) if error.kind() == io::ErrorKind::NotFound => {
            Ok(real(parent)?.join(name))
        }
        (found, _) => found,
    }
}

/// Makes an empty directory for the journal, whatever an unfinished backup left there.
fn make_room(to: &Path) -> io::Result<()> {
    let incoming = to.join("incoming");
    if incoming.exists() {
        fs::remove_dir_all(&incoming)?;
    }
    durable::create_dir(&incoming)
}

/// Where the old journal lies while another one takes its place.
fn old_journal(to: &Path) -> PathBuf {
    to.join("incoming").join("old")
}

/// Puts back a journal that a killed backup had moved away without putting another in its place.
fn give_back(to: &Path) -> io::Result<()> {
    let journal = to.join("journal");
    // A daemon that was started there, and refused to run, made an empty one.
    let _ = fs::remove_dir(&journal);
    if old_journal(to).exists() && !journal.exists() {
        fs::rename(old_journal(to), journal)?;
        durable::sync_dir(to)?;
    }
    Ok(())
}

/// Moves every file of a directory, which may be missing, into the place of the older one.
fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            put_in_place(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    durable::sync_dir(to)
}

/// Installs the keys, the changed files, the new journal in place of the old one, and the mark of a
/// data directory. Returns how many keys could not be read.
fn finish(from: &Path, to: &Path) -> io::Result<usize> {
    let (keys, mut unreadable) = (to.join("keys"), 0);
    durable::create_dir(&keys)?;
    for entry in fs::read_dir(from.join("keys"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() || durable::is_temporary(&entry.path()) {
            continue;
        }
        match fs::read(entry.path()) {
            Ok(key) => durable::write_file(&keys.join(entry.file_name()), &key)?,
            Err(error) => {
                unreadable += 1;
                let path = entry.path();
                tracing::error!(path = %path.display(), %error, "not in the backup: unreadable");
            }
        }
    }
    // First: it keeps out a version that does not know the new journal.
    data_dir::stamp(to)?;
    for name in ["blobs", "staging"] {
        put_in_place(&to.join("incoming").join(name), &to.join(name))?;
    }
    let journal = to.join("journal");
    if journal.exists() {
        fs::rename(&journal, old_journal(to))?;
    }
    fs::rename(to.join("incoming").join("journal"), &journal)?;
    // A key that was withdrawn here must not come back with a restore.
    for entry in fs::read_dir(&keys)? {
        let entry = entry?;
        let is_there = from.join("keys").join(entry.file_name()).exists();
        if !is_there || durable::is_temporary(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    durable::sync_dir(&keys)?;
    data_dir::mark(to)?;
    fs::remove_dir_all(to.join("incoming"))?;
    durable::sync_dir(to)?;
    Ok(unreadable)
}

async fn on_disk<T: Send + 'static>(
    path: &Path,
    job: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T> {
    let path = path.to_owned();
    Ok(spawn_blocking(move || job(&path)).await?)
}
