//! The key space: one leading byte per table. [`super::runs`] says how the records lie in sled.
//! What stands at a table is the rest of its keys, and behind the colon the value.
//!
//! `docs/DESIGN.md` says why the files of a user stand together, and stand in lists. User ids hold
//! no control characters, so the zero byte ends them. Keys and folders, which may be long, are
//! hashed: no key here is longer than 300 bytes.

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

/// User id: [`super::codec::StoredUser`].
pub const USERS: &[u8] = b"u";
/// Token id: [`ServiceToken`](crate::meta::accounts::ServiceToken), as [`super::accounts`] has it.
pub const TOKENS: &[u8] = b"t";
/// Token id: [`TokenUse`](crate::meta::accounts::TokenUse), when and whence it was used last.
const USES: &[u8] = b"w";
/// 'a', 's' half a name's hash, or 'u' user id: first second of good tokens.
const VALID_FROM: &[u8] = b"v";
/// A [`Place`]: [`super::codec::StoredFile`].
pub const FILES: &[u8] = b"r";
/// Up to format 5 the records of files stood under their ids alone.
pub const FILES_OF_FORMAT_5: &[u8] = b"f";
/// File id: first 8 bytes of BLAKE3(user), what it takes beside the id to find a file.
pub const FILE_OWNERS: &[u8] = b"i";
/// First 16 bytes of BLAKE3(key): [`Place`].
const KEYS: &[u8] = b"k";
/// First 16 bytes of BLAKE3(user 0 path): [`super::codec::FolderNode`].
pub const FOLDERS: &[u8] = b"d";
/// Node, inverted file id: nothing; newest first by key order.
const LISTS: &[u8] = b"l";
/// The next unused folder node.
pub const NEXT_NODE: &[u8] = b"n";
/// First 16 bytes of BLAKE3(user 0 SHA-256), file id: nothing; who has which content.
pub const OWNED: &[u8] = b"h";
/// Content hash: [`super::codec::StoredBlob`].
pub const BLOBS: &[u8] = b"b";
/// Since, content hash: nothing.
pub const UNREFERENCED: &[u8] = b"g";
/// Content hash: since when the bytes that the blob's record names are known not to be good.
pub const DAMAGED: &[u8] = b"m";
/// Blobs in the table above.
pub const DAMAGED_COUNT: &[u8] = b"M";
/// Upload id: [`super::codec::StoredUpload`].
pub const UPLOADS: &[u8] = b"s";
/// Upload id, number: [`super::codec::StoredPart`].
pub const PARTS: &[u8] = b"p";
/// User 0 upload id: nothing.
const OPEN: &[u8] = b"o";
/// Batch id: [`super::codec::StoredBatch`].
const BATCHES: &[u8] = b"B";
/// Upload id: the ids that it is made of.
const CONCATENATIONS: &[u8] = b"C";
/// Upload id: the id of what it becomes a part of.
const FINAL_OF: &[u8] = b"P";
/// Time, upload or batch id: nothing; a hint, the record's own time counts.
pub const EXPIRIES: &[u8] = b"e";
/// Expires, digest, number: files of a batch token, as [`super::selection`] has them.
pub const SELECTIONS: &[u8] = b"z";
/// [`ScrubPass`](crate::meta::upkeep::ScrubPass): the running pass.
pub const SCRUB_RUNNING: &[u8] = b"cr";
/// The last one.
pub const SCRUB_LAST: &[u8] = b"cl";
/// When this index was begun.
pub const BEGUN: &[u8] = b"a";

/// No table is before it.
pub const FIRST_TABLE: &[u8] = b"A";

/// What the engine notes for itself: keys of sled that are no runs, and never in the journal.
pub const PROBE: &[u8] = b"!";
/// The journal and the last commit of it that sled has.
pub const APPLIED: &[u8] = b"!applied";
/// There while sled is made anew.
pub const HALF_MADE: &[u8] = b"!half-made";
/// There when records lie in runs. Up to format 4 each was a key of sled.
pub const LIES_IN_RUNS: &[u8] = b"!runs";

/// The time that the keys of a table begin with which is in order of it.
pub fn time(entry: &[u8]) -> Option<UnixMillis> {
    Some(UnixMillis(u64::from_be_bytes(*entry.get(1..)?.first_chunk()?)))
}

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
    match key.get(..1).unwrap_or_default() {
        FILE_OWNERS | EXPIRIES | UNREFERENCED | SELECTIONS => Growth::AtTheEnd,
        LISTS | FILES => Growth::AtTheBegin,
        _ => Growth::Anywhere,
    }
}

pub fn user(id: &UserId) -> Vec<u8> {
    [USERS, id.as_str().as_bytes()].concat()
}

/// The user of a [`user`] entry.
pub fn user_id(entry: &[u8]) -> Option<UserId> {
    UserId::parse(std::str::from_utf8(entry.get(1..)?).ok()?).ok()
}

pub fn token(id: TokenId) -> Vec<u8> {
    [TOKENS, &id.0].concat()
}

pub fn token_use(id: TokenId) -> Vec<u8> {
    [USES, &id.0].concat()
}

