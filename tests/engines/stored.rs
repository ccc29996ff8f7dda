//! The blob seam: which bytes are there, whether they are what was stored, and packs that hold
//! little.

use std::{
    fs,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use streamlined::{
    blob::{
        Address, BlobStore, Error, Purpose, Sealed,
        disk::DiskBlobs,
        upkeep::{Found, Owner, Pace, Shelf, Survey},
    },
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
        range::Slice,
        time::UnixMillis,
    },
};
use tokio::runtime::Runtime;

use crate::{
    blobs::{address, content, disk, on_every_store, part, proven, put, read, rest},
    flip,
};

const EVER: (UnixMillis, UnixMillis) = (UnixMillis(0), UnixMillis(u64::MAX));

/// Does not slow down a read.
struct Unpaced;

#[async_trait]
impl Pace for Unpaced {
    async fn took(&self, _: u64) {}
}

async fn verify(store: &dyn BlobStore, hash: &ContentHash, at: &Locator) -> Result<u64, Error> {
    store.verify(hash, at, &Unpaced).await
}

async fn check(store: &dyn BlobStore, sealed: &Sealed) -> Result<u64, Error> {
    verify(store, &sealed.blake3, &sealed.locator).await
}

/// The only file in a directory of blobs or packs.
fn only_file(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

/// The only part that has a file of its own.
fn only_part(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("staging")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.is_file()).unwrap()
}

#[test]
fn what_was_stored_verifies() {
    on_every_store(async |store| {
        for size in [0, 1, 4096, 64 << 10, (64 << 10) + 1, 3_000_000] {
            let sealed = put(store, &content(size), Purpose::Blob).await;
            assert_eq!(check(store, &sealed).await, Ok(size as u64));
            let mut other = sealed.blake3;
            other.0[0] ^= 1;
            let refused = verify(store, &other, &sealed.locator).await;
            assert!(matches!(refused, Err(Error::Corrupt(_))));
        }
        let sealed = put(store, &content(100_000), Purpose::Blob).await;
        store.discard(&sealed.locator).await.unwrap();
        assert_eq!(check(store, &sealed).await, Err(Error::NotFound));
    });
}

#[test]
fn any_damage_to_a_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(async {
        let sealed = put(&store, &content(2_000_000), Purpose::Blob).await;
        let path = only_file(&dir.path().join(format!("blobs/{:02x}", sealed.blake3.0[0])));
        let damaged = async || matches!(check(&store, &sealed).await, Err(Error::Corrupt(_)));
        for at in [0, 131_072, 1_500_000, 1_999_999, 2_000_000, 2_000_700] {
            flip(&path, at);
            assert!(damaged().await, "{at}");
            flip(&path, at);
        }
        assert_eq!(check(&store, &sealed).await, Ok(2_000_000));
        let whole = fs::read(&path).unwrap();
        let (tail, longer) = (whole.len() - 1, [&whole[..], &[0]].concat());
        for bytes in [&whole[..tail], &whole[..1_999_999], &whole[..0], &longer] {
            fs::write(&path, bytes).unwrap();
            assert!(damaged().await, "{}", bytes.len());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(check(&store, &sealed).await, Err(Error::NotFound));
    });
}

#[test]
fn any_damage_to_a_packed_blob_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(async {
        let before = put(&store, &content(777), Purpose::Blob).await;
        let sealed = put(&store, &content(5000), Purpose::Blob).await;
        let pack = only_file(&dir.path().join("blobs/packs"));
        let start = 48 + 777;
        // Bytes of the magic, the length, the hash, the header's check and the content.
        for at in [0, 4, 7, 8, 39, 40, 47, 48, 2000, 5047] {
            flip(&pack, start + at);
            assert!(matches!(check(&store, &sealed).await, Err(Error::Corrupt(_))), "{at}");
            assert_eq!(check(&store, &before).await, Ok(777));
            flip(&pack, start + at);
        }
        assert_eq!(check(&store, &sealed).await, Ok(5000));
        let file = fs::OpenOptions::new().write(true).open(&pack).unwrap();
        for length in [start + 5047, start + 48, start + 3] {
            file.set_len(length as u64).unwrap();
            assert!(matches!(check(&store, &sealed).await, Err(Error::Corrupt(_))), "{length}");
        }
    });
}

