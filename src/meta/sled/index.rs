//! The key space: one leading byte per table. [`super::runs`] says how the records lie in sled.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | user | id | [`super::codec::StoredUser`] |
//! | token | token id | [`super::accounts`] |
//! | use | token id | [`crate::meta::accounts::TokenUse`]: when and whence it was used last |
//! | valid from | 'a', 's' half a name's hash, or 'u' user id | first second of good tokens |
//! | file | [`Place`]: 8 bytes of BLAKE3(user), inverted file id | [`super::codec::StoredFile`] |
//! | file owner | file id | first 8 bytes of BLAKE3(user) |
//! | key | first 16 bytes of BLAKE3(key) | [`Place`] |
//! | folder | first 16 bytes of BLAKE3(user 0 path) | [`super::codec::FolderNode`] |
//! | list | node, inverted file id | nothing: newest first by key order |
//! | owned | first 16 bytes of BLAKE3(user 0 SHA-256), file id | nothing: who has which content |
//! | blob | content hash | [`super::codec::StoredBlob`] |
//! | unreferenced | since, content hash | nothing |
//! | upload | upload id | [`super::codec::StoredUpload`] |
//! | part | upload id, number | [`super::codec::StoredPart`] |
//! | open | user 0 upload id | nothing |
//! | batch | batch id | [`super::codec::StoredBatch`] |
//! | concatenation | upload id | the ids that it is made of |
//! | final of | upload id | the id of what it becomes a part of |
//! | expiry | time, upload or batch id | nothing; a hint, the record's own time counts |
//! | damaged | content hash | since: the bytes that the blob's record names are not good |
//! | damaged count | nothing | blobs in the table above |
//! | scrub | 'r' or 'l' | [`crate::meta::upkeep::ScrubPass`]: the running pass, the last one |
//! | begun | nothing | when this index was begun |
//! | selection | expires, digest, number | [`super::selection`]: files of a batch token |
//! | node | nothing | the next unused folder node |
//! | own | a word | what the engine notes for itself: a probe, the last commit it has |
//!
//! The files of a user stand together, so their order is the list of the user's top folder. A file
//! stands in the list of every other folder that it is beneath, and each folder counts what lies
//! beneath it. A page, a total and a quota check are then point reads and one short scan, however
//! many files there are. User ids hold no control characters, so the zero byte ends
//! them. Keys and folders, which may be long, are hashed: no key here is longer than 300 bytes.

use crate::{
    meta::accounts::Holder,
    model::{
        digest::{ContentHash, Sha256},
        file::FileRecord,
        id::{FileId, PartNumber, SelectionId, TokenId, UploadId},
        key::FileKey,
        name::{Folder, UserId},
        time::UnixMillis,
    },
};

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// No table is before it.
pub const FIRST_TABLE: &[u8] = b"A";

/// Greater than every key of the table of `key`, and not than any of the next.
pub fn end_of_table(key: &[u8]) -> Vec<u8> {
    vec![key.first().map_or(0, |table| table + 1)]
}

/// Where in its table most new records come.
#[derive(Clone, Copy)]
pub enum Growth {
    AtTheEnd,
    /// Of the records that begin as it does.
    AtTheBegin,
    Anywhere,
}

/// Of the table of `key`.
pub fn growth(key: &[u8]) -> Growth {
    match key.first() {
        Some(b'i' | b'e' | b'g' | b'z') => Growth::AtTheEnd,
        Some(b'l' | b'r') => Growth::AtTheBegin,
        _ => Growth::Anywhere,
    }
}

pub const USERS: &[u8] = b"u";

pub fn user(id: &UserId) -> Vec<u8> {
    key(b'u', &[id.as_str().as_bytes()])
}

pub const TOKENS: &[u8] = b"t";

pub fn token(id: TokenId) -> Vec<u8> {
    key(b't', &[&id.0])
}

pub fn token_use(id: TokenId) -> Vec<u8> {
    key(b'w', &[&id.0])
}

/// Services choose long names: half a hash stands for one.
pub fn valid_from(holder: Holder<'_>) -> Vec<u8> {
    match holder {
        Holder::Services => key(b'v', &[b"a"]),
        Holder::Service(name) => {
            key(b'v', &[b"s", &blake3::hash(name.as_bytes()).as_bytes()[..16]])
        }
        Holder::User(id) => key(b'v', &[b"u", id.as_str().as_bytes()]),
    }
}

