//! Records as bytes: one version byte, then postcard (its wire format is stable since 1.0).
//!
//! A value does not repeat what the record's key says.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    meta::{BlobRecord, Error, Part, Result, UserRecord},
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::{FileId, PartNumber, UploadId},
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        principal::Role,
        time::UnixMillis,
        upload::{Mode, Upload, UploadState},
    },
};

/// Version of every record except a token's, which has a version of its own. When a stored type
/// changes, this is raised, and [`decode`] must still read the version before.
const VERSION: u8 = 1;

pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>> {
    encode_as(VERSION, record)
}

pub(super) fn encode_as<T: Serialize>(version: u8, record: &T) -> Result<Vec<u8>> {
    postcard::to_extend(record, vec![version]).map_err(|error| Error::Corrupt(error.to_string()))
}

/// # Errors
/// [`Error::Corrupt`] for any bytes that [`encode`] does not write.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes {
        [VERSION, record @ ..] => decode_body(record),
        [version, ..] => Err(Error::Corrupt(format!("unknown record version {version}"))),
        [] => Err(Error::Corrupt("empty record".into())),
    }
}

/// Decodes a record without its version byte.
pub(super) fn decode_body<T: DeserializeOwned>(record: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Ok(record),
        Ok(_) => Err(Error::Corrupt("bytes behind the record".into())),
        Err(error) => Err(Error::Corrupt(error.to_string())),
    }
}

/// A folder of a user: its node in the list index, and the totals of what lies in and beneath it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct FolderNode {
    pub node: u64,
    pub files: u64,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
pub struct StoredFile {
    owner: UserId,
    folder: Folder,
    name: FileName,
    key: StoredKey,
    mime: Box<str>,
    size: u64,
    blake3: ContentHash,
    sha256: Sha256,
    meta: CallerMeta,
}

/// A key can almost always be composed from what the record holds anyway. [`FileKey::compose`] does
/// this, not [`FileKey::new`].
#[derive(Serialize, Deserialize)]
enum StoredKey {
    Composed { salt: u32 },
    Verbatim(FileKey),
}

impl StoredFile {
    pub fn new(file: &FileRecord) -> Self {
        let salt = file.key.salt().filter(|salt| {
            FileKey::compose(&file.owner, &file.folder, *salt, &file.name) == file.key
        });
        Self {
            owner: file.owner.clone(),
            folder: file.folder.clone(),
            name: file.name.clone(),
            key: salt.map_or_else(
                || StoredKey::Verbatim(file.key.clone()),
                |salt| StoredKey::Composed { salt },
            ),
            mime: file.mime.clone(),
            size: file.size,
            blake3: file.blake3,
            sha256: file.sha256,
            meta: file.meta.clone(),
        }
    }

