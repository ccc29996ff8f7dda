//! Files as the benches record them: photos of users.

use streamlined::{
    meta::{Asker, NewFile},
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::FileId,
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        time::UnixMillis,
    },
};

pub fn folder() -> Folder {
    Folder::parse("main/pictures").unwrap()
}

fn name() -> FileName {
    FileName::parse("photo.jpg").unwrap()
}

pub fn key(owner: &UserId, n: u64) -> FileKey {
    FileKey::compose(owner, &folder(), u32::try_from(n).unwrap(), &name())
}

/// A photo of 4096 bytes, with digests of its own.
pub fn new_file(owner: UserId, n: u64) -> NewFile {
    let hash = *blake3::hash(&n.to_le_bytes()).as_bytes();
    let created = UnixMillis(1_700_000_000_000 + n / 4096);
    let file = FileRecord {
        id: FileId::new(created, u16::try_from(n & 0xfff).unwrap(), n),
        key: key(&owner, n),
        owner,
        folder: folder(),
        name: name(),
        mime: "image/jpeg".into(),
        size: 4096,
        blake3: ContentHash(hash),
        sha256: Sha256(hash),
        meta: CallerMeta::default(),
    };
    let locator = Locator([1, 2, 3, 4, 5, 6].into());
    NewFile { file, locator, is_known: false, by: Asker::Service, upload: None }
}