pub const FILES: &[u8] = b"r";
pub const FOLDERS: &[u8] = b"d";

/// Half of half a hash stands for a user: the files of two that share it lie among each other,
/// which is all that comes of it.
fn owner(id: &UserId) -> [u8; 8] {
    let mut owner = [0; 8];
    owner.copy_from_slice(&blake3::hash(id.as_str().as_bytes()).as_bytes()[..8]);
    owner
}

fn inverted(id: [u8; 16]) -> [u8; 16] {
    id.map(|byte| !byte)
}

/// Where the record of a file stands: among those of its owner, the newest first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    owner: [u8; 8],
    id: FileId,
}

impl Place {
    pub fn new(user: &UserId, id: FileId) -> Self {
        Self { owner: owner(user), id }
    }

    /// With what [`file_owner`] says of `id`.
    pub fn found(owner: &[u8], id: FileId) -> Option<Self> {
        Some(Self { owner: owner.try_into().ok()?, id })
    }

    /// Of [`Place::bytes`].
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (owner, id) = bytes.split_first_chunk::<8>()?;
        Some(Self { owner: *owner, id: FileId(inverted(id.try_into().ok()?)) })
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.owner[..], &inverted(self.id.0)].concat()
    }

    pub fn id(&self) -> FileId {
        self.id
    }

    pub fn owner(&self) -> &[u8] {
        &self.owner
    }
}

/// Every file of a user.
pub fn files_of(user: &UserId) -> Vec<u8> {
    key(b'r', &[&owner(user)])
}

pub fn file(place: Place) -> Vec<u8> {
    key(b'r', &[&place.bytes()])
}

/// The place of the file of a key that [`file()`] made.
pub fn placed(file: &[u8]) -> Option<Place> {
    Place::parse(file.get(1..)?)
}

/// What it takes beside the id of each file to find it.
pub const FILE_OWNERS: &[u8] = b"i";

pub fn file_owner(id: FileId) -> Vec<u8> {
    key(b'i', &[&id.0])
}

/// The file of a [`file_owner`].
pub fn owned_by(entry: &[u8]) -> Option<FileId> {
    Some(FileId(entry.get(1..)?.try_into().ok()?))
}

/// Up to format 5 the records of files stood under their ids alone.
pub const FILES_OF_FORMAT_5: &[u8] = b"f";

pub fn file_key(file_key: &FileKey) -> Vec<u8> {
    key(b'k', &[&blake3::hash(file_key.as_str().as_bytes()).as_bytes()[..16]])
}

pub fn folder(owner: &UserId, folder: &Folder) -> Vec<u8> {
    let mut path = blake3::Hasher::new();
    path.update(owner.as_str().as_bytes()).update(&[0]).update(folder.as_str().as_bytes());
    key(b'd', &[&path.finalize().as_bytes()[..16]])
}

/// Every entry of a folder's list.
pub fn list(node: u64) -> Vec<u8> {
    key(b'l', &[&node.to_be_bytes()])
}

pub fn list_entry(node: u64, id: FileId) -> Vec<u8> {
    key(b'l', &[&node.to_be_bytes(), &inverted(id.0)])
}

/// The file of a [`list_entry`].
pub fn listed(entry: &[u8]) -> Option<FileId> {
    Some(FileId(inverted(entry.get(9..)?.try_into().ok()?)))
}

pub const OWNED: &[u8] = b"h";

/// Every file of a user whose content has this digest.
pub fn owned(owner: &UserId, sha256: &Sha256) -> Vec<u8> {
    let mut content = blake3::Hasher::new();
    content.update(owner.as_str().as_bytes()).update(&[0]).update(&sha256.0);
    key(b'h', &[&content.finalize().as_bytes()[..16]])
}

pub fn owned_entry(file: &FileRecord) -> Vec<u8> {
    let mut key = owned(&file.owner, &file.sha256);
    key.extend_from_slice(&file.id.0);
    key
}

/// The file of an [`owned_entry`].
pub fn owned_file(entry: &[u8]) -> Option<FileId> {
    Some(FileId(entry.get(17..)?.try_into().ok()?))
}

pub fn blob(hash: &ContentHash) -> Vec<u8> {
    key(b'b', &[&hash.0])
}

/// Every blob.
pub const BLOBS: &[u8] = b"b";

/// The content of a [`blob`] entry.
pub fn content(entry: &[u8]) -> Option<ContentHash> {
    Some(ContentHash(entry.get(1..)?.try_into().ok()?))
}