    pub fn into_record(self, id: FileId) -> FileRecord {
        let key = match self.key {
            StoredKey::Composed { salt } => {
                FileKey::compose(&self.owner, &self.folder, salt, &self.name)
            }
            StoredKey::Verbatim(key) => key,
        };
        FileRecord {
            id,
            owner: self.owner,
            folder: self.folder,
            name: self.name,
            key,
            mime: self.mime,
            size: self.size,
            blake3: self.blake3,
            sha256: self.sha256,
            meta: self.meta,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct StoredUser {
    created: UnixMillis,
    role: Option<Role>,
    quota: Option<u64>,
    /// One byte, as was the boolean `disabled` that this field replaced.
    flags: u8,
    reserved: u64,
}

const DISABLED: u8 = 1;
const PRIVATE: u8 = 2;

impl StoredUser {
    pub fn new(user: &UserRecord) -> Self {
        Self {
            created: user.created,
            role: user.role,
            quota: user.quota,
            flags: (u8::from(user.disabled) * DISABLED) | (u8::from(user.private) * PRIVATE),
            reserved: user.reserved,
        }
    }

    pub fn into_record(self, id: UserId) -> UserRecord {
        UserRecord {
            id,
            created: self.created,
            role: self.role,
            quota: self.quota,
            disabled: self.flags & DISABLED != 0,
            private: self.flags & PRIVATE != 0,
            reserved: self.reserved,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct StoredUpload {
    owner: UserId,
    name: FileName,
    folder: Folder,
    mime: Option<Box<str>>,
    size: u64,
    mode: Mode,
    meta: CallerMeta,
    expires: UnixMillis,
    received: u64,
    revision: u64,
    state: StoredState,
}

/// The first two variants have the same bytes as the `UploadState` that was stored here before.
#[derive(Serialize, Deserialize)]
enum StoredState {
    Open,
    Completed(FileId),
    /// Open, and the whole file must have this digest.
    OpenFor(Sha256),
}

impl StoredUpload {
    pub fn new(upload: &Upload) -> Self {
        Self {
            owner: upload.owner.clone(),
            name: upload.name.clone(),
            folder: upload.folder.clone(),
            mime: upload.mime.clone(),
            size: upload.size,
            mode: upload.mode,
            meta: upload.meta.clone(),
            expires: upload.expires,
            received: upload.received,
            revision: upload.revision,
            state: match (upload.state, upload.sha256) {
                (UploadState::Open, None) => StoredState::Open,
                (UploadState::Open, Some(sha256)) => StoredState::OpenFor(sha256),
                (UploadState::Completed(file), _) => StoredState::Completed(file),
            },
        }
    }

    pub fn into_record(self, id: UploadId) -> Upload {
        let (state, sha256) = match self.state {
            StoredState::Open => (UploadState::Open, None),
            StoredState::OpenFor(sha256) => (UploadState::Open, Some(sha256)),
            StoredState::Completed(file) => (UploadState::Completed(file), None),
        };
        Upload {
            id,
            owner: self.owner,
            name: self.name,
            folder: self.folder,
            mime: self.mime,
            size: self.size,
            mode: self.mode,
            sha256,
            meta: self.meta,
            expires: self.expires,
            received: self.received,
            revision: self.revision,
            state,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct StoredPart {
    size: u64,
    blake3: ContentHash,
    sha256: Sha256,
    place: Locator,
}

impl StoredPart {
    pub fn new(part: &Part) -> Self {
        Self {
            size: part.size,
            blake3: part.blake3,
            sha256: part.sha256,
            place: part.place.clone(),
        }
    }

    pub fn into_record(self, number: PartNumber) -> Part {
        Part {
            number,
            size: self.size,
            blake3: self.blake3,
            sha256: self.sha256,
            place: self.place,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub struct StoredBatch {
    pub owner: UserId,
    pub uploads: Vec<UploadId>,
}

#[derive(Serialize, Deserialize)]
pub struct StoredBlob {
    pub locator: Locator,
    pub references: u64,
    pub held: Held,
}

/// Which files hold a blob. The first two variants have the same bytes as the `Option` that was
/// stored here before.
#[derive(Serialize, Deserialize)]
pub enum Held {
    /// Files that are not recorded here.
    Unnamed,
    /// No file since this time, which is part of the blob's key in the index of unreferenced blobs.
    Unreferenced(UnixMillis),
    /// The last files that were stored with this content, the newest last. Some may have been
    /// removed.
    By(Vec<FileId>),
}

impl StoredBlob {
    pub fn unreferenced(&self) -> Option<UnixMillis> {
        match self.held {
            Held::Unreferenced(since) => Some(since),
            Held::Unnamed | Held::By(_) => None,
        }
    }

    pub fn into_record(self, damaged: Option<UnixMillis>) -> BlobRecord {
        BlobRecord { locator: self.locator, references: self.references, damaged }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A damaged record is an error, never a panic.
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<StoredFile>(&bytes);
            let _ = decode::<StoredUpload>(&bytes);
            let _ = decode::<StoredBlob>(&bytes);
        }
    }

    #[test]
    fn a_blob_of_before_its_files_were_named_is_read() {
        let locator = Locator([1, 2].into());
        for unreferenced in [None, Some(UnixMillis(7))] {
            let before = encode(&(locator.clone(), 3_u64, unreferenced)).unwrap();
            let read = decode::<StoredBlob>(&before).unwrap();
            assert_eq!((&read.locator, read.references), (&locator, 3));
            assert_eq!(read.unreferenced(), unreferenced);
        }
    }

    #[test]
    fn an_upload_of_before_its_digest_was_kept_is_read() {
        let name = FileName::parse("f").unwrap();
        let owner = UserId::parse("u").unwrap();
        let (folder, meta) = (Folder::default(), CallerMeta::default());
        let none: Option<Box<str>> = None;
        for state in [UploadState::Open, UploadState::Completed(FileId([7; 16]))] {
            let named = (owner.clone(), name.clone(), folder.clone(), none.clone());
            let sized = (5_u64, Mode::Chunked, meta.clone(), UnixMillis(9), 4_u64, 3_u64, state);
            let before = encode(&(named, sized)).unwrap();
            let id = UploadId([1; 16]);
            let mut upload = decode::<StoredUpload>(&before).unwrap().into_record(id);
            assert_eq!((upload.state, upload.sha256, upload.revision), (state, None, 3));
            upload.sha256 = Some(Sha256([2; 32]));
            let bytes = encode(&StoredUpload::new(&upload)).unwrap();
            let read = decode::<StoredUpload>(&bytes).unwrap().into_record(id);
            // A completed session has no expected digest any more.
            upload.sha256 = upload.sha256.filter(|_| state == UploadState::Open);
            assert_eq!(read, upload);
        }
    }

    #[test]
    fn a_file_keeps_a_key_that_was_not_composed() {
        // A name that ends in a space had a key that ends in one, too.
        let name = FileName::parse("new.txt ").unwrap();
        for key in [
            "storage/u/0000000a_new.txt ",
            "storage/u/0000000a_new.txt_",
            "storage/u/0000000a_old.txt",
            "storage/u/x",
        ] {
            let file = FileRecord {
                id: FileId([7; 16]),
                owner: UserId::parse("u").unwrap(),
                folder: Folder::default(),
                name: name.clone(),
                key: FileKey::parse(key).unwrap(),
                mime: "text/plain".into(),
                size: 3,
                blake3: ContentHash([1; 32]),
                sha256: Sha256([2; 32]),
                meta: CallerMeta::default(),
            };
            let stored = StoredFile::new(&file);
            // A record in the short form must be read the same way for ever.
            let is_short = matches!(stored.key, StoredKey::Composed { .. });
            assert_eq!(is_short, key.ends_with(' '), "{key:?}");
            let bytes = encode(&stored).unwrap();
            let read = decode::<StoredFile>(&bytes).unwrap().into_record(file.id);
            assert_eq!(read, file);
            let mut longer = bytes;
            longer.push(0);
            assert!(decode::<StoredFile>(&longer).is_err());
        }
    }
}
