//! Copies of everything, for a backup.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
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

/// The kernel tells times of change by a clock that ticks at least this often, some of it to spare.
const TICK: Duration = Duration::from_millis(50);

/// A pack that grows meanwhile is copied as it was, with the time of then, and again next time. So
/// is one that may have grown since in the same tick.
fn file(source: &Path, target: &Path) -> io::Result<u64> {
    let temporary = target.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let (mut from, mut to) = (File::open(source)?, durable::create_new(&temporary)?);
    let modified = from.metadata()?.modified()?;
    let now = SystemTime::now();
    let bytes = io::copy(&mut from, &mut to)?;
    let is_settled = now.duration_since(modified).is_ok_and(|age| age > TICK);
    to.set_modified(if is_settled { modified } else { SystemTime::UNIX_EPOCH })?;
    to.sync_all()?;
    fs::rename(&temporary, target)?;
    Ok(bytes)
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
            file(&from, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"content");
            same(&from, &to).unwrap()
        };
        let now = SystemTime::now();
        assert!(!changed(now + Duration::from_secs(5)));
        assert!(changed(now - Duration::from_secs(5)));
    }
}
