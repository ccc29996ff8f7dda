//! Assemblies: parts that are written where they belong in the whole, so that it becomes a blob
//! without a copy.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    slice,
};

use bytes::Bytes;
use streamlined::{
    blob::{Address, Begun, BlobStore, Purpose, Sealed, Site, Stage, disk::DiskBlobs},
    model::{
        id::{PartNumber, UploadId},
        range::Slice,
    },
};
use tokio::runtime::Runtime;

use super::{
    blobs::{address, content, disk, on_every_store, put, read},
    flip,
};

const UPLOAD: UploadId = UploadId([7; 16]);
const PART: usize = 300_000;

/// The site of part `number` of an upload whose parts all have [`PART`] bytes, when `parts` are
/// recorded.
fn site(parts: &[Address], number: u32, whole: usize) -> Site {
    let start = number as usize * PART;
    let span = Slice { start: start as u64, end: (start + PART).min(whole) as u64 };
    let leading = parts.len().min(number as usize);
    let (whole, parts) = (Some(whole as u64), parts.to_vec());
    Site { span, from_zero: None, whole, parts, leading, continues: None }
}

async fn begin(store: &dyn BlobStore, number: u32, site: Site) -> Box<dyn Stage> {
    let Begun { mut stage, .. } = store.stage_part(UPLOAD, PartNumber(number)).await.unwrap();
    stage.place(site);
    stage
}

