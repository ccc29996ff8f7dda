//! Why small blobs are packed: the disk store with a file for every blob against the same store
//! with packs, alternating in one run, beside the disk's own append + fdatasync.
//!
//! `cargo bench --bench blob_layout`; `DIR` names a directory on the disk to measure.

mod photos;

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use streamlined::{
    blob::{Address, BlobStore, Purpose, disk::DiskBlobs},
    meta::{Metadata, NewFile, sled::SledMetadata},
    model::{file::FileRecord, name::UserId, range::Slice, time::UnixMillis},
};
use tokio::runtime::Runtime;

const ROUND: Duration = Duration::from_millis(1500);
const PACKED: usize = 64 << 10;

/// Blobs per second when `clients` put contents of `size` bytes that all differ. With an index,
/// each blob is also recorded as a file.
fn puts(
    runtime: &Runtime,
    store: &Arc<DiskBlobs>,
    index: Option<&Arc<SledMetadata>>,
    clients: u64,
    size: usize,
) -> f64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let began = Instant::now();
    let put = |_| {
        let (store, index) = (Arc::clone(store), index.map(Arc::clone));
        runtime.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < ROUND {
                let n = NEXT.fetch_add(1, Ordering::Relaxed);
                let mut content = vec![0; size];
                content[..8].copy_from_slice(&n.to_le_bytes());
                let mut stage = store.stage().await.unwrap();
                stage.write(Bytes::from(content)).await.unwrap();
                let sealed = stage.seal(Purpose::Blob).await.unwrap();
                if let Some(index) = &index {
                    let owner = UserId::parse(&format!("user{}", n % 100)).unwrap();
                    let photo = photos::new_file(owner, n);
                    let file = FileRecord {
                        size: sealed.size,
                        blake3: sealed.blake3,
                        sha256: sealed.sha256,
                        ..photo.file
                    };
                    let new = NewFile { file, locator: sealed.locator, ..photo };
                    index.record_files(vec![new], UnixMillis(0), u64::MAX).await.unwrap();
                }
                done += 1;
            }
            done
        })
    };
    let tasks: Vec<_> = (0..clients).map(put).collect();
    let done: u32 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Whole reads a second of one small blob by eight clients.
fn reads(runtime: &Runtime, store: &Arc<DiskBlobs>) -> f64 {
    let blob = runtime.block_on(async {
        let mut stage = store.stage().await.unwrap();
        stage.write(Bytes::from(vec![7; 4096])).await.unwrap();
        let sealed = stage.seal(Purpose::Blob).await.unwrap();
        Address { blake3: sealed.blake3, size: sealed.size, locator: sealed.locator }
    });
    let began = Instant::now();
    let read = |_| {
        let (store, blob) = (Arc::clone(store), blob.clone());
        runtime.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < ROUND {
                let mut reader = store.open(&blob, Slice::whole(blob.size)).await.unwrap();
                assert_eq!(reader.next().await.unwrap().unwrap().len(), 4096);
                done += 1;
            }
            done
        })
    };
    let tasks: Vec<_> = (0..8).map(read).collect();
    let done: u32 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Appends per second of one client to one file: `size` bytes and an `fdatasync` at a time.
fn appends(mut file: File, size: usize) -> f64 {
    let content = vec![7; size];
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < ROUND {
        file.write_all(&content).unwrap();
        file.sync_data().unwrap();
        done += 1;
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

fn main() {
    let base = std::env::var_os("DIR").unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let open = |name: &str, pack_bytes_max| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Arc::new(DiskBlobs::open(&path, pack_bytes_max).unwrap())
    };
    let runtime = Runtime::new().unwrap();
    let (files, packs) = (open("files", 0), open("packs", PACKED));
    let index = Arc::new(SledMetadata::open(dir.path(), 32 << 20, 64 << 20).unwrap());

    let append = File::create(dir.path().join("append")).unwrap();
    println!("append + fdatasync of 4 KiB, one client: {:.0}/s", appends(append, 4096));
    println!("\nblobs/s           a file each      packed   ratio   packed + indexed");
    for size in [4 << 10, 16 << 10, 64 << 10] {
        for clients in [1, 8, 32, 128] {
            let each = puts(&runtime, &files, None, clients, size);
            let packed = puts(&runtime, &packs, None, clients, size);
            let indexed = puts(&runtime, &packs, Some(&index), clients, size);
            let ratio = packed / each;
            println!(
                "{:>3} KiB, {clients:>3} clients {each:>9.0} {packed:>11.0} {ratio:>7.1} {indexed:>18.0}",
                size >> 10
            );
        }
    }
    println!(
        "\nwhole reads/s of 4 KiB, 8 clients: a file each {:.0}, packed {:.0}",
        reads(&runtime, &files),
        reads(&runtime, &packs)
    );
}
