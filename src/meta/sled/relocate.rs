//! Migration to format 6: the records of files, which were stored under their ids alone, move among
//! those of their owners, whose order is then the list of a user's top folder. Each commit moves
//! some files and is durable in the journal before it is in sled. So the next open continues where
//! an interrupted one ended.

use std::fs::File;

use rustix::fs::fstatvfs;
use sled::IVec;

use super::{
    codec::{self, FolderNode, StoredFile},
    index::{self, Place},
    journal::{Builder, unavailable},
    open::{self, Opened, applied_value},
    room,
    runs::Runs,
    txn::Writes,
};
use crate::{
    meta::{Error, Result},
    model::{id::FileId, name::Folder},
};

/// Files moved by one commit. Few in tests, so that they cover several commits.
const FILES_AT_ONCE: usize = if cfg!(test) { 3 } else { 500 };

/// Most room that is allocated ahead for the journal and for sled.
const AHEAD_BYTES: u64 = 96 << 20;

/// Moves the records that are not moved yet. An index that cannot be read on the way is rebuilt
/// from the journal, as at an open. Blocks.
///
/// # Errors
/// As [`open::open`]; [`Error::Unavailable`] before anything has changed when there is no room.
/// What was moved stays moved. A record that cannot be read stays where it is, and its file can no
/// longer be read. This is not an error, so that the other files stay available.
pub fn relocate(place: &open::Place, mut opened: Opened) -> Result<Opened> {
    match open::unless_panicked(|| move_all(place, &mut opened)) {
        Err(Error::Corrupt(why)) => {
            drop(opened);
            let mut opened = open::made_anew(place, &why)?;
            move_all(place, &mut opened)?;
            Ok(opened)
        }
        moved => moved.map(|()| opened),
    }
}

fn move_all(place: &open::Place, opened: &mut Opened) -> Result<()> {
    let runs = Runs::new(&opened.db);
    let (mut moved, mut from) = (0, index::FILES_OF_FORMAT_5.to_vec());
    let (mut writes, mut files) = moves(&runs, &mut from)?;
    if files > 0 {
        if !place.is_stamped()? {
            check_room(&opened.file)?;
        }
        tracing::info!("moving the records of files; this takes minutes for a million files");
    }
    // Versions that would not find the moved records are kept out before the first record is moved
    // or created.
    place.stamp()?;
    while files > 0 {
        let number = commit(opened, &writes)?;
        runs.apply(&writes, &applied_value(opened.journal.id(), number))?;
        moved += files;
        (writes, files) = moves(&runs, &mut from)?;
    }
    if moved > 0 {
        runs.flush()?;
        tracing::info!(files = moved, "the records of files are now stored by owner");
    }
    Ok(())
}

