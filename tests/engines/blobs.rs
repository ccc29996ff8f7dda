//! The blob seam: its contract on every store.

use std::{io::Read, path::Path};

use bao::decode::SliceDecoder;
use bytes::Bytes;
use streamlined::{
    blob::{
        Address, BlobStore, Error, Purpose, Reader, Sealed, disk::DiskBlobs, memory::MemoryBlobs,
        proof::proof_bytes,
    },
    model::{
        id::{PartNumber, UploadId},
        range::Slice,
    },
};
use tokio::runtime::Runtime;

pub fn disk(dir: &Path) -> DiskBlobs {
    DiskBlobs::open(dir, 64 << 10).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "reads as a block at the call")]
pub fn on_every_store(contract: impl AsyncFn(&dyn BlobStore)) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(contract(&MemoryBlobs::default()));
    runtime.block_on(contract(&disk(dir.path())));
}

/// Pseudo-random bytes, different for every size.
pub fn content(size: usize) -> Bytes {
    let mut content = vec![0; size];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut content);
    content.into()
}

const SIZES: [usize; 6] = [0, 1, 4096, 64 << 10, (64 << 10) + 1, 700_000];

pub async fn put(store: &dyn BlobStore, content: &Bytes, purpose: Purpose) -> Sealed {
    let mut stage = store.stage().await.unwrap();
    for piece in content.chunks(10_007) {
        stage.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    stage.seal(purpose).await.unwrap()
}

pub fn address(sealed: &Sealed) -> Address {
    Address { blake3: sealed.blake3, size: sealed.size, locator: sealed.locator.clone() }
}

pub async fn read(store: &dyn BlobStore, blob: &Address, slice: Slice) -> Result<Vec<u8>, Error> {
    rest(store.open(blob, slice).await?).await
}

/// What a reader has still to give.
pub async fn rest(mut reader: Box<dyn Reader>) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    while let Some(bytes) = reader.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

/// What the proof of a slice proves to one who knows only the hash of the blob.
pub async fn proven(store: &dyn BlobStore, blob: &Address, slice: Slice) -> Vec<u8> {
    let proof = rest(store.prove(blob, slice).await.unwrap()).await.unwrap();
    assert_eq!(proof.len() as u64, proof_bytes(blob.size, slice));
    let mut proven = Vec::new();
    let root = blake3::Hash::from(blob.blake3.0);
    let mut decoder = SliceDecoder::new(&proof[..], &root, slice.start, slice.len());
    decoder.read_to_end(&mut proven).unwrap();
    proven
}

const UPLOAD: UploadId = UploadId([5; 16]);

pub fn part(number: u32) -> Purpose {
    Purpose::Part(UPLOAD, PartNumber(number))
}

#[test]
fn what_was_sealed_is_read_in_whole_and_in_part() {
    on_every_store(async |store| {
        for size in SIZES {
            let content = content(size);
            let sealed = put(store, &content, Purpose::Blob).await;
            assert_eq!(sealed.size, size as u64);
            assert_eq!(sealed.blake3.0, *blake3::hash(&content).as_bytes());
            let blob = address(&sealed);
            assert_eq!(read(store, &blob, Slice::whole(blob.size)).await.unwrap(), content);
            let slice = Slice { start: blob.size / 3, end: blob.size / 2 };
            let wanted = &content[size / 3..size / 2];
            assert_eq!(read(store, &blob, slice).await.unwrap(), wanted);
        }
    });
}

#[test]
fn every_part_has_a_proof() {
    on_every_store(async |store| {
        for size in SIZES.into_iter().filter(|size| *size > 0) {
            let content = content(size);
            let sealed = put(store, &content, Purpose::Blob).await;
            let size = size as u64;
            for (start, end) in [(0, size), (0, 1), (size - 1, size), (size / 3, size / 2 + 1)] {
                let slice = Slice { start, end };
                let proven = proven(store, &address(&sealed), slice).await;
                let wanted = start.try_into().unwrap()..end.try_into().unwrap();
                assert_eq!(proven, &content[wanted], "{slice:?} of {size}");
            }
        }
    });
}

#[test]
fn parts_assemble_in_order() {
    on_every_store(async |store| {
        for sizes in [&[1, 2, 3][..], &[70_000, 5, 0, 200_000], &[40_000, 40_000]] {
            let mut parts = Vec::new();
            let mut whole = Vec::new();
            for (at, size) in (0..).zip(sizes) {
                let content = content(*size);
                parts.push(address(&put(store, &content, part(at)).await));
                whole.extend_from_slice(&content);
            }
            let sealed = store.join(UPLOAD).await.unwrap().assemble(parts, true).await.unwrap();
            let blob = address(&sealed);
            assert_eq!(sealed.blake3.0, *blake3::hash(&whole).as_bytes());
            assert_eq!(read(store, &blob, Slice::whole(blob.size)).await.unwrap(), whole);
        }
        let sealed = put(store, &content(100_000), part(0)).await;
        let mut wrong = address(&sealed);
        wrong.blake3.0[0] ^= 1;
        let other = address(&put(store, &content(1), part(1)).await);
        let refused = store.join(UPLOAD).await.unwrap().assemble(vec![wrong, other], true).await;
        assert!(matches!(refused, Err(Error::Corrupt(_))));
    });
}

#[test]
fn a_promoted_part_outlives_the_part() {
    on_every_store(async |store| {
        for size in SIZES {
            let content = content(size);
            let sealed = put(store, &content, part(1)).await;
            let locator =
                store.join(UPLOAD).await.unwrap().promote(&address(&sealed)).await.unwrap();
            if locator != sealed.locator {
                store.discard(&sealed.locator).await.unwrap();
            }
            let blob = Address { locator, ..address(&sealed) };
            assert_eq!(read(store, &blob, Slice::whole(blob.size)).await.unwrap(), content);
        }
    });
}

#[test]
fn an_open_reader_outlives_the_blob() {
    on_every_store(async |store| {
        for size in [4096, 700_000] {
            let content = content(size);
            let sealed = put(store, &content, Purpose::Blob).await;
            let mut reader =
                store.open(&address(&sealed), Slice::whole(sealed.size)).await.unwrap();
            let mut got = reader.next().await.unwrap().unwrap().to_vec();
            store.discard(&sealed.locator).await.unwrap();
            got.extend(rest(reader).await.unwrap());
            assert_eq!(got, content);
        }
    });
}

#[test]
fn equal_contents_have_places_of_their_own() {
    on_every_store(async |store| {
        let content = content(100_000);
        let first = put(store, &content, Purpose::Blob).await;
        let second = put(store, &content, Purpose::Blob).await;
        assert_ne!(first.locator, second.locator);
        store.discard(&first.locator).await.unwrap();
        store.discard(&first.locator).await.unwrap();
        let gone = read(store, &address(&first), Slice::whole(1)).await;
        assert_eq!(gone, Err(Error::NotFound));
        let blob = address(&second);
        assert_eq!(read(store, &blob, Slice::whole(blob.size)).await.unwrap(), content);
    });
}

#[test]
fn the_wrong_hash_is_never_read_as_good() {
    on_every_store(async |store| {
        for size in [1, 4096, 700_000] {
            let mut blob = address(&put(store, &content(size), Purpose::Blob).await);
            blob.blake3.0[31] ^= 1;
            let refused = read(store, &blob, Slice::whole(blob.size)).await;
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{size}");
        }
    });
}

#[test]
fn a_new_start_finds_everything_and_no_litter() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut stored = Vec::new();
    for round in 0..3 {
        let store = disk(dir.path());
        runtime.block_on(async {
            for size in [10 + round, 100_000 + round] {
                let content = content(size);
                stored.push((address(&put(&store, &content, Purpose::Blob).await), content));
            }
            let mut abandoned = store.stage().await.unwrap();
            abandoned.write(content(500_000)).await.unwrap();
            std::mem::forget(abandoned);
            for (blob, content) in &stored {
                assert_eq!(read(&store, blob, Slice::whole(blob.size)).await.unwrap(), *content);
            }
        });
    }
    drop(disk(dir.path()));
    assert_eq!(std::fs::read_dir(dir.path().join("staging/tmp")).unwrap().count(), 0);
}
