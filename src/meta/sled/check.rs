//! Checks the index against itself: what is written twice has to agree.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    codec::{self, FolderNode, StoredBlob, StoredFile, StoredPart, StoredUpload, StoredUser},
    files,
    index::{self, Place},
    records::Records,
    runs::Entry,
};
use crate::{
    meta::{Error, Result},
    model::{digest::ContentHash, file::Totals, name::UserId, upload::UploadState},
};

/// Most findings that are returned; more are only counted.
const TOLD_MAX: usize = 100;
/// Most records whose findings are kept. Of further records it is unknown whether they changed
/// meanwhile.
const KEPT_MAX: usize = 100_000;

/// What does not agree. Each finding is kept under a record that every step writes if it changes
/// either side of the comparison. If that record was written during the walk, the finding proves
/// nothing.
#[derive(Default)]
pub struct Findings {
    of: BTreeMap<Vec<u8>, Vec<String>>,
    more: usize,
    forgotten: usize,
}

impl Findings {
    fn check(&mut self, holds: bool, record: &[u8], finding: impl FnOnce() -> String) {
        if holds {
            return;
        }
        if self.of.len() < KEPT_MAX || self.of.contains_key(record) {
            self.of.entry(record.to_vec()).or_default().push(finding());
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty() && self.more == 0
    }

    /// Drops the findings of a record.
    pub fn forget(&mut self, record: &[u8]) {
        self.forgotten += usize::from(self.of.remove(record).is_some());
    }

    /// The number of records whose findings were dropped.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// The findings of this walk and those that earlier walks proved.
    #[must_use]
    pub fn and(mut self, proven: Self) -> Self {
        for (record, found) in proven.of {
            self.of.entry(record).or_insert(found);
        }
        // Where records changed, so may have those that were only counted.
        if self.forgotten > 0 {
            self.more = 0;
        }
        self
    }

    /// The findings, a line each.
    pub fn told(self) -> Vec<String> {
        let mut told: Vec<String> = self.of.into_values().flatten().collect();
        let more = told.len().saturating_sub(TOLD_MAX) + self.more;
        told.truncate(TOLD_MAX);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }
}

/// Walks the records until `stopping` is set.
pub struct Walk<'a> {
    pub records: &'a Records,
    pub stopping: &'a AtomicBool,
}