/// Services choose long names: half a hash stands for one.
pub fn valid_from(holder: Holder<'_>) -> Vec<u8> {
    match holder {
        Holder::Services => [VALID_FROM, b"a"].concat(),
        Holder::Service(name) => {
            [VALID_FROM, b"s", &blake3::hash(name.as_bytes()).as_bytes()[..16]].concat()
        }
        Holder::User(id) => [VALID_FROM, b"u", id.as_str().as_bytes()].concat(),
    }
}

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

/// Where the record of a file stands: among those of its owner, the newest first. 8 bytes of
/// BLAKE3(user), inverted file id.
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
    [FILES, &owner(user)].concat()
}

pub fn file(place: Place) -> Vec<u8> {
    [FILES, &place.bytes()].concat()
}

/// The place of the file of a key that [`file()`] made.
pub fn placed(file: &[u8]) -> Option<Place> {
    Place::parse(file.get(1..)?)
}

pub fn file_owner(id: FileId) -> Vec<u8> {
    [FILE_OWNERS, &id.0].concat()
}

/// The file of a [`file_owner`].
pub fn owned_by(entry: &[u8]) -> Option<FileId> {
    Some(FileId(entry.get(1..)?.try_into().ok()?))
}

pub fn file_key(file_key: &FileKey) -> Vec<u8> {
    [KEYS, &blake3::hash(file_key.as_str().as_bytes()).as_bytes()[..16]].concat()
}

pub fn folder(owner: &UserId, folder: &Folder) -> Vec<u8> {
    let mut path = blake3::Hasher::new();
    path.update(owner.as_str().as_bytes()).update(&[0]).update(folder.as_str().as_bytes());
    [FOLDERS, &path.finalize().as_bytes()[..16]].concat()
}

/// Every entry of a folder's list.
pub fn list(node: u64) -> Vec<u8> {
    [LISTS, &node.to_be_bytes()].concat()
}

pub fn list_entry(node: u64, id: FileId) -> Vec<u8> {
    [LISTS, &node.to_be_bytes(), &inverted(id.0)].concat()
}

/// The file of a [`list_entry`].
pub fn listed(entry: &[u8]) -> Option<FileId> {
    Some(FileId(inverted(entry.get(9..)?.try_into().ok()?)))
}

/// Every file of a user whose content has this digest.
pub fn owned(owner: &UserId, sha256: &Sha256) -> Vec<u8> {
    let mut content = blake3::Hasher::new();
    content.update(owner.as_str().as_bytes()).update(&[0]).update(&sha256.0);
    [OWNED, &content.finalize().as_bytes()[..16]].concat()
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
    [BLOBS, &hash.0].concat()
}

/// The content of a [`blob`] entry.
pub fn content(entry: &[u8]) -> Option<ContentHash> {
    Some(ContentHash(entry.get(1..)?.try_into().ok()?))
}

pub fn unreferenced(since: UnixMillis, hash: &ContentHash) -> Vec<u8> {
    [UNREFERENCED, &since.0.to_be_bytes(), &hash.0].concat()
}

/// The blob of an [`unreferenced`] entry.
pub fn unreferenced_blob(entry: &[u8]) -> Option<ContentHash> {
    Some(ContentHash(entry.get(9..)?.try_into().ok()?))
}

pub fn upload(id: UploadId) -> Vec<u8> {
    [UPLOADS, &id.0].concat()
}

/// The session of an [`upload`] entry.
pub fn upload_id(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(entry.get(1..)?.try_into().ok()?))
}

/// Every part of an upload.
pub fn parts(id: UploadId) -> Vec<u8> {
    [PARTS, &id.0].concat()
}

pub fn part(id: UploadId, number: PartNumber) -> Vec<u8> {
    [PARTS, &id.0, &number.0.to_be_bytes()].concat()
}

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
    [OPEN, owner.as_str().as_bytes(), &[0]].concat()
}

pub fn open(owner: &UserId, id: UploadId) -> Vec<u8> {
    [OPEN, owner.as_str().as_bytes(), &[0], &id.0].concat()
}

/// The session of an [`open`] entry.
pub fn open_upload(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(*entry.last_chunk()?))
}

pub fn batch(id: UploadId) -> Vec<u8> {
    [BATCHES, &id.0].concat()
}

/// What a final session is made of.
pub fn concatenation(id: UploadId) -> Vec<u8> {
    [CONCATENATIONS, &id.0].concat()
}

/// The final session of a partial one.
pub fn final_of(id: UploadId) -> Vec<u8> {
    [FINAL_OF, &id.0].concat()
}

pub fn expiry(at: UnixMillis, id: UploadId) -> Vec<u8> {
    [EXPIRIES, &at.0.to_be_bytes(), &id.0].concat()
}

/// The session of an [`expiry`] entry.
pub fn expiring(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(entry.get(9..)?.try_into().ok()?))
}

/// Every record of a selection.
pub fn selection(SelectionId { expires, digest }: SelectionId) -> Vec<u8> {
    [SELECTIONS, &expires.0.to_be_bytes(), &digest].concat()
}

pub fn selection_record(id: SelectionId, number: u32) -> Vec<u8> {
    let mut key = selection(id);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub fn damaged(hash: &ContentHash) -> Vec<u8> {
    [DAMAGED, &hash.0].concat()
}