#[test]
fn shelves_list_what_lies_in_files_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(async {
        let packed = put(&store, &content(100), Purpose::Blob).await;
        let of_part = put(&store, &content(100_000), part(7)).await;
        let blob = put(&store, &content(100_001), Purpose::Blob).await;
        let promoted =
            store.join(UploadId([5; 16])).await.unwrap().promote(&address(&of_part)).await.unwrap();
        // The age of the name that was added last counts, not that of the bytes.
        let part_file = fs::File::open(only_part(dir.path())).unwrap();
        part_file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let mut found = store.list(Shelf::Parts).await.unwrap();
        for prefix in 0..=u8::MAX {
            found.extend(store.list(Shelf::Blobs(prefix)).await.unwrap());
        }
        let since = found[0].since;
        let near = since.before(std::time::Duration::from_mins(1))..=since;
        assert!(found.iter().all(|found| near.contains(&found.since)));
        let entry = |owner, locator: &Locator| Found { owner, locator: locator.clone(), since };
        let mut wanted = [
            entry(Owner::Part(UploadId([5; 16]), PartNumber(7)), &of_part.locator),
            entry(Owner::Blob(blob.blake3), &blob.locator),
            entry(Owner::Blob(of_part.blake3), &promoted),
        ];
        for found in &mut found {
            found.since = since;
        }
        found.sort_by_key(|found| found.owner);
        wanted.sort_by_key(|found| found.owner);
        assert_eq!(found, wanted);
        assert!(found.iter().all(|found| found.locator != packed.locator));
        // Discarding a packed blob frees no disk blocks at once.
        assert_eq!(store.discard(&packed.locator).await.unwrap(), 0);
        let mut freed = 0;
        for found in &found {
            freed += store.discard(&found.locator).await.unwrap();
            assert_eq!(store.discard(&found.locator).await.unwrap(), 0, "it is gone");
        }
        // The part and the blob that it became are the same file, whose space is counted once.
        assert!((200_000..250_000).contains(&freed), "{freed}");
    });
}

/// Stores twelve blobs in packs of a few blobs each; the last pack is still open.
async fn fill(store: &DiskBlobs) -> Vec<Sealed> {
    let mut stored = Vec::new();
    for n in 0..12 {
        stored.push(put(store, &content(20_000 + n), Purpose::Blob).await);
    }
    stored
}

/// A store whose packs take three blobs of [`fill`] each.
fn small_packs(dir: &Path) -> DiskBlobs {
    DiskBlobs::open_with(dir, 64 << 10, 62_000).unwrap()
}

fn pack_count(dir: &Path) -> usize {
    fs::read_dir(dir.join("blobs/packs")).unwrap().count()
}

#[test]
fn packs_without_a_name_are_freed_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_packs(dir.path());
    Runtime::new().unwrap().block_on(async {
        let stored = fill(&store).await;
        assert_eq!(pack_count(dir.path()), 4);
        // From here on the store holds the pack of this blob open.
        assert_eq!(check(&store, &stored[8]).await, Ok(20_008));
        let mut survey = store.survey(EVER.0, EVER.1).await.unwrap().unwrap();
        survey.keep(&stored[4].locator);
        let freed = survey.free_dead().await.unwrap();
        // The last pack is open and stays.
        assert_eq!((freed.packs, pack_count(dir.path())), (2, 2));
        assert!(freed.bytes >= 120_000);
        assert_eq!(check(&store, &stored[4]).await, Ok(20_004));
        assert_eq!(check(&store, &stored[11]).await, Ok(20_011));
        assert_eq!(check(&store, &stored[0]).await, Err(Error::NotFound));
        let gone = store.open(&address(&stored[8]), Slice::whole(20_008)).await;
        assert!(matches!(gone, Err(Error::NotFound)));
        // Packs that are too young or too old are not surveyed.
        let now = UnixMillis(1_000_000_000_000);
        assert!(store.survey(EVER.0, now).await.unwrap().is_none());
        assert!(store.survey(UnixMillis(u64::MAX / 2), EVER.1).await.unwrap().is_none());
    });
}

