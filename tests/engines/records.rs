//! Records for tests. They are drawn from few ids, so that steps meet each other.

use streamlined::{
    meta::{Asker, NewFile},
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::{FileId, PartNumber, UploadId},
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        time::UnixMillis,
        upload::{Mode, Part, Upload, UploadState},
    },
};

pub fn user(n: u8) -> UserId {
    UserId::parse(&format!("user{n}")).unwrap()
}

pub fn folder(n: u8) -> Folder {
    Folder::parse(["", "a", "a/b", "a/b/c", "ab"][usize::from(n) % 5]).unwrap()
}

pub fn upload_id(n: u8) -> UploadId {
    UploadId([n; 16])
}

pub fn locator(n: u64) -> Locator {
    Locator(n.to_be_bytes().into())
}

pub fn upload(n: u8, owner: u8, size: u64, expires: u64) -> Upload {
    Upload {
        id: upload_id(n),
        owner: user(owner),
        name: FileName::parse("f").unwrap(),
        folder: folder(n),
        mime: None,
        size,
        mode: Mode::Chunked,
        sha256: None,
        meta: CallerMeta::default(),
        expires: UnixMillis(expires),
        received: 0,
        revision: 0,
        state: UploadState::Open,
    }
}

pub fn part(number: u8, size: u64, place: u64) -> Part {
    Part {
        number: PartNumber(number.into()),
        size,
        blake3: ContentHash([number; 32]),
        sha256: Sha256([number; 32]),
        place: locator(place),
    }
}

pub fn key(owner: u8, in_folder: u8, salt: u32) -> FileKey {
    let name = FileName::parse("f").unwrap();
    FileKey::compose(&user(owner), &folder(in_folder), salt, &name)
}

/// A file made at millisecond `at`, whose digests are derived from `content`.
pub fn file(owner: u8, in_folder: u8, salt: u32, at: u64, content: u8, size: u64) -> FileRecord {
    FileRecord {
        id: FileId::new(UnixMillis(at), 0, u64::from(salt)),
        owner: user(owner),
        folder: folder(in_folder),
        name: FileName::parse("f").unwrap(),
        key: key(owner, in_folder, salt),
        mime: "text/plain".into(),
        size,
        blake3: ContentHash([content; 32]),
        sha256: Sha256([content; 32]),
        meta: CallerMeta::default(),
    }
}

pub fn new_file(file: FileRecord, place: u64, upload: Option<(UploadId, u64)>) -> NewFile {
    NewFile { file, locator: locator(place), is_known: false, by: Asker::Service, upload }
}
