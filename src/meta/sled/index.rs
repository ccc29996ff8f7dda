//! The key space: one leading byte per table. [`super::runs`] says how the records lie in sled. The
//! comment at a table names the rest of its keys and, after the colon, its values.
//!
//! `docs/DESIGN.md` says why the files of a user are stored together, and are in lists. User ids
//! hold no control characters, so a zero byte ends them. File keys and folders, which may be long,
//! are hashed: no key here is longer than 300 bytes.

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
/// Token id: [`ServiceToken`](crate::meta::accounts::ServiceToken), as [`super::accounts`] encodes
/// it.
pub const TOKENS: &[u8] = b"t";
/// Token id: [`TokenUse`](crate::meta::accounts::TokenUse), when and from where it was last used.
const USES: &[u8] = b"w";
/// 'a' for all services, 's' and half a name's hash for a service, or 'u' and user id: the first
/// second whose tokens are valid.
const VALID_FROM: &[u8] = b"v";
/// A [`Place`]: [`super::codec::StoredFile`].
pub const FILES: &[u8] = b"r";
/// File id: [`super::codec::StoredFile`]. Up to format 5 files were recorded here.
pub const FILES_OF_FORMAT_5: &[u8] = b"f";
/// File id: first 8 bytes of BLAKE3(user), needed beside the id to find a file.
pub const FILE_OWNERS: &[u8] = b"i";
/// First 16 bytes of BLAKE3(key): [`Place`].
const KEYS: &[u8] = b"k";
/// First 16 bytes of BLAKE3(user 0 path): [`super::codec::FolderNode`].
pub const FOLDERS: &[u8] = b"d";
/// Node, inverted file id: nothing; newest first by key order.
const LISTS: &[u8] = b"l";
/// The next unused folder node.
pub const NEXT_NODE: &[u8] = b"n";
/// First 16 bytes of BLAKE3(user 0 SHA-256), file id: nothing. Says which user has which content.
pub const OWNED: &[u8] = b"h";
/// Content hash: [`super::codec::StoredBlob`].
pub const BLOBS: &[u8] = b"b";
/// Time since which the blob is unreferenced, content hash: nothing.
pub const UNREFERENCED: &[u8] = b"g";
/// Content hash: since when the bytes that the blob's record names are known to be damaged.
pub const DAMAGED: &[u8] = b"m";
/// The number of blobs in [`DAMAGED`].
pub const DAMAGED_COUNT: &[u8] = b"M";
/// Upload id: [`super::codec::StoredUpload`].
pub const UPLOADS: &[u8] = b"s";
/// Upload id, number: [`super::codec::StoredPart`].
pub const PARTS: &[u8] = b"p";
/// User 0 upload id, for each open session: nothing.
const OPEN: &[u8] = b"o";
/// Batch id: [`super::codec::StoredBatch`].
const BATCHES: &[u8] = b"B";
/// Upload id of a final session: the ids of its partial sessions.
const CONCATENATIONS: &[u8] = b"C";
/// Upload id of a partial session: the id of its final session.
const FINAL_OF: &[u8] = b"P";
/// Time, upload or batch id: nothing. The time is only a hint: the one in the record itself counts.
pub const EXPIRIES: &[u8] = b"e";
/// Expiry, digest, number: files of a batch token, as [`super::selection`] splits them.
pub const SELECTIONS: &[u8] = b"z";
/// [`ScrubPass`](crate::meta::upkeep::ScrubPass): the running pass.
pub const SCRUB_RUNNING: &[u8] = b"cr";
/// [`ScrubPass`](crate::meta::upkeep::ScrubPass): the last completed pass.
pub const SCRUB_LAST: &[u8] = b"cl";
/// When this index was begun.
pub const BEGUN: &[u8] = b"a";

/// No table comes before this.
pub const FIRST_TABLE: &[u8] = b"A";

/// Written and removed at an open. This and the keys below are the engine's own notes: keys of sled
/// that hold no runs and are never in the journal.
pub const PROBE: &[u8] = b"!";
/// The journal's id, and the last of its commits that sled has.
pub const APPLIED: &[u8] = b"!applied";
/// Present while sled is being rebuilt.
pub const HALF_MADE: &[u8] = b"!half-made";
/// Present when records lie in runs. Up to format 4 each record was a key of sled.
pub const LIES_IN_RUNS: &[u8] = b"!runs";

