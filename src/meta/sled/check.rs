//! The index held against itself: what is written twice has to agree.

use std::collections::HashMap;

use super::{
    codec::{self, FolderNode, StoredBlob, StoredFile, StoredPart, StoredUpload, StoredUser},
    file_id, index,
    records::Records,
};
use crate::{
    meta::Result,
    model::{
        digest::ContentHash,
        file::Totals,
        id::{FileId, UploadId},
        name::UserId,
        upload::UploadState,
    },
};

/// Findings that are told; more are only counted.
const FINDINGS_MAX: usize = 100;

/// What does not agree, a line each.
#[derive(Default)]
struct Findings {
    told: Vec<String>,
    more: usize,
}

impl Findings {
    fn check(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        if holds {
            return;
        }
        if self.told.len() < FINDINGS_MAX {
            self.told.push(finding());
        } else {
            self.more += 1;
        }
    }
}

/// Walks every table. Memory grows with users, folders and blobs, some 100 bytes each.
pub fn check(records: &Records) -> Result<Vec<String>> {
    let mut findings = Findings::default();
    files(records, &mut findings)?;
    contents(records, &mut findings)?;
    uploads(records, &mut findings)?;
    if findings.more > 0 {
        findings.told.push(format!("and {} more", findings.more));
    }
    Ok(findings.told)
}

fn get<T: serde::de::DeserializeOwned>(records: &Records, key: &[u8]) -> Result<Option<T>> {
    records.get(key)?.map(|bytes| codec::decode(&bytes)).transpose()
}

/// Every file is found by its key, stands in its lists, is counted and has a blob.
fn files(records: &Records, findings: &mut Findings) -> Result<()> {
    let mut counts: HashMap<Vec<u8>, Totals> = HashMap::new();
    let mut references: HashMap<ContentHash, u64> = HashMap::new();
    for entry in records.scan_prefix(index::FILES) {
        let (key, bytes) = entry?;
        let id: FileId = file_id(key.get(1..).unwrap_or_default())?;
        let file = codec::decode::<StoredFile>(&bytes)?.into_record(id);
        let named = records.get(&index::file_key(&file.key))?;
        findings.check(named.is_some_and(|named| *named == id.0), || {
            format!("file {id} is not found by its key")
        });
        for folder in file.folder.lineage() {
            let key = index::folder(&file.owner, &folder);
            let node = get::<FolderNode>(records, &key)?;
            let listed = node.map(|node| records.contains_key(&index::list_entry(node.node, id)));
            findings.check(listed.transpose()? == Some(true), || {
                format!("file {id} is missing in a list")
            });
            let count = counts.entry(key).or_default();
            count.files += 1;
            count.bytes = count.bytes.saturating_add(file.size);
        }
        *references.entry(file.blake3).or_default() += 1;
    }
    for entry in records.scan_prefix(index::FOLDERS) {
        let (key, bytes) = entry?;
        let node = codec::decode::<FolderNode>(&bytes)?;
        let counted = counts.remove(&key).unwrap_or_default();
        findings.check(counted == Totals { files: node.files, bytes: node.bytes }, || {
            format!("a folder says {} files and has {}", node.files, counted.files)
        });
    }
    for entry in records.scan_prefix(index::BLOBS) {
        let (key, bytes) = entry?;
        let blob = codec::decode::<StoredBlob>(&bytes)?;
        let hash = key.get(1..).and_then(|hash| hash.try_into().ok()).map(ContentHash);
        let counted = hash.and_then(|hash| references.remove(&hash)).unwrap_or(0);
        findings.check(counted == blob.references, || {
            format!("a blob says {} files and has {counted}", blob.references)
        });
        findings.check((counted == 0) == blob.unreferenced().is_some(), || {
            "a blob without a file would never go".to_owned()
        });
    }
    for hash in references.keys() {
        findings.check(false, || format!("blob {hash} has files and no record"));
    }
    Ok(())
}

/// Whatever a user is said to have is what its file holds. A file that is missing here was stored
/// before contents were indexed.
fn contents(records: &Records, findings: &mut Findings) -> Result<()> {
    for entry in records.scan_prefix(index::OWNED) {
        let (key, _) = entry?;
        let file = match index::owned_file(&key) {
            Some(id) => get::<StoredFile>(records, &index::file(id))?.map(|it| it.into_record(id)),
            None => None,
        };
        findings.check(file.is_some_and(|file| index::owned_entry(&file) == key), || {
            "a content is said to be that of a file which has another".to_owned()
        });
    }
    Ok(())
}

/// Every session has what its parts say, and every user what the sessions reserve.
fn uploads(records: &Records, findings: &mut Findings) -> Result<()> {
    let mut reserved: HashMap<UserId, u64> = HashMap::new();
    for entry in records.scan_prefix(index::UPLOADS) {
        let (key, bytes) = entry?;
        let Some(id) = key.get(1..).and_then(|id| id.try_into().ok()).map(UploadId) else {
            findings.check(false, || "an upload's key".to_owned());
            continue;
        };
        let upload = codec::decode::<StoredUpload>(&bytes)?.into_record(id);
        if upload.state != UploadState::Open {
            continue;
        }
        let mut received = 0_u64;
        for part in records.scan_prefix(&index::parts(id)) {
            let (key, bytes) = part?;
            let number = index::part_number(&key).unwrap_or(crate::model::id::PartNumber(0));
            let part = codec::decode::<StoredPart>(&bytes)?.into_record(number);
            received = received.saturating_add(part.size);
        }
        findings.check(received == upload.received, || {
            format!("upload {id} says {} bytes and has {received}", upload.received)
        });
        let open = records.contains_key(&index::open(&upload.owner, id))?;
        findings.check(open, || format!("upload {id} is missing among those of its user"));
        let own = reserved.entry(upload.owner.clone()).or_default();
        *own = own.saturating_add(upload.reserved());
    }
    for entry in records.scan_prefix(index::USERS) {
        let (key, bytes) = entry?;
        let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
        let Some(id) = name.and_then(|name| UserId::parse(name).ok()) else {
            findings.check(false, || "a user's key".to_owned());
            continue;
        };
        let user = codec::decode::<StoredUser>(&bytes)?.into_record(id);
        let counted = reserved.remove(&user.id).unwrap_or(0);
        findings.check(counted == user.reserved, || {
            format!("user {} reserves {} bytes, uploads {counted}", user.id, user.reserved)
        });
    }
    for user in reserved.keys() {
        findings.check(false, || format!("user {user} has uploads and no record"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Runtime;

    use super::*;
    use crate::{
        meta::{Metadata, NewFile, Upkeep, sled::SledMetadata},
        model::{
            digest::Sha256,
            file::{CallerMeta, FileRecord},
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
        let (file, locator) = (file.clone(), Locator([file.blake3.0[0]].into()));
        let new = NewFile { file, locator, is_known: false, upload: None };
        meta.record_files(vec![new], UnixMillis(0), 99).await.unwrap();
    }

    /// Half a hash leads to a record, which is compared; what no step writes is found by `fsck`.
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
