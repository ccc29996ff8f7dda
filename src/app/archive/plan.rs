//! The plan of an archive: its files, and the memory that they take before the first byte is sent.

use std::{mem, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Result, names};
use crate::{
    model::{digest::ContentHash, file::FileRecord, name::Folder, time::UnixMillis},
    zip,
};

/// Bytes of memory that the plans of all archives in work take; past it: [`Error::Busy`]. A plan of
/// [`ARCHIVE_FILES_MAX`] files fits whatever their names are, but not whatever their folders are.
///
/// [`ARCHIVE_FILES_MAX`]: crate::model::limits::ARCHIVE_FILES_MAX
pub const PLANS_BYTES_MAX: usize = 64 << 20;

/// Memory that a file takes besides its path, and memory of each folder that the file before does
/// not lie in. Both are peaks, which are reached while names are made unique.
const FILE_BYTES: usize = 256;
const FOLDER_BYTES: usize = 64;

/// A file in an archive.
pub struct Member {
    pub name: Box<str>,
    pub blake3: ContentHash,
    pub size: u64,
    pub modified: UnixMillis,
    /// Where its local header begins in the archive.
    pub header: u64,
}

impl Member {
    pub fn entry(&self) -> zip::Entry<'_> {
        zip::Entry { name: &self.name, size: self.size, modified: self.modified }
    }

    /// Bytes of its record in the central directory.
    pub fn record_bytes(&self) -> u64 {
        self.entry().central_bytes(self.header)
    }
}

/// The members of an archive, and the permits for the memory that they take.
pub struct Plan {
    pub members: Vec<Member>,
    /// One permit for each byte, and one from the beginning, so that the sweep sees that an archive
    /// is on its way.
    permit: OwnedSemaphorePermit,
}

impl Plan {
    pub fn new(memory: &Arc<Semaphore>) -> Result<Self> {
        Ok(Self { members: Vec::new(), permit: permit(memory, 1)? })
    }

    /// Adds a file: with its path below `top`, or without `top` by its name alone.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Invalid`] when so much can never fit.
    pub fn add(&mut self, file: &FileRecord, top: Option<&Folder>) -> Result<()> {
        let within = top.and_then(|top| file.folder.as_str().strip_prefix(top.as_str()));
        let within = within.unwrap_or_default().trim_start_matches('/');
        let slash = if within.is_empty() { "" } else { "/" };
        let name = format!("{within}{slash}{}", file.name.as_str()).into_boxed_str();
        let before = self.members.last().map_or("", |member| &member.name);
        self.reserve(bytes_of(&name, before))?;
        self.members.push(Member {
            name,
            blake3: file.blake3,
            size: file.size,
            modified: file.id.created(),
            header: 0,
        });
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.permit.num_permits() + bytes > PLANS_BYTES_MAX {
            let detail = "The batch has too many or too deep folders; make several batches.";
            return Err(Error::invalid("too_many_files", detail));
        }
        self.permit.merge(permit(self.permit.semaphore(), bytes)?);
        Ok(())
    }

    /// Makes unique names of the paths, which takes a while.
    pub fn named(self) -> (Vec<Member>, OwnedSemaphorePermit) {
        let Self { mut members, permit } = self;
        let paths = members.iter_mut().map(|member| mem::take(&mut member.name)).collect();
        for (member, name) in members.iter_mut().zip(names::unique(paths)) {
            member.name = name;
        }
        (members, permit)
    }
}

fn permit(memory: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).map_err(|_| Error::Busy)?;
    Arc::clone(memory).try_acquire_many_owned(bytes).map_err(|_| Error::Busy)
}

fn bytes_of(path: &str, before: &str) -> usize {
    let same = path.bytes().zip(before.bytes()).take_while(|(one, other)| one == other).count();
    let folders = path.bytes().skip(same).filter(|byte| *byte == b'/').count();
    FILE_BYTES + path.len() + folders * FOLDER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::{ARCHIVE_FILES_MAX, NAME_BYTES_MAX};

    #[test]
    fn a_path_and_its_own_folders_count() {
        assert_eq!(bytes_of("a", ""), FILE_BYTES + 1);
        assert_eq!(bytes_of("a/b/c", ""), FILE_BYTES + 5 + 2 * FOLDER_BYTES);
        assert_eq!(bytes_of("a/b/d", "a/b/c"), FILE_BYTES + 5);
        assert_eq!(bytes_of("a/bc/d", "a/b/c"), FILE_BYTES + 6 + FOLDER_BYTES);
    }

    #[test]
    fn the_memory_of_all_plans_is_bounded() {
        let memory = Arc::new(Semaphore::new(PLANS_BYTES_MAX));
        let (mut one, mut other) = (Plan::new(&memory).unwrap(), Plan::new(&memory).unwrap());
        for _ in 0..ARCHIVE_FILES_MAX {
            one.reserve(bytes_of(&"x".repeat(NAME_BYTES_MAX), "")).unwrap();
        }
        let rest = memory.available_permits();
        assert!(matches!(other.reserve(rest + 1), Err(Error::Busy)));
        other.reserve(rest).unwrap();
        assert!(matches!(one.reserve(1), Err(Error::Busy)));
        drop(one);
        other.reserve(memory.available_permits()).unwrap();
        let full = other.reserve(1);
        assert!(matches!(full, Err(Error::Invalid { code: "too_many_files", .. })));
        drop(other);
        assert_eq!(memory.available_permits(), PLANS_BYTES_MAX);
    }
}
