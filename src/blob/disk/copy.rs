//! Copies of everything, for a backup.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::layout::Layout;
use crate::{blob::upkeep::Copied, sys::durable};

/// Copies every blob, pack and part below `to`, durably, but those that are there already, with
/// the same size and time of change as here. Blocks.
pub fn copy(layout: &Layout, to: &Path) -> io::Result<Copied> {
    let mut copied = Copied::default();
    for name in ["blobs", "staging"] {
        directory(&layout.data_dir().join(name), &to.join(name), &mut copied)?;
    }
    Ok(copied)
}

fn directory(from: &Path, to: &Path, copied: &mut Copied) -> io::Result<()> {
    if !to.is_dir() {
        durable::create_dir(to)?;
    }
    let mut changed = false;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            // What is still arriving has no record.
            if entry.file_name() != "tmp" {
                directory(&source, &target, copied)?;
            }
            continue;
        }
        let kept = same(&source, &target)?;
        copied.files += 1;
        if kept {
            copied.kept += 1;
        } else {
            copied.bytes += file(&source, &target)?;
            changed = true;
        }
    }
    if changed { durable::sync_dir(to) } else { Ok(()) }
}

fn same(source: &Path, target: &Path) -> io::Result<bool> {
    let there = match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    let here = fs::metadata(source)?;
    Ok(here.len() == there.len() && here.modified()? == there.modified()?)
}

/// A pack that grows meanwhile is copied as it was, with the time of then, and again next time.
fn file(source: &Path, target: &Path) -> io::Result<u64> {
    let temporary = target.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let (mut from, mut to) = (File::open(source)?, durable::create_new(&temporary)?);
    let modified = from.metadata()?.modified()?;
    let bytes = io::copy(&mut from, &mut to)?;
    to.set_modified(modified)?;
    to.sync_all()?;
    fs::rename(&temporary, target)?;
    Ok(bytes)
}
