//! An archive past every limit of ZIP without ZIP64: more than 65,535 files, one of them larger
//! than 4 GiB, and all others at offsets past 4 GiB. Info-ZIP and Python read it.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use streamlined::{
    app::{App, Policy, archive::Chosen, catalog::Listing},
    auth::{jwt::Expected, keyring::KeyRing, link::LinkKey},
    blob::{
        Address, Begun, BlobStore, Error, Join, Reader, Result, Space, Stage, Vacate,
        upkeep::{Copied, Found, Pace, Seen, Shelf, Survey},
    },
    meta::{Asker, Metadata, NewFile, sled::SledMetadata},
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, FileRecord},
        id::{FileId, PartNumber, UploadId},
        key::FileKey,
        locator::Locator,
        name::{FileName, Folder, UserId},
        principal::{Principal, Role, TokenStamp},
        range::Slice,
        time::UnixMillis,
    },
    sys::clock::SystemClock,
};

const LARGE: u64 = (4 << 30) + 5;
const SMALL: u64 = 3;
const SMALL_FILES: u64 = 65_600;

/// A store in which every content consists of as many zeros as the request asks for.
struct Zeros;

#[async_trait]
impl BlobStore for Zeros {
    async fn open(&self, _: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
        Ok(Box::new(ZeroReader(slice.len())))
    }

    async fn crc32(&self, blob: &Address) -> Result<u32> {
        let chunk = vec![0; 1 << 20];
        let mut hasher = crc32fast::Hasher::new();
        let mut left = blob.size;
        while left > 0 {
            let now = left.min(1 << 20);
            hasher.update(&chunk[..usize::try_from(now).unwrap()]);
            left -= now;
        }
        Ok(hasher.finalize())
    }

    async fn stage(&self) -> Result<Box<dyn Stage>> {
        Err(Error::NoSpace)
    }

    async fn stage_part(&self, _: UploadId, _: PartNumber) -> Result<Begun> {
        Err(Error::NoSpace)
    }

    async fn join(&self, _: UploadId) -> Result<Box<dyn Join>> {
        Err(Error::NoSpace)
    }

    async fn prove(&self, _: &Address, _: Slice) -> Result<Box<dyn Reader>> {
        Err(Error::NotFound)
    }

    fn holds_blob(&self, _: &Locator) -> bool {
        unreachable!()
    }

    async fn discard(&self, _: &Locator) -> Result<u64> {
        Ok(0)
    }

    async fn vacate(&self, _: &Locator) -> Result<Option<Box<dyn Vacate>>> {
        unreachable!()
    }

    async fn end(&self, _: UploadId) -> Result<u64> {
        Ok(0)
    }

    async fn space(&self) -> Result<Space> {
        Ok(Space { free_bytes: 0, writable: false })
    }

    async fn verify(&self, _: &ContentHash, _: &Locator, _: &dyn Pace) -> Result<u64> {
        Err(Error::NotFound)
    }

    async fn look(&self, _: Vec<Locator>) -> Result<Vec<Seen>> {
        Err(Error::NotFound)
    }

    async fn list(&self, _: Shelf) -> Result<Vec<Found>> {
        Ok(Vec::new())
    }

    async fn copy(&self, _: &Path, _: &Path) -> Result<Copied> {
        Err(Error::NoSpace)
    }

    async fn survey(&self, _: UnixMillis, _: UnixMillis) -> Result<Option<Box<dyn Survey>>> {
        Ok(None)
    }

    fn discarded_bytes(&self) -> u64 {
        0
    }
}

struct ZeroReader(u64);

#[async_trait]
impl Reader for ZeroReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        static CHUNK: [u8; 1 << 20] = [0; 1 << 20];
        let now = usize::try_from(self.0.min(CHUNK.len() as u64)).unwrap();
        self.0 -= now as u64;
        Ok((now > 0).then(|| Bytes::from_static(&CHUNK[..now])))
    }
}

fn owner() -> UserId {
    UserId::parse("u").unwrap()
}

