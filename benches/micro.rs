//! What single steps of a request cost, measured with criterion: route, file key, a part in base64,
//! hashing, hashing and writing, a page of a list, the codec of a record. Checks of tokens are in
//! `token_check`.
//!
//! `cargo bench --bench micro [-- NAME]`; `DIR` names a directory on the disk to measure.

mod photos;

use std::{env, hint::black_box, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hyper::Method;
use streamlined::{
    blob::{BlobStore, Hasher, Purpose, disk::DiskBlobs},
    http::{
        message::inline::{Splitter, Step},
        route,
    },
    meta::{
        Metadata, NewFile,
        sled::{
            SledMetadata,
            codec::{self, StoredFile},
        },
    },
    model::{file::FileRecord, key::FileKey, name::UserId, time::UnixMillis},
};
use tokio::runtime::Runtime;

const KEY: &str = "storage/user@example.com/main/pictures/1234567890_photo.jpg";
const MIB: usize = 1 << 20;

fn photo(n: u64) -> NewFile {
    photos::new_file(UserId::parse("user@example.com").unwrap(), n)
}

fn paths(c: &mut Criterion) {
    let path = format!("/v1/files/content/{}", KEY.replace('@', "%40"));
    c.bench_function("route", |b| b.iter(|| route::route(&Method::GET, black_box(&path)).is_ok()));
    c.bench_function("file key", |b| b.iter(|| FileKey::parse(black_box(KEY)).unwrap()));
}

fn bodies(c: &mut Criterion) {
    let mut content = vec![0; MIB];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    let mut group = c.benchmark_group("1 MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    let encoded = STANDARD.encode(&content);
    let body = format!(r#"{{"uploadId":"u","partNumber":1,"chunkBase64":"{encoded}"}}"#);
    group.bench_function("part in base64", |b| {
        b.iter(|| {
            let mut splitter = Splitter::new(&[Step::Member("chunkBase64")]);
            let mut found = 0;
            for piece in body.as_bytes().chunks(64 << 10) {
                let mut decoded = Vec::with_capacity(64 << 10);
                splitter.push(piece, &mut decoded).unwrap();
                found += decoded.len();
            }
            assert_eq!(found, MIB);
        });
    });
    group.bench_function("hash", |b| {
        b.iter(|| {
            let mut hasher = Hasher::default();
            content.chunks(128 << 10).for_each(|piece| hasher.update(piece));
            hasher.finish()
        });
    });
    let dir = tempfile::tempdir_in(env::var_os("DIR").unwrap_or_else(|| "target".into())).unwrap();
    let (runtime, blobs) =
        (Runtime::new().unwrap(), DiskBlobs::open(dir.path(), 64 << 20).unwrap());
    let content = Bytes::from(content);
    group.bench_function("hash, write and sync", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let mut stage = blobs.stage().await.unwrap();
                stage.write(content.clone()).await.unwrap();
                let sealed = stage.seal(Purpose::Blob).await.unwrap();
                blobs.discard(&sealed.locator).await.unwrap();
            });
        });
    });
    group.finish();
}

fn records(c: &mut Criterion) {
    let stored = StoredFile::new(&photo(1).file);
    c.bench_function("record, encoded", |b| b.iter(|| codec::encode(black_box(&stored)).unwrap()));
    let record = codec::encode(&stored).unwrap();
    c.bench_function("record, decoded", |b| {
        b.iter(|| codec::decode::<StoredFile>(black_box(&record)).unwrap());
    });
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let index = Arc::new(SledMetadata::open(dir.path(), 32 << 20, 64 << 20).unwrap());
    let files = (0..1_000).map(photo).collect();
    runtime.block_on(index.record_files(files, UnixMillis(0), u64::MAX)).unwrap();
    let FileRecord { owner, folder, .. } = photo(0).file;
    c.bench_function("page of 100 of 1,000", |b| {
        b.iter(|| {
            let page = runtime.block_on(index.list_files(&owner, &folder, None, 100)).unwrap();
            assert_eq!(page.len(), 100);
        });
    });
}

criterion_group!(benches, paths, bodies, records);
criterion_main!(benches);