pub const UNREFERENCED: &[u8] = b"g";

pub fn unreferenced(since: UnixMillis, hash: &ContentHash) -> Vec<u8> {
    key(b'g', &[&since.0.to_be_bytes(), &hash.0])
}

/// Time and blob of an [`unreferenced`] entry.
pub fn unreferenced_blob(entry: &[u8]) -> Option<(UnixMillis, ContentHash)> {
    let (since, hash) = entry.get(1..)?.split_first_chunk::<8>()?;
    Some((UnixMillis(u64::from_be_bytes(*since)), ContentHash(hash.try_into().ok()?)))
}

pub const UPLOADS: &[u8] = b"s";

pub fn upload(id: UploadId) -> Vec<u8> {
    key(b's', &[&id.0])
}

/// Every part of an upload.
pub fn parts(id: UploadId) -> Vec<u8> {
    key(b'p', &[&id.0])
}

pub fn part(id: UploadId, number: PartNumber) -> Vec<u8> {
    key(b'p', &[&id.0, &number.0.to_be_bytes()])
}

/// Every part of every upload.
pub const PARTS: &[u8] = b"p";

/// The upload of a [`part`].
pub fn part_upload(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(entry.get(1..17)?.try_into().ok()?))
}

/// The number of a [`part`].
pub fn part_number(entry: &[u8]) -> Option<PartNumber> {
    let number = entry.get(17..)?.try_into().ok()?;
    Some(PartNumber(u32::from_be_bytes(number)))
}

/// Every open session of a user.
pub fn open_of(owner: &UserId) -> Vec<u8> {
    key(b'o', &[owner.as_str().as_bytes(), &[0]])
}

pub fn open(owner: &UserId, id: UploadId) -> Vec<u8> {
    key(b'o', &[owner.as_str().as_bytes(), &[0], &id.0])
}

/// The session of an [`open`] entry.
pub fn open_upload(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(*entry.last_chunk()?))
}

pub fn batch(id: UploadId) -> Vec<u8> {
    key(b'B', &[&id.0])
}

/// What a final session is made of.
pub fn concatenation(id: UploadId) -> Vec<u8> {
    key(b'C', &[&id.0])
}

/// The final session of a partial one.
pub fn final_of(id: UploadId) -> Vec<u8> {
    key(b'P', &[&id.0])
}

pub const EXPIRIES: &[u8] = b"e";

pub fn expiry(at: UnixMillis, id: UploadId) -> Vec<u8> {
    key(b'e', &[&at.0.to_be_bytes(), &id.0])
}

/// Time and session of an [`expiry`] entry.
pub fn expiring(entry: &[u8]) -> Option<(UnixMillis, UploadId)> {
    let (at, id) = entry.get(1..)?.split_first_chunk::<8>()?;
    Some((UnixMillis(u64::from_be_bytes(*at)), UploadId(id.try_into().ok()?)))
}

pub const SELECTIONS: &[u8] = b"z";

/// Every record of a selection.
pub fn selection(SelectionId { expires, digest }: SelectionId) -> Vec<u8> {
    key(b'z', &[&expires.0.to_be_bytes(), &digest])
}

pub fn selection_record(id: SelectionId, number: u32) -> Vec<u8> {
    let mut key = selection(id);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// When the selection of a [`selection_record`] expires.
pub fn selection_expires(entry: &[u8]) -> Option<UnixMillis> {
    Some(UnixMillis(u64::from_be_bytes(*entry.get(1..)?.first_chunk()?)))
}

/// Every mark of a damaged blob.
pub const DAMAGED: &[u8] = b"m";

pub fn damaged(hash: &ContentHash) -> Vec<u8> {
    key(b'm', &[&hash.0])
}

pub const DAMAGED_COUNT: &[u8] = b"M";

pub const SCRUB_RUNNING: &[u8] = b"cr";

pub const SCRUB_LAST: &[u8] = b"cl";

pub const BEGUN: &[u8] = b"a";

pub const NEXT_NODE: &[u8] = b"n";

/// What the engine notes for itself: keys of sled that are no runs, and never in the journal.
pub const PROBE: &[u8] = b"!";
/// The journal and the last commit of it that sled has.
pub const APPLIED: &[u8] = b"!applied";
/// There while sled is made anew.
pub const HALF_MADE: &[u8] = b"!half-made";
/// There when records lie in runs. Up to format 4 each was a key of sled.
pub const LIES_IN_RUNS: &[u8] = b"!runs";
