//! The app on the disk's blob store, with a clock that tests move. The age of files is told by the
//! clock of the disk, so the tests' clock starts at the time of the machine.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use streamlined::{
    app::{
        App, Error, Policy,
        complete::{Completed, Completion},
        publish::NewContent,
        upload::{DeclaredFile, Init},
    },
    auth::{jwt::Expected, keyring::KeyRing, link::LinkKey},
    blob::{BlobStore, disk::DiskBlobs},
    meta::Metadata,
    model::{
        file::{CallerMeta, FileRecord},
        id::{PartNumber, UploadId},
        name::{FileName, Folder, UserId},
        principal::{Principal, Role, TokenStamp},
        range::Slice,
        upload::Mode,
    },
    sys::clock::{Clock, ManualClock, SystemClock},
};

pub const TTL: Duration = Duration::from_hours(24);
pub const GRACE: Duration = Duration::from_hours(1);
pub const SCRUB_EVERY: Duration = Duration::from_hours(30 * 24);

pub fn policy() -> Policy {
    Policy {
        file_bytes_max: 1 << 30,
        part_bytes_max: 1 << 30,
        quota_bytes: 1 << 40,
        upload_ttl: TTL,
        reclaim_grace: GRACE,
        scrub_every: SCRUB_EVERY,
        scrub_bytes_per_second: u64::MAX,
        public_read: false,
        tokens: Expected { issuer: "us".into(), audience: "us".into() },
    }
}

/// A store whose packs hold about three blobs of 20,000 bytes.
pub fn store(dir: &Path) -> DiskBlobs {
    DiskBlobs::open_with(dir, 64 << 10, 62_000).unwrap()
}

pub struct World {
    pub app: Arc<App>,
    pub clock: Arc<ManualClock>,
    dir: PathBuf,
}

impl World {
    pub async fn new(dir: &Path, meta: Arc<dyn Metadata>, blobs: Arc<dyn BlobStore>) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        // The index is begun before anything is stored, as at a first start; a minute earlier,
        // because the clock of the disk is a little behind.
        meta.begun(clock.now().before(Duration::from_mins(1))).await.unwrap();
        let app = app(dir, meta, blobs, Arc::clone(&clock) as Arc<dyn Clock>, policy());
        Self { app, clock, dir: dir.to_owned() }
    }

    pub fn pass(&self, span: Duration) {
        self.clock.set(self.clock.now().after(span));
    }

    pub async fn put(&self, content: &Bytes) -> FileRecord {
        put(&self.app, "f", content).await.unwrap()
    }

    pub async fn read(&self, file: &FileRecord) -> Result<Vec<u8>, Error> {
        read(&self.app, file).await
    }

    pub async fn delete(&self, file: &FileRecord) {
        self.app.delete_file(&user(), file.key.clone()).await.unwrap();
    }

    /// Files below a directory of the store.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        files(&self.dir.join(below))
    }

    /// Files of large blobs.
    pub fn blob_files(&self) -> Vec<PathBuf> {
        let is_pack = |path: &PathBuf| path.extension().is_some_and(|name| name == "pack");
        self.files("blobs").into_iter().filter(|path| !is_pack(path)).collect()
    }

    pub fn packs(&self) -> usize {
        self.files("blobs/packs").len()
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

pub fn app(
    dir: &Path,
    meta: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    policy: Policy,
) -> Arc<App> {
    let keys = dir.join("keys");
    let ring = Arc::new(KeyRing::open(&keys).unwrap());
    App::new(meta, blobs, ring, LinkKey::open(&keys).unwrap(), clock, policy)
}

pub fn owner() -> UserId {
    UserId::parse("u").unwrap()
}

pub fn user() -> Principal {
    Principal::User { id: owner(), role: Role::Researcher, token: TokenStamp::default() }
}

/// Pseudo-random bytes, different for every seed.
pub fn content(seed: u64, size: usize) -> Bytes {
    let mut content = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content.into()
}

/// Changes a bit of a file in place.
pub fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (mut byte, at) = ([0], at as u64);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

pub async fn put(app: &Arc<App>, name: &str, content: &Bytes) -> Result<FileRecord, Error> {
    let mut incoming = app.begin_file().await?;
    incoming.write(content.clone()).await?;
    let (owner, folder, name) = (owner(), Folder::default(), FileName::parse(name).unwrap());
    let new = NewContent { owner, name, folder, mime: None, sha256: None, content: incoming };
    app.put_content(&user(), new).await
}

pub async fn init(app: &Arc<App>, size: u64) -> UploadId {
    init_as(app, Mode::Chunked, size).await
}

pub async fn init_as(app: &Arc<App>, mode: Mode, size: u64) -> UploadId {
    app.init_upload(&user(), init_of(mode, size)).await.unwrap().id
}

/// The init of one file, as a client sends it.
pub fn init_of(mode: Mode, size: u64) -> Init {
    let name = FileName::parse("f").unwrap();
    Init {
        mode,
        files: vec![DeclaredFile { name, size, mime: None, sha256: None, blake3: None }],
        folder: Folder::default(),
        meta: CallerMeta::default(),
        user: None,
    }
}

pub async fn part(
    app: &Arc<App>,
    id: UploadId,
    number: u32,
    content: &Bytes,
) -> Result<u64, Error> {
    let mut incoming = app.begin_part().await?;
    incoming.write(content.clone()).await?;
    app.finish_part(&user(), id, PartNumber(number), incoming, None).await
}

pub async fn complete(app: &Arc<App>, id: UploadId) -> Result<FileRecord, Error> {
    let Completed::One(file) = app.complete_upload(&user(), Completion::of(id)).await? else {
        panic!("not a batch")
    };
    Ok(*file)
}

pub async fn read(app: &Arc<App>, file: &FileRecord) -> Result<Vec<u8>, Error> {
    let mut reader = app.open_content(file, Slice::whole(file.size)).await?;
    let mut content = Vec::new();
    while let Some(bytes) = reader.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}
