//! A copy of everything, taken while the daemon works.
//!
//! A backup is a data directory without `meta/`, which is made anew from its journal: journal,
//! blobs, parts, keys, and `FORMAT` last of all. Nothing is removed from the store while it is
//! taken, so whatever its index names is still there to be copied; what comes later only adds.
//! Files that an earlier backup into the same directory has are not copied again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use super::{App, Error, Result};
use crate::{
    blob::upkeep::Copied,
    sys::{data_dir, durable},
};

impl App {
    /// Copies the store below `from`, which is this one's data directory, to `to`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `to` cannot be written at all, [`Error::Unavailable`] when that ends
    /// later; what an earlier one left is good until the last step.
    pub async fn backup(&self, from: &Path, to: &Path) -> Result<Copied> {
        let _hold = self.hold().await;
        let incoming = to.join("incoming");
        let begun = on_disk(&incoming, |incoming| {
            if let Some(to) = incoming.parent() {
                give_back(to)?;
            }
            if incoming.exists() {
                fs::remove_dir_all(incoming)?;
            }
            durable::create_dir_all(incoming)
        });
        begun.await.map_err(|error| match error {
            Error::Unavailable(why) => Error::invalid(
                "invalid_dir",
                format!("The store's own user cannot write there: {why}."),
            ),
            error => error,
        })?;
        self.meta.export(&incoming).await?;
        let copied = self.blobs.copy(to).await?;
        let (from, to) = (from.to_owned(), to.to_owned());
        on_disk(&to, move |to| finish(&from, to)).await?;
        Ok(copied)
    }
}

/// Where the journal lies while another one takes its place.
fn old_journal(to: &Path) -> PathBuf {
    to.join("incoming").join("old")
}

/// Puts a journal back that one who was killed had taken away, and had nothing in its place.
fn give_back(to: &Path) -> io::Result<()> {
    let journal = to.join("journal");
    if old_journal(to).exists() && !journal.exists() {
        fs::rename(old_journal(to), journal)?;
        durable::sync_dir(to)?;
    }
    Ok(())
}

/// Keys, the new journal in place of the old, and the mark of a data directory.
fn finish(from: &Path, to: &Path) -> io::Result<()> {
    let keys = to.join("keys");
    durable::create_dir(&keys)?;
    for entry in fs::read_dir(from.join("keys"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            durable::write_file(&keys.join(entry.file_name()), &fs::read(entry.path())?)?;
        }
    }
    let journal = to.join("journal");
    if journal.exists() {
        fs::rename(&journal, old_journal(to))?;
    }
    fs::rename(to.join("incoming").join("journal"), &journal)?;
    // A key that was withdrawn here is not to come back with what is restored.
    for entry in fs::read_dir(&keys)? {
        let entry = entry?;
        if !from.join("keys").join(entry.file_name()).exists() {
            fs::remove_file(entry.path())?;
        }
    }
    durable::sync_dir(&keys)?;
    data_dir::mark(to)?;
    fs::remove_dir_all(to.join("incoming"))?;
    durable::sync_dir(to)
}

async fn on_disk(
    path: &Path,
    job: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let path = path.to_owned();
    let done = spawn_blocking(move || job(&path).map_err(|error| (path, error))).await;
    let done = done.map_err(|error| Error::Internal(error.to_string()))?;
    done.map_err(|(path, error)| Error::Unavailable(format!("{}: {error}", path.display())))
}