/// The time with which a key begins, in a table that is ordered by time.
pub fn time(entry: &[u8]) -> Option<UnixMillis> {
    Some(UnixMillis(u64::from_be_bytes(*entry.get(1..)?.first_chunk()?)))
}

/// The bound of a table: greater than every key of the table of `key`, and not greater than any key
/// of the next.
pub fn end_of_table(key: &[u8]) -> Vec<u8> {
    vec![key.first().map_or(0, |table| table + 1)]
}

/// Where in a table most new records are added.
#[derive(Clone, Copy)]
pub enum Growth {
    /// At the end, or at that of the records with the same prefix.
    AtTheEnd,
    /// At the beginning of the records with the same prefix.
    AtTheBegin,
    Anywhere,
}

/// How the table of `key` grows.
pub fn growth(key: &[u8]) -> Growth {
    match key.get(..1).unwrap_or_default() {
        FILE_OWNERS | EXPIRIES | UNREFERENCED | SELECTIONS | PARTS => Growth::AtTheEnd,
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

/// Service names may be long: half a hash stands for a name.
pub fn valid_from(holder: Holder<'_>) -> Vec<u8> {
    match holder {
        Holder::Services => [VALID_FROM, b"a"].concat(),
        Holder::Service(name) => {
            [VALID_FROM, b"s", &blake3::hash(name.as_bytes()).as_bytes()[..16]].concat()
        }
        Holder::User(id) => [VALID_FROM, b"u", id.as_str().as_bytes()].concat(),
    }
}

/// A quarter of a hash stands for a user. If two users share it, their files lie among each other;
/// this has no other effect.
fn owner(id: &UserId) -> [u8; 8] {
    let mut owner = [0; 8];
    owner.copy_from_slice(&blake3::hash(id.as_str().as_bytes()).as_bytes()[..8]);
    owner
}

fn inverted(id: [u8; 16]) -> [u8; 16] {
    id.map(|byte| !byte)
}

/// Where the record of a file lies: among those of its owner, the newest first. 8 bytes of
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

    /// The place of file `id`, with the value of its [`file_owner`] entry.
    pub fn found(owner: &[u8], id: FileId) -> Option<Self> {
        Some(Self { owner: owner.try_into().ok()?, id })
    }

    /// Parses [`Place::bytes`].
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

/// Prefix of every file of a user.
pub fn files_of(user: &UserId) -> Vec<u8> {
    [FILES, &owner(user)].concat()
}

pub fn file(place: Place) -> Vec<u8> {
    [FILES, &place.bytes()].concat()
}

/// The place in a key that [`file()`] made.
pub fn placed(file: &[u8]) -> Option<Place> {
    Place::parse(file.get(1..)?)
}

pub fn file_owner(id: FileId) -> Vec<u8> {
    [FILE_OWNERS, &id.0].concat()
}

/// The file of a [`file_owner`] entry.
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

/// Prefix of every entry of a folder's list.
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

/// Prefix of every file of a user whose content has this digest.
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

/// Prefix of every part of an upload.
pub fn parts(id: UploadId) -> Vec<u8> {
    [PARTS, &id.0].concat()
}

pub fn part(id: UploadId, number: PartNumber) -> Vec<u8> {
    [PARTS, &id.0, &number.0.to_be_bytes()].concat()
}

/// The upload of a [`part`] entry.
pub fn part_upload(entry: &[u8]) -> Option<UploadId> {
    Some(UploadId(entry.get(1..17)?.try_into().ok()?))
}

/// The number of a [`part`] entry.
pub fn part_number(entry: &[u8]) -> Option<PartNumber> {
    let number = entry.get(17..)?.try_into().ok()?;
    Some(PartNumber(u32::from_be_bytes(number)))
}

/// Prefix of every open session of a user.
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

/// The partial sessions of a final session.
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

/// Prefix of every record of a selection.
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
