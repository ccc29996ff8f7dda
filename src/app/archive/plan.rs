//! The files of an archive before its first byte, and the memory that they take.

use std::{mem, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Result, names};
use crate::{
    model::{digest::ContentHash, file::FileRecord, name::Folder, time::UnixMillis},
    zip,
};

/// Bytes of memory that the plans of all archives in work take; past it: [`Error::Busy`]. One of
/// [`ARCHIVE_FILES_MAX`] files has room whatever their names, but not whatever their folders.
///
/// [`ARCHIVE_FILES_MAX`]: crate::model::limits::ARCHIVE_FILES_MAX
pub const PLANS_BYTES_MAX: usize = 64 << 20;

/// What a file takes besides its path, and a folder that the file before does not lie in: as much
/// as while their names are made unique.
const FILE_BYTES: usize = 256;
const FOLDER_BYTES: usize = 64;

/// A file in an archive.
pub struct Member {
    pub name: Box<str>,
    pub blake3: ContentHash,
    pub size: u64,
    pub modified: UnixMillis,
    /// Where its header begins.
    pub header: u64,
}

impl Member {
    pub fn entry(&self) -> zip::Entry<'_> {
        zip::Entry { name: &self.name, size: self.size, modified: self.modified }
    }

    /// Of its record in the directory.
    pub fn record_bytes(&self) -> u64 {
        self.entry().central_bytes(self.header)
    }
}

pub struct Plan {
    pub members: Vec<Member>,
    /// One for each byte, and one from the begin on: who sweeps sees that an archive is on its way.
    permit: OwnedSemaphorePermit,
}

impl Plan {
    pub fn new(memory: &Arc<Semaphore>) -> Result<Self> {
        Ok(Self { members: Vec::new(), permit: permit(memory, 1)? })
    }

    /// Takes a file in: as it lies in a folder, or beside the others.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Invalid`] when there is never room for so much.
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
            let detail = "The folders of so many files are too many or too deep for one batch.";
            return Err(Error::invalid("too_many_files", detail));
        }
        self.permit.merge(permit(self.permit.semaphore(), bytes)?);
        Ok(())
    }

    /// Makes names of paths, which takes a while.
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
