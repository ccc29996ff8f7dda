//! Lookups of files: by place, by id, by user and by folder.

use super::{
    codec::{self, FolderNode, StoredFile},
    index::{self, Place},
    records::Records,
};
use crate::{
    meta::{Error, Result},
    model::{
        file::FileRecord,
        id::FileId,
        name::{Folder, UserId},
    },
};

/// The newest files of a user that are older than `after`, at most `limit`.
pub fn of_user(
    records: &Records,
    owner: &UserId,
    after: Option<FileId>,
    limit: usize,
) -> Result<Vec<FileRecord>> {
    let table = index::files_of(owner);
    let after = after.map(|id| index::file(Place::new(owner, id)));
    let files = records.behind(&table, after.as_deref()).map(|entry| {
        let (key, bytes) = entry?;
        let id = index::placed(&key).ok_or_else(misplaced)?.id();
        let file = codec::decode::<StoredFile>(&bytes)?.into_record(id);
        // Files of another user with the same short hash may lie among them.
        Ok(Some(file).filter(|file| file.owner == *owner))
    });
    files.filter_map(Result::transpose).take(limit).collect()
}

/// The newest files of a user in a folder and beneath it that are older than `after`, at most
/// `limit`.
pub fn in_folder(
    records: &Records,
    owner: &UserId,
    folder: &Folder,
    after: Option<FileId>,
    limit: usize,
) -> Result<Vec<FileRecord>> {
    let Some(FolderNode { node, .. }) = records.get(&index::folder(owner, folder))? else {
        return Ok(Vec::new());
    };
    let after = after.map(|id| index::list_entry(node, id));
    let files = records.behind(&index::list(node), after.as_deref()).map(|entry| {
        let id = index::listed(&entry?.0).ok_or_else(misplaced)?;
        // A file that was removed meanwhile is skipped.
        at(records, Place::new(owner, id))
    });
    files.filter_map(Result::transpose).take(limit).collect()
}

pub fn misplaced() -> Error {
    Error::Corrupt("the place of a file".into())
}

pub fn at(records: &Records, place: Place) -> Result<Option<FileRecord>> {
    let stored = records.get::<StoredFile>(&index::file(place))?;
    Ok(stored.map(|stored| stored.into_record(place.id())))
}

pub fn of_id(records: &Records, id: FileId) -> Result<Option<FileRecord>> {
    let Some(owner) = records.read(&index::file_owner(id))? else { return Ok(None) };
    at(records, Place::found(&owner, id).ok_or_else(misplaced)?)
}