async fn write(stage: &mut Box<dyn Stage>, bytes: &[u8]) {
    for piece in bytes.chunks(70_001) {
        stage.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
}

async fn seal(stage: &mut Box<dyn Stage>, number: u32) -> Address {
    address(&stage.seal(Purpose::Part(UPLOAD, PartNumber(number))).await.unwrap())
}

async fn part(store: &dyn BlobStore, number: u32, site: Site, bytes: &[u8]) -> Address {
    let mut stage = begin(store, number, site).await;
    write(&mut stage, bytes).await;
    seal(&mut stage, number).await
}

/// Stores all parts of `whole` in this order and answers them by number.
async fn parts(store: &dyn BlobStore, whole: &[u8], order: &[u32]) -> Vec<Address> {
    let mut came: Vec<(u32, Address)> = Vec::new();
    for number in order {
        let known: Vec<Address> = came.iter().map(|(_, part)| part.clone()).collect();
        let in_order = came.iter().zip(0..).all(|((number, _), next)| *number == next);
        let mut site = site(&known, *number, whole.len());
        site.leading = if in_order { site.leading } else { 0 };
        let bytes = whole.chunks(PART).nth(*number as usize).unwrap();
        came.push((*number, part(store, *number, site, bytes).await));
        came.sort_by_key(|(number, _)| *number);
    }
    came.into_iter().map(|(_, part)| part).collect()
}

async fn check(store: &dyn BlobStore, sealed: &Sealed, whole: &[u8]) {
    assert_eq!(sealed.blake3.0, *blake3::hash(whole).as_bytes());
    let blob = address(sealed);
    assert!(read(store, &blob, Slice::whole(blob.size)).await.unwrap() == whole);
    let slice = Slice { start: blob.size / 3, end: blob.size / 3 + 5 };
    let wanted = &whole[whole.len() / 3..whole.len() / 3 + 5];
    assert_eq!(read(store, &blob, slice).await.unwrap(), wanted);
}

fn assembly(dir: &Path) -> PathBuf {
    let staged = fs::read_dir(dir.join("staging")).unwrap().map(|entry| entry.unwrap().path());
    staged.into_iter().find(|path| path.extension().is_some_and(|it| it == "assembly")).unwrap()
}

/// Whether the blob is the assembly under another name.
fn lies_in_place(dir: &Path, sealed: &Sealed) -> bool {
    let assembly = fs::metadata(assembly(dir)).unwrap().ino();
    let blobs = fs::read_dir(dir.join(format!("blobs/{:02x}", sealed.blake3.0[0]))).unwrap();
    let mut blobs = blobs.map(|entry| entry.unwrap());
    let is_it = |name: &str| name.starts_with(&sealed.blake3.to_string());
    let blob = blobs.find(|entry| is_it(entry.file_name().to_str().unwrap())).unwrap();
    blob.metadata().unwrap().ino() == assembly
}

#[expect(clippy::needless_pass_by_value, reason = "reads as a block at the call")]
fn on_disk(test: impl AsyncFn(&Path, DiskBlobs)) {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    Runtime::new().unwrap().block_on(test(dir.path(), store));
}

#[test]
fn parts_make_the_whole_in_any_order() {
    for order in [&[0, 1, 2, 3][..], &[3, 2, 1, 0], &[1, 3, 0, 2]] {
        on_every_store(async |store| {
            let whole = content(3 * PART + 1000);
            let parts = parts(store, &whole, order).await;
            let sealed =
                store.join(UPLOAD).await.unwrap().assemble(parts.clone(), true).await.unwrap();
            store.end(UPLOAD).await.unwrap();
            for part in parts {
                store.discard(&part.locator).await.unwrap();
            }
            check(store, &sealed, &whole).await;
        });
    }
}

#[test]
fn in_order_nothing_is_read_again_and_nothing_is_copied() {
    on_disk(async |dir, store| {
        let whole = content(4 * PART);
        let parts = parts(&store, &whole, &[0, 1, 2, 3]).await;
        // A join that read this part again would find damage.
        flip(&assembly(dir), 2 * PART);
        let sealed = store.join(UPLOAD).await.unwrap().assemble(parts, true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        assert_eq!(sealed.blake3.0, *blake3::hash(&whole).as_bytes());
        flip(&assembly(dir), 2 * PART);
        check(&store, &sealed, &whole).await;
    });
}

#[test]
fn out_of_order_and_after_a_restart_it_is_read_once_and_not_copied() {
    on_disk(async |dir, store| {
        let whole = content(3 * PART + 70_000);
        let parts = parts(&store, &whole, &[3, 1, 2, 0]).await;
        drop(store);
        let store = disk(dir);
        flip(&assembly(dir), 2 * PART);
        store.join(UPLOAD).await.unwrap().assemble(parts.clone(), true).await.unwrap_err();
        flip(&assembly(dir), 2 * PART);
        let sealed = store.join(UPLOAD).await.unwrap().assemble(parts, true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

#[test]
fn small_parts_and_those_that_lie_elsewhere_are_filled_in() {
    on_disk(async |dir, store| {
        let whole = content(3 * PART + 1000);
        let mut known = vec![part(&store, 0, site(&[], 0, whole.len()), &whole[..PART]).await];
        let purpose = Purpose::Part(UPLOAD, PartNumber(1));
        let elsewhere = Bytes::copy_from_slice(&whole[PART..2 * PART]);
        known.push(address(&put(&store, &elsewhere, purpose).await));
        let third = &whole[2 * PART..3 * PART];
        known.push(part(&store, 2, site(&known, 2, whole.len()), third).await);
        known.push(part(&store, 3, site(&known, 3, whole.len()), &whole[3 * PART..]).await);
        let sealed = store.join(UPLOAD).await.unwrap().assemble(known, true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

#[test]
fn no_part_is_written_over_another() {
    on_disk(async |dir, store| {
        let whole = content(2 * PART);
        let (first, second) = whole.split_at(PART);
        let mut begun = begin(&store, 0, site(&[], 0, whole.len())).await;
        write(&mut begun, first).await;
        // The same part comes again while the first one is on its way, sealed, and recorded.
        let again = content(PART + 1).slice(1..);
        let meanwhile = part(&store, 0, site(&[], 0, whole.len()), &again).await;
        let kept = seal(&mut begun, 0).await;
        let sealed = part(&store, 0, site(&[], 0, whole.len()), &again).await;
        drop(begun);
        let recorded = part(&store, 0, site(slice::from_ref(&kept), 0, whole.len()), &again).await;
        for other in [meanwhile, sealed, recorded] {
            assert!(read(&store, &other, Slice::whole(other.size)).await.unwrap() == again);
        }
        let rest = part(&store, 1, site(slice::from_ref(&kept), 1, whole.len()), second).await;
        let sealed =
            store.join(UPLOAD).await.unwrap().assemble(vec![kept, rest], true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

#[test]
fn a_part_that_was_replaced_counts_no_more() {
    on_disk(async |dir, store| {
        let whole = content(3 * PART);
        let mut came = parts(&store, &whole, &[0, 1, 2]).await;
        let other = content(PART + 2).slice(2..);
        let others = [came[0].clone(), came[1].clone(), came[2].clone()];
        came[1] = part(&store, 1, site(&others, 1, whole.len()), &other).await;
        let now = [&whole[..PART], &other, &whole[2 * PART..]].concat();
        // As long as it must not be overwritten, the replaced part stays as it is.
        let copied = store.join(UPLOAD).await.unwrap().assemble(came.clone(), false).await.unwrap();
        assert!(!lies_in_place(dir, &copied));
        check(&store, &copied, &now).await;
        let first = read(&store, &others[1], Slice::whole(others[1].size)).await.unwrap();
        assert!(first == whole[PART..2 * PART]);
        store.discard(&copied.locator).await.unwrap();
        let sealed = store.join(UPLOAD).await.unwrap().assemble(came, true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &now).await;
    });
}

#[test]
fn a_part_that_comes_once_the_others_are_joined_lies_elsewhere() {
    for count in [1, 2] {
        on_disk(async |_, store| {
            let whole = content((count + 1) * PART);
            let (first, rest) = whole.split_at(count * PART);
            let next = u32::try_from(count).unwrap();
            let came = parts(&store, first, &(0..next).collect::<Vec<_>>()).await;
            let behind = Site { whole: None, ..site(&came, next, whole.len()) };
            let joining = store.join(UPLOAD).await.unwrap();
            let late = part(&store, next, behind, rest).await;
            match &came[..] {
                [only] => drop(joining.promote(only).await.unwrap()),
                _ => check(&store, &joining.assemble(came, true).await.unwrap(), first).await,
            }
            let read = read(&store, &late, Slice::whole(late.size)).await;
            assert!(read.unwrap() == rest, "{count}");
        });
    }
}

#[test]
fn a_blob_is_never_written_to() {
    on_disk(async |dir, store| {
        let whole = content(2 * PART);
        let came = parts(&store, &whole, &[0, 1]).await;
        let behind = Site { whole: None, ..site(&came, 2, 3 * PART) };
        // While a part is being written into it, the assembly does not become a blob.
        let mut begun = begin(&store, 2, behind.clone()).await;
        write(&mut begun, &whole[..80_000]).await;
        let copied = store.join(UPLOAD).await.unwrap().assemble(came.clone(), true).await.unwrap();
        assert!(!lies_in_place(dir, &copied));
        write(&mut begun, &whole[..80_000]).await;
        seal(&mut begun, 2).await;
        drop(begun);
        check(&store, &copied, &whole).await;
        store.discard(&copied.locator).await.unwrap();
        // An assembly that became a blob takes no part until that blob is discarded.
        let sealed = store.join(UPLOAD).await.unwrap().assemble(came.clone(), true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        let apart = part(&store, 2, behind.clone(), &whole[..PART]).await;
        check(&store, &sealed, &whole).await;
        let grown = store
            .join(UPLOAD)
            .await
            .unwrap()
            .assemble([&came[..], &[apart]].concat(), true)
            .await
            .unwrap();
        assert_eq!(grown.size, 3 * PART as u64);
        check(&store, &sealed, &whole).await;
        store.discard(&grown.locator).await.unwrap();
        store.discard(&sealed.locator).await.unwrap();
        let third = part(&store, 2, behind, &whole[..PART]).await;
        let sealed = store
            .join(UPLOAD)
            .await
            .unwrap()
            .assemble([&came[..], &[third]].concat(), true)
            .await
            .unwrap();
        assert!(lies_in_place(dir, &sealed));
    });
}

/// A blob gets a place of its own, whatever site its stage was given: a place among parts goes away
/// with the upload.
#[test]
fn what_is_sealed_as_a_blob_lies_by_itself() {
    on_disk(async |_, store| {
        let whole = content(PART);
        // The first stage writes into the assembly from the beginning, the second into a file that
        // would become one.
        let among = Site { whole: None, ..site(&[], 0, 2 * PART) };
        let all = Site { span: Slice::whole(PART as u64), ..site(&[], 0, PART) };
        for (site, bytes) in [(among, &whole[..]), (all, &whole[..100_000])] {
            let part = part(&store, 0, site.clone(), bytes).await;
            assert!(!store.holds_blob(&part.locator));
            store.end(UPLOAD).await.unwrap();
            let mut stage = begin(&store, 0, site).await;
            write(&mut stage, bytes).await;
            let blob = address(&stage.seal(Purpose::Blob).await.unwrap());
            assert!(store.holds_blob(&blob.locator));
            drop(stage);
            store.end(UPLOAD).await.unwrap();
            assert!(read(&store, &blob, Slice::whole(blob.size)).await.unwrap() == bytes);
        }
    });
}

#[test]
fn a_part_that_lies_elsewhere_than_it_goes_on_is_not_written_over() {
    on_disk(async |_, store| {
        let whole = content(3 * PART);
        let last = part(&store, 1, site(&[], 1, 3 * PART), &whole[..PART]).await;
        // The part before it turned out to be shorter, so the continued part belongs elsewhere.
        let span = Slice { start: 100_000, end: 900_000 };
        let grows = Site { span, continues: Some(last.clone()), ..site(&[], 0, 3 * PART) };
        let grown = part(&store, 1, grows, &whole[..2 * PART]).await;
        for (part, bytes) in [(last, &whole[..PART]), (grown, &whole[..2 * PART])] {
            assert!(read(&store, &part, Slice::whole(part.size)).await.unwrap() == *bytes);
        }
    });
}

#[test]
fn a_part_may_grow_and_outgrow_its_room() {
    on_disk(async |dir, store| {
        let whole = content(PART + 200_000);
        let first = part(&store, 0, site(&[], 0, 4 * PART), &whole[..PART]).await;
        let tail =
            part(&store, 1, site(slice::from_ref(&first), 1, 4 * PART), &whole[PART..][..90_000])
                .await;
        let mut grows = site(slice::from_ref(&first), 1, 4 * PART);
        grows.continues = Some(tail.clone());
        // The recorded part stays as it is if the rest never comes.
        let mut begun = begin(&store, 1, grows.clone()).await;
        write(&mut begun, &whole[PART..][..150_000]).await;
        drop(begun);
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        let kept = read(&store, &tail, Slice::whole(90_000)).await.unwrap();
        assert!(kept == whole[PART..][..90_000]);
        let grown = loop {
            let grown = part(&store, 1, grows.clone(), &whole[PART..]).await;
            // The abandoned stage is released on another thread and may still take up the place.
            if fs::read_dir(dir.join("staging")).unwrap().count() == 2 {
                break grown;
            }
            store.discard(&grown.locator).await.unwrap();
        };
        let sealed = store
            .join(UPLOAD)
            .await
            .unwrap()
            .assemble(vec![first.clone(), grown], true)
            .await
            .unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
        store.discard(&sealed.locator).await.unwrap();
        let long = content(PART + 50_000);
        let long = part(&store, 1, site(slice::from_ref(&first), 1, 4 * PART), &long).await;
        assert_eq!(
            read(&store, &long, Slice::whole(long.size)).await.unwrap(),
            content(PART + 50_000)
        );
        store.join(UPLOAD).await.unwrap().assemble(vec![first, long], true).await.unwrap();
    });
}

#[test]
fn a_whole_that_was_cut_becomes_the_assembly() {
    on_disk(async |dir, store| {
        let whole = content(PART);
        let all = Site { span: Slice::whole(PART as u64), ..site(&[], 0, PART) };
        let first = part(&store, 1, all.clone(), &whole[..100_000]).await;
        let rest = Slice { start: 100_000, end: PART as u64 };
        let behind = Site { span: rest, parts: vec![first.clone()], leading: 1, ..all };
        let second = part(&store, 2, behind, &whole[100_000..]).await;
        flip(&assembly(dir), 200_000);
        let sealed =
            store.join(UPLOAD).await.unwrap().assemble(vec![first, second], true).await.unwrap();
        flip(&assembly(dir), 200_000);
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

/// Parts that begin before part 0 are placed as if numbers counted from 1. Once part 0 comes, they
/// move to where they belong, and part 0 takes the place that they leave.
#[test]
fn numbers_may_turn_out_to_count_from_0() {
    on_disk(async |dir, store| {
        let whole = content(4 * PART);
        let pieces: Vec<&[u8]> = whole.chunks(PART).collect();
        let mut begun = Vec::new();
        for number in 1..4 {
            let from_zero = Some(site(&[], number, whole.len()).span);
            let guess = Site { from_zero, ..site(&[], number - 1, whole.len()) };
            let mut stage = begin(&store, number, guess).await;
            write(&mut stage, &pieces[number as usize][..150_000]).await;
            begun.push((number, stage));
        }
        let mut zero = begin(&store, 0, site(&[], 0, whole.len())).await;
        write(&mut zero, &pieces[0][..1000]).await;
        let mut parts = Vec::new();
        // The part at the highest offset moves first and makes room.
        for (number, stage) in begun.iter_mut().rev() {
            write(stage, &pieces[*number as usize][150_000..]).await;
            parts.push(seal(stage, *number).await);
        }
        write(&mut zero, &pieces[0][1000..]).await;
        parts.push(seal(&mut zero, 0).await);
        parts.reverse();
        drop((begun, zero));
        for (part, piece) in parts.iter().zip(&pieces) {
            assert!(read(&store, part, Slice::whole(part.size)).await.unwrap() == *piece);
        }
        let sealed = store.join(UPLOAD).await.unwrap().assemble(parts, true).await.unwrap();
        assert!(lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

#[test]
fn parts_in_other_places_than_they_belong_are_copied() {
    on_disk(async |dir, store| {
        let whole = content(3 * PART);
        let second = part(&store, 1, site(&[], 0, whole.len()), &whole[PART..2 * PART]).await;
        let known = [second.clone()];
        let first = part(&store, 0, site(&known, 0, whole.len()), &whole[..PART]).await;
        let third = part(&store, 2, site(&[], 2, whole.len()), &whole[2 * PART..]).await;
        let sealed = store
            .join(UPLOAD)
            .await
            .unwrap()
            .assemble(vec![first, second, third], true)
            .await
            .unwrap();
        assert!(!lies_in_place(dir, &sealed));
        check(&store, &sealed, &whole).await;
    });
}

/// The upload may end, and its file be removed, before the space of a replaced part is freed. That
/// is no error.
#[test]
fn room_of_a_part_whose_upload_is_gone_is_nobodys() {
    on_disk(async |dir, store| {
        let whole = content(2 * PART);
        let first = part(&store, 0, site(&[], 0, whole.len()), &whole[..PART]).await;
        let vacate = store.vacate(&first.locator).await.unwrap().unwrap();
        fs::remove_file(assembly(dir)).unwrap();
        assert_eq!(vacate.unless_taken(Vec::new()).await, Ok(()));
    });
}