/// Once the move has begun, the version before can no longer be used. So there has to be room for
/// all of it, in the journal and in sled. The move took a third of sled's size at a million files,
/// and twice sled's size at some thousands, because of what is allocated ahead.
fn check_room(index: &File) -> Result<()> {
    let has = index.metadata().map_err(unavailable)?.len();
    let needed = has.saturating_mul(3).min(has.saturating_add(AHEAD_BYTES));
    let disk = fstatvfs(index).map_err(|errno| unavailable(errno.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    Err(Error::Unavailable(format!(
        "the records of files must be moved, which needs {} MiB of free space, and {} are free. \
         Nothing has changed: the previous version still starts",
        needed >> 20,
        free >> 20,
    )))
}

fn commit(Opened { journal, file, .. }: &mut Opened, writes: &Writes) -> Result<u64> {
    let mut record = Builder::default();
    for (key, value) in writes {
        record.push(key, value.as_deref());
    }
    room::reserve(file, writes.len(), room::SCANT)?;
    journal.reserve(record.len())?;
    journal.append(record)
}

/// The writes that move the next files after `from`, and the number of these files. Advances
/// `from`.
fn moves(runs: &Runs, from: &mut Vec<u8>) -> Result<(Writes, usize)> {
    let (mut writes, mut files) = (Writes::new(), 0);
    while files < FILES_AT_ONCE {
        let (entries, bound) = runs.behind(from)?;
        for (key, record) in entries {
            if !key.starts_with(index::FILES_OF_FORMAT_5) {
                return Ok((writes, files));
            }
            match place(runs, key, record, &mut writes) {
                Ok(()) => files += 1,
                Err(Error::Corrupt(error)) => {
                    tracing::error!(error, "a file is lost: its record is damaged");
                }
                Err(error) => return Err(error),
            }
        }
        let Some(bound) = bound else { break };
        *from = bound.to_vec();
    }
    Ok((writes, files))
}

/// Adds the writes that move one file.
fn place(runs: &Runs, key: Vec<u8>, record: IVec, writes: &mut Writes) -> Result<()> {
    let id = key[index::FILES_OF_FORMAT_5.len()..].try_into().map(FileId);
    let id = id.map_err(|_| Error::Corrupt("a file id of the wrong size".into()))?;
    let file = codec::decode::<StoredFile>(&record)?.into_record(id);
    if let Some(top) = runs.get(&index::folder(&file.owner, &Folder::default()))? {
        let node = codec::decode::<FolderNode>(&top)?.node;
        writes.insert(index::list_entry(node, id), None);
    }
    let place = Place::new(&file.owner, id);
    writes.insert(index::file_key(&file.key), Some(place.bytes().into()));
    writes.insert(index::file_owner(id), Some(place.owner().into()));
    writes.insert(index::file(place), Some(record));
    writes.insert(key, None);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tokio::runtime::Runtime;

    use super::*;
    use crate::{
        meta::{
            Asker, Metadata, NewFile, Upkeep,
            sled::{SledMetadata, runs::tests::damage, txn::Txn},
        },
        model::{
            digest::{ContentHash, Sha256},
            file::{CallerMeta, FileRecord},
            key::FileKey,
            locator::Locator,
            name::{FileName, UserId},
            time::UnixMillis,
        },
    };

    const CACHE_BYTES: u64 = 16 << 20;

    fn file(n: u8) -> FileRecord {
        let owner = UserId::parse(["a", "b", "c"][usize::from(n % 3)]).unwrap();
        let folder = Folder::parse(["", "x", "x/y", "z"][usize::from(n % 4)]).unwrap();
        let name = FileName::parse("f").unwrap();
        FileRecord {
            id: FileId::new(UnixMillis((n / 2).into()), n.into(), 0),
            key: FileKey::compose(&owner, &folder, n.into(), &name),
            owner,
            folder,
            name,
            mime: "text/plain".into(),
            size: n.into(),
            blake3: ContentHash([n; 32]),
            sha256: Sha256([n; 32]),
            meta: CallerMeta::default(),
        }
    }

    fn open_store(dir: &Path) -> SledMetadata {
        SledMetadata::open(dir, CACHE_BYTES, u64::MAX).unwrap()
    }

    /// Lays a file out as format 5 did.
    fn lay_out(txn: &mut Txn<'_>, file: &FileRecord) -> Result<()> {
        let place = Place::new(&file.owner, file.id);
        let top = txn.get::<FolderNode>(&index::folder(&file.owner, &Folder::default()))?;
        txn.write(index::list_entry(top.unwrap().node, file.id), &[]);
        txn.write(index::file_key(&file.key), &file.id.0);
        txn.put([index::FILES_OF_FORMAT_5, &file.id.0].concat(), &StoredFile::new(file))?;
        txn.delete(index::file_owner(file.id));
        txn.delete(index::file(place));
        Ok(())
    }

    async fn expect(meta: &SledMetadata, files: &[FileRecord], damaged: usize) {
        assert_eq!(meta.check().await.unwrap().len(), damaged);
        for file in files {
            assert_eq!(meta.file(&file.key).await, Ok(Some(file.clone())));
            assert_eq!(meta.file_by_id(file.id).await, Ok(Some(file.clone())));
            let mut own: Vec<_> = files.iter().filter(|it| it.owner == file.owner).collect();
            own.sort_by_key(|file| std::cmp::Reverse(file.id));
            let (mut listed, mut after) = (Vec::new(), None);
            while let Some(next) =
                meta.list_files(&file.owner, &Folder::default(), after, 1).await.unwrap().pop()
            {
                after = Some(next.id);
                listed.push(next);
            }
            assert_eq!(listed.iter().collect::<Vec<_>>(), own);
        }
    }

    /// Wherever the move is interrupted, even between the journal and sled, the next open
    /// continues, even if sled is damaged, and a rebuild from the journal gives the same index.
    #[test]
    fn files_of_format_5_are_moved_at_any_loss_of_steps() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), "5\n").unwrap();
        let files: Vec<_> = (0..40).map(file).collect();
        // In the lists of all folders but the top.
        let entries = files.iter().map(|file| file.folder.lineage().count() - 1).sum::<usize>();
        let runtime = Runtime::new().unwrap();
        let meta = open_store(dir.path());
        let new = files.iter().map(|file| NewFile {
            file: file.clone(),
            locator: Locator([1].into()),
            is_known: false,
            by: Asker::Service,
            upload: None,
        });
        runtime.block_on(async {
            meta.record_files(new.collect(), UnixMillis(0), u64::MAX).await.unwrap();
            expect(&meta, &files, 0).await;
            assert_eq!(meta.records.scan_prefix(b"l").count(), entries);
            let all = files.clone();
            let old = move |txn: &mut Txn<'_>| {
                txn.write([index::FILES_OF_FORMAT_5, &[0; 16]].concat(), b"damaged");
                all.iter().try_for_each(|file| lay_out(txn, file))
            };
            meta.committer.commit(old).await.unwrap();
            assert_eq!(meta.file_by_id(files[0].id).await, Ok(None));
        });
        drop(meta);
        let mut left = files.len();
        for is_cut in [false, true, true, false, true] {
            let mut opened = open::open(&open::Place::new(dir.path(), CACHE_BYTES)).unwrap();
            let runs = Runs::new(&opened.db);
            let mut from = index::FILES_OF_FORMAT_5.to_vec();
            let (writes, moved) = moves(&runs, &mut from).unwrap();
            assert!(moved >= FILES_AT_ONCE && moved < left, "{moved} of {left}");
            let number = commit(&mut opened, &writes).unwrap();
            if !is_cut {
                runs.apply(&writes, &applied_value(opened.journal.id(), number)).unwrap();
            }
            left -= moved;
        }
        // The records that are left cannot be read in sled, but the journal has them.
        let opened = open::open(&open::Place::new(dir.path(), CACHE_BYTES)).unwrap();
        damage(&Runs::new(&opened.db), b"g");
        drop(opened);
        for is_lost in [false, true] {
            if is_lost {
                fs::remove_dir_all(dir.path().join("meta")).unwrap();
            }
            let meta = open_store(dir.path());
            runtime.block_on(expect(&meta, &files, 1));
            assert_eq!(meta.records.scan_prefix(b"l").count(), entries);
            drop(meta);
        }
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "6\n");
    }
}