fn new_file(number: u64, size: u64) -> NewFile {
    let (name, folder) = (format!("{number}.bin"), Folder::parse("many").unwrap());
    let name = FileName::parse(&name).unwrap();
    let hash = *blake3::hash(&size.to_le_bytes()).as_bytes();
    let created = UnixMillis(1_700_000_000_000 + number / 4096);
    let file = FileRecord {
        id: FileId::new(created, u16::try_from(number % 4096).unwrap(), number),
        owner: owner(),
        key: FileKey::compose(&owner(), &folder, u32::try_from(number).unwrap(), &name),
        folder,
        name,
        mime: "application/octet-stream".into(),
        size,
        blake3: ContentHash(hash),
        sha256: Sha256(hash),
        meta: CallerMeta::default(),
    };
    NewFile {
        file,
        locator: Locator([1].into()),
        is_known: false,
        by: Asker::Service,
        upload: None,
    }
}

async fn index(dir: &Path) -> SledMetadata {
    let meta = SledMetadata::open(dir, 32 << 20, 64 << 20).unwrap();
    // The newest file comes first in the archive, so that all others lie behind it.
    let small = (0..SMALL_FILES).map(|number| new_file(number, SMALL));
    let files: Vec<NewFile> = small.chain([new_file(70_000, LARGE)]).collect();
    for files in files.chunks(500) {
        meta.record_files(files.to_vec(), UnixMillis(0), u64::MAX).await.unwrap();
    }
    meta
}

fn policy() -> Policy {
    Policy {
        file_bytes_max: u64::MAX,
        part_bytes_max: u64::MAX,
        quota_bytes: u64::MAX,
        upload_ttl: Duration::from_hours(1),
        reclaim_grace: Duration::from_hours(1),
        scrub_every: Duration::from_hours(24),
        scrub_bytes_per_second: u64::MAX,
        public_read: false,
        tokens: Expected { issuer: "us".into(), audience: "us".into() },
    }
}

/// Writes the archive, with holes where it holds zeros.
async fn write(app: &Arc<App>, path: &Path) -> u64 {
    let listing = Listing { owner: owner(), folder: Folder::parse("many").unwrap() };
    let user =
        Principal::User { id: owner(), role: Role::Researcher, token: TokenStamp::default() };
    let token = app.mint_batch_token(&user, Chosen::Folder(listing)).await.unwrap();
    let archive = app.open_archive(&token).await.unwrap();
    let bytes = archive.bytes();
    let mut reader = archive.reader(Slice::whole(bytes));
    let mut file = File::create(path).unwrap();
    while let Some(chunk) = reader.next().await.unwrap() {
        if chunk.len() > 4096 {
            file.seek(SeekFrom::Current(i64::try_from(chunk.len()).unwrap())).unwrap();
        } else {
            file.write_all(&chunk).unwrap();
        }
    }
    assert_eq!(file.stream_position().unwrap(), bytes);
    bytes
}

#[test]
fn an_archive_past_every_limit_of_plain_zip_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.zip");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bytes = runtime.block_on(async {
        let app = App::new(
            Arc::new(index(dir.path()).await),
            Arc::new(Zeros),
            Arc::new(KeyRing::open(&dir.path().join("keys")).unwrap()),
            LinkKey::open(&dir.path().join("keys")).unwrap(),
            Arc::new(SystemClock),
            policy(),
        );
        write(&app, &path).await
    });
    assert!(bytes > LARGE);
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    run(Command::new("unzip").arg("-tqq").arg(&path));
    let script = "import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
infos = archive.infolist()
assert len(infos) == 65601 and infos[0].file_size == (4 << 30) + 5, len(infos)
assert infos[-1].header_offset > 4 << 30
assert archive.read(infos[-1]) == bytes(3) and archive.read(infos[40000]) == bytes(3)
print('all held')";
    let told = run(Command::new("python3").args(["-c", script]).arg(&path));
    assert!(told.contains("all held"));
}