impl Walk<'_> {
    /// Walks every table that can be compared. Memory grows with users, folders and blobs, some 100
    /// bytes each. Blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a record that cannot be read, [`Error::Unavailable`] when the walk is
    /// stopped.
    pub fn findings(&self) -> Result<Findings> {
        let mut findings = Findings::default();
        self.files(&mut findings)?;
        self.ids(&mut findings)?;
        self.contents(&mut findings)?;
        self.uploads(&mut findings)?;
        Ok(findings)
    }

    fn table(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Entry>> {
        self.records.scan_prefix(prefix).map(|entry| {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(Error::Unavailable("the store is being closed".into()));
            }
            entry
        })
    }

    /// Every file is found by its key and its id, stands in its lists, is counted and has a blob.
    fn files(&self, findings: &mut Findings) -> Result<()> {
        let mut counts: HashMap<Vec<u8>, Totals> = HashMap::new();
        let mut references: HashMap<ContentHash, u64> = HashMap::new();
        for entry in self.table(index::FILES) {
            let (key, bytes) = entry?;
            let place = index::placed(&key);
            let place = place.ok_or_else(|| Error::Corrupt("the key of a file".into()))?;
            let id = place.id();
            let file = codec::decode::<StoredFile>(&bytes)?.into_record(id);
            findings.check(Place::new(&file.owner, id) == place, &key, || {
                format!("the record of file {id} is in the wrong place")
            });
            let named = self.records.read(&index::file_key(&file.key))?;
            findings.check(named.is_some_and(|named| *named == place.bytes()), &key, || {
                format!("file {id} is not found by its key")
            });
            let owner = self.records.read(&index::file_owner(id))?;
            findings.check(owner.is_some_and(|owner| *owner == *place.owner()), &key, || {
                format!("file {id} is not found by its id")
            });
            for folder in file.folder.lineage() {
                let folder_key = index::folder(&file.owner, &folder);
                let node = self.records.get::<FolderNode>(&folder_key)?;
                let is_listed = match node {
                    Some(_) if folder.is_top() => true,
                    Some(node) => self.records.contains_key(&index::list_entry(node.node, id))?,
                    None => false,
                };
                findings.check(is_listed, &key, || {
                    format!("file {id} is missing in the list of a folder")
                });
                let count = counts.entry(folder_key).or_default();
                count.files += 1;
                count.bytes = count.bytes.saturating_add(file.size);
            }
            *references.entry(file.blake3).or_default() += 1;
        }
        for entry in self.table(index::FILES_OF_FORMAT_5) {
            let (key, _) = entry?;
            findings.check(false, &key, || "the record of a file cannot be read".to_owned());
        }
        for entry in self.table(index::FOLDERS) {
            let (key, bytes) = entry?;
            let node = codec::decode::<FolderNode>(&bytes)?;
            let counted = counts.remove(&key).unwrap_or_default();
            findings.check(
                counted == Totals { files: node.files, bytes: node.bytes },
                &key,
                || format!("a folder counts {} files and has {}", node.files, counted.files),
            );
        }
        for entry in self.table(index::BLOBS) {
            let (key, bytes) = entry?;
            let blob = codec::decode::<StoredBlob>(&bytes)?;
            let hash = index::content(&key);
            let counted = hash.and_then(|hash| references.remove(&hash)).unwrap_or(0);
            findings.check(counted == blob.references, &key, || {
                format!("a blob counts {} files and has {counted}", blob.references)
            });
            findings.check((counted == 0) == blob.unreferenced().is_some(), &key, || {
                "a blob without a file would never be removed".to_owned()
            });
        }
        for hash in references.keys() {
            findings.check(false, &index::blob(hash), || {
                format!("blob {hash} has files but no record")
            });
        }
        Ok(())
    }

    /// Every entry of the index of ids leads to a file.
    fn ids(&self, findings: &mut Findings) -> Result<()> {
        for entry in self.table(index::FILE_OWNERS) {
            let (key, _) = entry?;
            let file = match index::owned_by(&key) {
                Some(id) => files::of_id(self.records, id)?,
                None => None,
            };
            findings.check(file.is_some(), &key, || "an id leads to no file".to_owned());
        }
        Ok(())
    }

    /// Every entry of the content index names a file of that user and content. A file without an
    /// entry was stored before contents were indexed.
    fn contents(&self, findings: &mut Findings) -> Result<()> {
        for entry in self.table(index::OWNED) {
            let (key, _) = entry?;
            let file = match index::owned_file(&key) {
                Some(id) => files::of_id(self.records, id)?,
                None => None,
            };
            let record = index::owned_file(&key).map_or(key.clone(), index::file_owner);
            findings.check(
                file.is_some_and(|file| index::owned_entry(&file) == key),
                &record,
                || "a content is listed for a file that has another".to_owned(),
            );
        }
        Ok(())
    }

    /// Every open session has received the bytes of its parts, and every user reserves what the
    /// user's sessions reserve.
    fn uploads(&self, findings: &mut Findings) -> Result<()> {
        let mut reserved: HashMap<UserId, u64> = HashMap::new();
        for entry in self.table(index::UPLOADS) {
            let (key, bytes) = entry?;
            let Some(id) = index::upload_id(&key) else {
                findings.check(false, &key, || "the key of an upload is damaged".to_owned());
                continue;
            };
            let upload = codec::decode::<StoredUpload>(&bytes)?.into_record(id);
            if upload.state != UploadState::Open {
                continue;
            }
            let mut received = 0_u64;
            for part in self.table(&index::parts(id)) {
                let (key, bytes) = part?;
                let Some(number) = index::part_number(&key) else {
                    findings.check(false, &index::upload(id), || {
                        format!("upload {id}: the key of a part is damaged")
                    });
                    continue;
                };
                let part = codec::decode::<StoredPart>(&bytes)?.into_record(number);
                received = received.saturating_add(part.size);
            }
            let record = index::upload(id);
            findings.check(received == upload.received, &record, || {
                format!("upload {id} counts {} bytes and has {received}", upload.received)
            });
            let open = self.records.contains_key(&index::open(&upload.owner, id))?;
            findings
                .check(open, &record, || format!("upload {id} is missing in the list of its user"));
            let own = reserved.entry(upload.owner.clone()).or_default();
            *own = own.saturating_add(upload.reserved());
        }
        for entry in self.table(index::USERS) {
            let (key, bytes) = entry?;
            let Some(id) = index::user_id(&key) else {
                findings.check(false, &key, || "the key of a user is damaged".to_owned());
                continue;
            };
            let user = codec::decode::<StoredUser>(&bytes)?.into_record(id);
            let counted = reserved.remove(&user.id).unwrap_or(0);
            findings.check(counted == user.reserved, &key, || {
                format!(
                    "user {} counts {} reserved bytes, its uploads {counted}",
                    user.id, user.reserved
                )
            });
        }
        for user in reserved.keys() {
            findings.check(false, &index::user(user), || {
                format!("user {user} has uploads but no record")
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Runtime;

    use super::*;
    use crate::{
        meta::{Asker, Metadata, NewFile, Upkeep, sled::SledMetadata},
        model::{
            digest::Sha256,
            file::{CallerMeta, FileRecord},
            id::FileId,
            key::FileKey,
            locator::Locator,
            name::{FileName, Folder},
            time::UnixMillis,
        },
    };

    fn file(owner: &str, content: u8, salt: u32) -> FileRecord {
        let owner = UserId::parse(owner).unwrap();
        let (folder, name) = (Folder::default(), FileName::parse("f").unwrap());
        FileRecord {
            id: FileId::new(UnixMillis(salt.into()), 0, 0),
            key: FileKey::compose(&owner, &folder, salt, &name),
            owner,
            folder,
            name,
            mime: "text/plain".into(),
            size: 5,
            blake3: ContentHash([content; 32]),
            sha256: Sha256([content; 32]),
            meta: CallerMeta::default(),
        }
    }

    async fn store(meta: &SledMetadata, file: &FileRecord) {
        store_all(meta, vec![file.clone()]).await;
    }

    async fn store_all(meta: &SledMetadata, files: Vec<FileRecord>) {
        let new = files.into_iter().map(|file| NewFile {
            locator: Locator([file.blake3.0[0]].into()),
            file,
            is_known: false,
            by: Asker::Service,
            upload: None,
        });
        meta.record_files(new.collect(), UnixMillis(0), u64::MAX).await.unwrap();
    }

    /// What a commit changes during the walk is no finding; a fault that no commit touched is one.
    #[test]
    fn faults_are_told_from_what_changes_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(SledMetadata::open(dir.path(), 16 << 20, u64::MAX).unwrap());
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            for first in (0..2_000).step_by(500) {
                let files = (first..first + 500).map(|salt| file("a", 201, salt)).collect();
                store_all(&meta, files).await;
            }
        });
        let is_over = Arc::new(AtomicBool::new(false));
        let (changing, over) = (Arc::clone(&meta), Arc::clone(&is_over));
        let changes = runtime.spawn(async move {
            for salt in 10_000_u32.. {
                if over.load(Ordering::Relaxed) {
                    return salt;
                }
                let content = u8::try_from(salt % 200).unwrap();
                store(&changing, &file("a", content, salt)).await;
                let old = file("a", u8::try_from((salt - 5) % 200).unwrap(), salt - 5);
                let _ = changing.remove_file(&old.key, UnixMillis(0)).await;
            }
            0
        });
        runtime.block_on(async {
            for _ in 0..10 {
                assert_eq!(meta.check().await, Ok(vec![]));
            }
            let fault = index::owned(&UserId::parse("b").unwrap(), &Sha256([7; 32]));
            let fault = [fault, vec![9; 16]].concat();
            let set = move |txn: &mut crate::meta::sled::txn::Txn<'_>| {
                txn.write(fault, &[]);
                Ok(())
            };
            meta.committer.commit(set).await.unwrap();
            for _ in 0..5 {
                assert_eq!(meta.check().await.unwrap().len(), 1);
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(changes.await.unwrap() > 10_050, "nothing changed meanwhile");
        });
    }

    /// The record that half a hash leads to is compared. Entries that no step would write are found
    /// by `fsck`.
    #[test]
    fn a_content_is_only_that_of_files_which_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let meta = SledMetadata::open(dir.path(), 16 << 20, u64::MAX).unwrap();
        let (own, others, again) = (file("a", 1, 1), file("b", 2, 2), file("a", 1, 3));
        let found = async |content| meta.file_with_sha256(&own.owner, &Sha256([content; 32])).await;
        let set = async |entries: Vec<Vec<u8>>, is_there: bool| {
            let set = move |txn: &mut crate::meta::sled::txn::Txn<'_>| {
                for entry in entries {
                    if is_there { txn.write(entry, &[]) } else { txn.delete(entry) }
                }
                Ok(())
            };
            meta.committer.commit(set).await.unwrap();
        };
        Runtime::new().unwrap().block_on(async {
            store(&meta, &own).await;
            store(&meta, &others).await;
            let wrong = |content, id: [u8; 16]| {
                [index::owned(&own.owner, &Sha256([content; 32])), id.to_vec()].concat()
            };
            let entries = vec![wrong(2, others.id.0), wrong(3, own.id.0), wrong(4, [9; 16])];
            set(entries.clone(), true).await;
            for content in [2, 3, 4] {
                assert_eq!(found(content).await, Ok(None), "{content}");
            }
            assert_eq!(found(1).await, Ok(Some(own.clone())));
            assert_eq!(meta.check().await.unwrap().len(), entries.len());
            set(entries, false).await;
            // As if it was stored before contents were indexed.
            set(vec![index::owned_entry(&own)], false).await;
            assert_eq!(found(1).await, Ok(None));
            assert_eq!(meta.check().await, Ok(vec![]));
            store(&meta, &again).await;
            assert_eq!(found(1).await, Ok(Some(again)));
        });
    }
}