#[test]
fn little_that_is_named_is_copied_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_packs(dir.path());
    Runtime::new().unwrap().block_on(async {
        let stored = fill(&store).await;
        let place = |n: usize| &stored[n].locator;
        let mut survey = store.survey(EVER.0, EVER.1).await.unwrap().unwrap();
        survey.keep(place(0));
        survey.keep(place(3));
        survey.keep(place(4));
        survey.pin(place(6));
        assert!(survey.has_sparse());
        let sparse: Vec<_> = (0..12).filter(|n| survey.is_sparse(place(*n))).collect();
        // One of the three blobs in the first pack is named, two in the second. The third pack
        // holds a pinned blob, so it must stay.
        assert_eq!(sparse, [0, 1, 2]);
        let copy = survey.copy(&stored[0].blake3, place(0)).await;
        let (bytes, copy) = copy.unwrap();
        assert_eq!(bytes, 20_000);
        assert_eq!(verify(&store, &stored[0].blake3, &copy).await, Ok(20_000));
        assert_eq!(survey.free_dead().await.unwrap().packs, 0, "the old copy still counts");
        let pack = dir.path().join("blobs/packs/00000001.pack");
        flip(&pack, 100);
        let refused = survey.copy(&stored[0].blake3, place(0)).await;
        assert!(matches!(refused, Err(Error::Corrupt(_))));
    });
}

async fn free_dead(survey: Option<&mut Box<dyn Survey>>) {
    if let Some(survey) = survey {
        survey.free_dead().await.unwrap();
    }
}

/// A restart must never use the number of a pack again: an old locator would find other bytes.
#[test]
fn no_pack_number_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut seen: Vec<Locator> = Vec::new();
    for _ in 0..4 {
        let store = disk(dir.path());
        let (survey, sealed) = runtime.block_on(async {
            let mut survey = store.survey(EVER.0, EVER.1).await.unwrap();
            free_dead(survey.as_mut()).await;
            (survey, put(&store, &content(10), Purpose::Blob).await)
        });
        drop(survey);
        assert!(!seen.contains(&sealed.locator));
        seen.push(sealed.locator);
        let store = disk(dir.path());
        runtime.block_on(async {
            free_dead(store.survey(EVER.0, EVER.1).await.unwrap().as_mut()).await;
        });
    }
}

#[test]
fn a_locator_without_a_length_is_read_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_packs(dir.path());
    Runtime::new().unwrap().block_on(async {
        let stored = fill(&store).await;
        // Variant 0, pack 1, offset 20,048, as locators were before they held a length.
        let old = Locator([0, 1, 0xd0, 0x9c, 0x01].into());
        let second = &stored[1];
        assert_eq!(verify(&store, &second.blake3, &old).await, Ok(20_001));
        let blob = Address { locator: old.clone(), ..address(second) };
        let mut reader = store.open(&blob, Slice::whole(20_001)).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), content(20_001));
        let mut survey = store.survey(EVER.0, EVER.1).await.unwrap().unwrap();
        survey.keep(&old);
        assert_eq!(survey.free_dead().await.unwrap().packs, 2);
        assert_eq!(verify(&store, &second.blake3, &old).await, Ok(20_001));
    });
}

/// A reader and a proof that touch damage end in an error, and never return bytes behind it.
#[test]
fn a_damaged_part_is_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(async {
        let whole = content(900_000);
        let sealed = put(&store, &whole, Purpose::Blob).await;
        let blob = address(&sealed);
        let path = only_file(&dir.path().join(format!("blobs/{:02x}", sealed.blake3.0[0])));
        flip(&path, 500_000);
        let read = async |slice: Slice| {
            let mut given = Vec::new();
            let mut reader = match store.open(&blob, slice).await {
                Ok(reader) => reader,
                Err(error) => {
                    assert!(matches!(error, Error::Corrupt(_)), "{error}");
                    return (given, false);
                }
            };
            loop {
                match reader.next().await {
                    Ok(Some(bytes)) => given.extend_from_slice(&bytes),
                    Ok(None) => return (given, true),
                    Err(error) => {
                        assert!(matches!(error, Error::Corrupt(_)), "{error}");
                        return (given, false);
                    }
                }
            }
        };
        // The damaged group reaches from 458,752 to 524,288; its neighbours are good.
        for (start, end) in [(0, 458_752), (3, 100_000), (524_288, 900_000), (899_999, 900_000)] {
            let (given, ended) = read(Slice { start, end }).await;
            let wanted = start.try_into().unwrap()..end.try_into().unwrap();
            assert!(ended && given == whole[wanted], "{start} {end}");
        }
        for (start, end) in [(499_999, 500_001), (458_752, 458_753), (1, 900_000), (0, 458_753)] {
            let (given, ended) = read(Slice { start, end }).await;
            assert!(!ended && given.len() as u64 <= 500_000 - start.min(500_000), "{start} {end}");
            let Ok(prover) = store.prove(&blob, Slice { start, end }).await else { continue };
            assert!(rest(prover).await.is_err(), "{start} {end}");
        }
        flip(&path, 500_000);
        // A damaged hash tree proves nothing, but the whole blob is still checked by its hash.
        flip(&path, 900_000 + 32 * 6);
        assert!(!read(Slice { start: 470_000, end: 470_001 }).await.1);
        assert_eq!(read(Slice::whole(900_000)).await, (whole.to_vec(), true));
    });
}

/// In a blob past 128 MiB, a group is larger than the buffer that is held at a time.
#[test]
fn a_part_of_a_large_blob_is_checked_and_proven() {
    const SIZE: u64 = (300 << 20) + 5;
    const GROUP: u64 = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(async {
        let whole = content(usize::try_from(SIZE).unwrap());
        let mut stage = store.stage().await.unwrap();
        stage.write(whole.clone()).await.unwrap();
        let sealed = stage.seal(Purpose::Blob).await.unwrap();
        let blob = address(&sealed);
        let path = only_file(&dir.path().join(format!("blobs/{:02x}", sealed.blake3.0[0])));
        let read = async |start, end| read(&store, &blob, Slice { start, end }).await;
        for (start, end) in [
            (0, 1),
            (GROUP - 1, GROUP + 1),
            (7 * GROUP, 8 * GROUP),
            (9 * GROUP + 100_000, 9 * GROUP + 100_010),
            (5 * GROUP + 200_000, 9 * GROUP + 7),
            (SIZE - 6, SIZE),
        ] {
            let wanted = &whole[start.try_into().unwrap()..end.try_into().unwrap()];
            assert_eq!(read(start, end).await.unwrap(), wanted, "{start} {end}");
            let proven = proven(&store, &blob, Slice { start, end }).await;
            assert_eq!(proven, wanted, "{start} {end}");
        }
        // The damage lies behind the requested range, but in the same group.
        flip(&path, usize::try_from(9 * GROUP + 200_000).unwrap());
        assert!(matches!(read(9 * GROUP + 5, 9 * GROUP + 10).await, Err(Error::Corrupt(_))));
        assert!(read(8 * GROUP, 9 * GROUP).await.is_ok());
    });
}

/// Ranges are checked at every size that gets a file of its own, whether the blob is one group or
/// several.
#[test]
fn parts_of_small_files_are_checked_too() {
    for packed_to in [0, 4096, 128 << 10] {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskBlobs::open(dir.path(), packed_to).unwrap();
        Runtime::new().unwrap().block_on(async {
            for size in [1, 2, 1024, 1025, 65_535, 65_536, 65_537, 131_072, 131_073] {
                let whole = content(size);
                let sealed = put(&store, &whole, Purpose::Blob).await;
                for (start, end) in [(0, 1), (size - 1, size), (size / 2, size), (0, size)] {
                    let slice = Slice { start: start as u64, end: end as u64 };
                    let given = read(&store, &address(&sealed), slice).await.unwrap();
                    assert_eq!(given, whole[start..end], "{packed_to} {size} {start} {end}");
                }
            }
        });
    }
}
