//! What a crash left is removed after its grace time, and nothing else is.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::poll_immediate;
use streamlined::{
    app::{Error, Policy, gc::Collected},
    blob::{BlobStore, Purpose, Stage},
    meta::{Upkeep, memory::MemoryMetadata},
    model::{
        file::FileRecord,
        id::{PartNumber, UploadId},
    },
    sys::clock::{Clock, SystemClock},
};
use tokio::task::JoinHandle;

use crate::{
    faulty::Faulty,
    world::{
        GRACE, TTL, World, app, complete, content, files, init, part, policy, put, read, store,
        user,
    },
};

const LARGE: usize = 100_000;
/// Longer than a test takes: what a test writes is younger by the disk's clock than by the test's.
const MARGIN: Duration = Duration::from_mins(10);

async fn seal(store: &dyn BlobStore, seed: u64, size: usize, purpose: Purpose) {
    let mut stage: Box<dyn Stage> = store.stage().await.unwrap();
    stage.write(content(seed, size)).await.unwrap();
    stage.seal(purpose).await.unwrap();
}

/// The bytes are on the disk before the index refuses the file.
#[tokio::test]
async fn content_that_is_refused_at_its_end_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (meta, clock) = (Arc::new(MemoryMetadata::default()), Arc::new(SystemClock));
    meta.begun(clock.now()).await.unwrap();
    let policy = Policy { quota_bytes: LARGE as u64, ..policy() };
    let app = app(dir.path(), meta, Arc::new(store(dir.path())), clock, policy);
    let stored = put(&app, "f", &content(1, LARGE)).await.unwrap();
    let before = files(&dir.path().join("blobs"));
    let refused = put(&app, "g", &content(2, LARGE)).await.map(drop);
    assert!(matches!(refused, Err(Error::Quota { .. })), "{refused:?}");
    assert_eq!(files(&dir.path().join("blobs")), before);
    // Content of another file stays.
    let refused = put(&app, "g", &content(1, LARGE)).await.map(drop);
    assert!(matches!(refused, Err(Error::Quota { .. })), "{refused:?}");
    assert!(read(&app, &stored).await.unwrap() == content(1, LARGE));
}

#[tokio::test]
async fn room_that_comes_back_is_told_of_files_and_of_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs).await;
    let told = |collected: Collected| {
        let fits = (LARGE as u64..2 * LARGE as u64).contains(&collected.freed_bytes);
        (collected.blobs, collected.sessions, fits)
    };
    let file = world.put(&content(1, LARGE)).await;
    world.delete(&file).await;
    world.pass(GRACE + MARGIN);
    assert_eq!(told(world.app.gc().await.unwrap()), (1, 0, true));
    let open = init(&world.app, 200_000).await;
    part(&world.app, open, 1, &content(2, LARGE)).await.unwrap();
    world.pass(TTL + MARGIN);
    assert_eq!(told(world.app.gc().await.unwrap()), (0, 1, true));
    assert_eq!(world.app.gc().await.unwrap(), Collected::default());
}

#[tokio::test]
async fn files_without_a_record_go_after_their_grace() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    let kept = world.put(&content(1, LARGE)).await;
    let open = init(&world.app, 200_000).await;
    part(&world.app, open, 1, &content(2, LARGE)).await.unwrap();
    // What a crash leaves: bytes without a record, a second copy of known content, a part whose
    // session is gone, and a part that was sent again.
    seal(&*blobs, 3, LARGE, Purpose::Blob).await;
    seal(&*blobs, 1, LARGE, Purpose::Blob).await;
    seal(&*blobs, 4, LARGE, Purpose::Part(UploadId([9; 16]), PartNumber(1))).await;
    seal(&*blobs, 5, LARGE, Purpose::Part(open, PartNumber(1))).await;
    let count = || (world.blob_files().len(), world.files("staging").len());
    assert_eq!(count(), (3, 3));
    world.pass(GRACE.saturating_sub(MARGIN));
    assert_eq!(world.app.gc().await.unwrap(), Collected::default());
    world.pass(MARGIN * 2);
    let collected = world.app.gc().await.unwrap();
    // Each file has two hashes and a CRC-32 behind its content.
    assert_eq!(collected.files, 2);
    assert!((2 * LARGE as u64..3 * LARGE as u64).contains(&collected.freed_bytes));
    assert_eq!(count(), (1, 3));
    // The session stays open, and its parts stay with it.
    world.pass(TTL.saturating_sub(GRACE + MARGIN * 3));
    part(&world.app, open, 2, &content(6, LARGE)).await.unwrap();
    assert_eq!((world.app.gc().await.unwrap(), count()), (Collected::default(), (1, 4)));
    world.pass(MARGIN * 4);
    assert_eq!(world.app.gc().await.unwrap().files, 2);
    assert_eq!(count(), (1, 2));
    let file = complete(&world.app, open).await.unwrap();
    assert_eq!(world.read(&file).await.unwrap().len(), 2 * LARGE);
    assert_eq!(world.read(&kept).await.unwrap(), content(1, LARGE));
}

#[tokio::test]
async fn an_assembly_goes_when_its_upload_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Arc::new(MemoryMetadata::default());
    let world = World::new(dir.path(), meta, Arc::new(store(dir.path()))).await;
    let open = init(&world.app, 3 * LARGE as u64).await;
    let send = async |number: u32| {
        let (number, announced) = (PartNumber(number), Some(LARGE as u64));
        let mut incoming = world.app.begin_part_of(open, number, announced).await.unwrap();
        incoming.write(content(number.0.into(), LARGE)).await.unwrap();
        world.app.finish_part(&user(), open, number, incoming, None).await.unwrap();
    };
    send(1).await;
    let left = dir.path().join("staging").join(format!("{}.assembly", UploadId([9; 16])));
    fs::write(&left, b"of an upload that nobody knows").unwrap();
    world.pass(TTL.saturating_sub(MARGIN));
    assert_eq!(world.app.gc().await.unwrap(), Collected::default());
    send(2).await;
    world.pass(MARGIN * 2);
    assert_eq!((world.app.gc().await.unwrap().files, left.exists()), (1, false));
    send(3).await;
    let file = complete(&world.app, open).await.unwrap();
    assert_eq!(world.read(&file).await.unwrap().len(), 3 * LARGE);
    assert_eq!(world.files("staging").len(), 0);
    let gone = init(&world.app, 3 * LARGE as u64).await;
    let incoming = world.app.begin_part_of(gone, PartNumber(1), Some(LARGE as u64)).await;
    let mut incoming = incoming.unwrap();
    incoming.write(content(1, LARGE)).await.unwrap();
    world.app.finish_part(&user(), gone, PartNumber(1), incoming, None).await.unwrap();
    assert_eq!(world.files("staging").len(), 1);
    world.pass(TTL + MARGIN);
    assert_eq!((world.app.gc().await.unwrap().sessions, world.files("staging").len()), (2, 0));
}

/// An index that replaces a lost one does not know what was stored before.
#[tokio::test]
async fn nothing_older_than_the_index_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    {
        let blobs = Arc::new(store(dir.path()));
        let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs).await;
        for seed in 0..6 {
            world.put(&content(seed, 20_000)).await;
        }
        world.put(&content(7, LARGE)).await;
    }
    // The clock of the disk ticks a few times in this span.
    std::thread::sleep(Duration::from_millis(50));
    let (meta, blobs) = (Arc::new(MemoryMetadata::default()), Arc::new(store(dir.path())));
    meta.begun(SystemClock.now()).await.unwrap();
    let world = World::new(dir.path(), meta, blobs).await;
    let before = world.files("blobs");
    world.put(&content(8, 10)).await;
    world.pass(TTL * 100);
    assert_eq!(world.app.gc().await.unwrap(), Collected::default());
    assert!(before.iter().all(|file| file.exists()));
}

/// Twelve files of 20,000 bytes, three to a pack; eight of them deleted, and forgotten.
async fn sparse(world: &World) -> Vec<FileRecord> {
    let mut files = Vec::new();
    for seed in 0..12 {
        files.push(world.put(&content(seed, 20_000)).await);
    }
    for (n, file) in files.iter().enumerate() {
        if n % 3 != 0 {
            world.delete(file).await;
        }
    }
    world.pass(GRACE + MARGIN);
    world.app.sweep(&mut Collected::default()).await.unwrap();
    files.into_iter().step_by(3).collect()
}

#[tokio::test]
async fn packs_that_hold_little_are_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    let kept = sparse(&world).await;
    assert_eq!(blobs.discarded_bytes(), 8 * 20_000);
    assert_eq!(world.packs(), 4);
    let collected = world.app.gc().await.unwrap();
    assert_eq!((collected.packs, collected.moved_bytes), (3, 60_000));
    assert!(collected.freed_bytes >= 180_000);
    // The pack that was open holds its own blobs and, together with a new pack, what was moved.
    assert_eq!(world.packs(), 2);
    for (file, seed) in kept.iter().zip([0, 3, 6, 9]) {
        assert_eq!(world.read(file).await.unwrap(), content(seed, 20_000));
    }
    // A scrub reads the blobs where they are now.
    let pass = world.app.scrub_now(u64::MAX).await.unwrap();
    assert_eq!((pass.blobs, pass.bytes, pass.damaged), (4, 80_000, 0));
}

#[tokio::test]
async fn a_full_disk_leaves_everything_and_still_frees_what_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Faulty::new(store(dir.path())));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    let kept = sparse(&world).await;
    blobs.copies.store(0, Ordering::SeqCst);
    assert!(matches!(world.app.gc().await, Err(Error::NoSpace)));
    assert_eq!(world.packs(), 4);
    for file in &kept {
        assert_eq!(world.read(file).await.unwrap().len(), 20_000);
    }
    // There is room for one copy: one blob moves into a new pack, and its old pack is removed.
    let before = world.files("blobs/packs");
    blobs.copies.store(1, Ordering::SeqCst);
    assert!(matches!(world.app.gc().await, Err(Error::NoSpace)));
    assert_eq!(before.iter().filter(|pack| pack.exists()).count(), 3);
    assert_eq!(world.packs(), 4);
    // Packs in which nothing is named are removed without any room.
    blobs.copies.store(0, Ordering::SeqCst);
    for file in &kept {
        assert_eq!(world.read(file).await.unwrap().len(), 20_000);
        world.delete(file).await;
    }
    world.pass(GRACE + MARGIN);
    world.app.gc().await.unwrap();
    assert_eq!(world.packs(), 1, "the one that is open");
}

#[tokio::test]
async fn a_pack_with_a_part_of_an_open_upload_stays() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs).await;
    let id = init(&world.app, 100).await;
    part(&world.app, id, 1, &content(99, 100)).await.unwrap();
    let mut files = Vec::new();
    for seed in 0..9 {
        files.push(world.put(&content(seed, 20_000)).await);
    }
    for file in &files {
        world.delete(file).await;
    }
    let packs = world.packs();
    world.pass(GRACE + MARGIN);
    let collected = world.app.gc().await.unwrap();
    assert_eq!((collected.packs, world.packs()), (packs - 2, 2));
    let file = complete(&world.app, id).await.unwrap();
    assert_eq!(world.read(&file).await.unwrap(), content(99, 100));
    // The part is a blob now, so it moves.
    let collected = world.app.gc().await.unwrap();
    assert_eq!((collected.packs, collected.moved_bytes), (1, 100));
    assert_eq!(world.read(&file).await.unwrap(), content(99, 100));
}

/// What a crash leaves between any two steps of a move is litter, which later collections remove.
#[tokio::test]
async fn a_crash_between_the_steps_of_a_move_leaves_only_litter() {
    for steps in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMetadata::default());
        let kept = {
            let blobs = Arc::new(store(dir.path()));
            let world = World::new(dir.path(), meta.clone(), blobs.clone()).await;
            let kept = sparse(&world).await;
            let all = meta.blobs_after(None, 99).await.unwrap();
            let mut survey =
                blobs.survey(<_>::default(), world.clock.now()).await.unwrap().unwrap();
            for (_, blob) in &all {
                survey.keep(&blob.locator);
            }
            for (hash, blob) in &all {
                if survey.is_sparse(&blob.locator) && steps > 0 {
                    let (_, to) = survey.copy(hash, &blob.locator).await.unwrap();
                    if steps > 1 {
                        meta.relocate_blob(hash, &blob.locator, &to).await.unwrap();
                    }
                }
            }
            kept
        };
        let blobs = Arc::new(store(dir.path()));
        let world = World::new(dir.path(), meta, blobs).await;
        world.pass(GRACE * 3);
        world.app.gc().await.unwrap();
        for file in &kept {
            assert_eq!(world.read(file).await.unwrap().len(), 20_000);
        }
        world.pass(GRACE * 3);
        world.app.gc().await.unwrap();
        let room: u64 =
            world.files("blobs/packs").iter().map(|pack| fs::metadata(pack).unwrap().len()).sum();
        assert!(world.packs() <= 3 && room < 5_000_000, "{steps}: {} of {room}", world.packs());
    }
}

#[tokio::test]
async fn a_hold_keeps_everything_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs).await;
    let kept = sparse(&world).await;
    let (large, again) = (world.put(&content(50, LARGE)).await, content(51, LARGE));
    world.put(&again).await;
    let hold = world.app.hold().await;
    let before = world.files("blobs");
    // Contents are stored again, deleted and forgotten, but nothing leaves the disk.
    world.put(&again).await;
    world.delete(&large).await;
    world.pass(GRACE + MARGIN);
    let mut gc = Box::pin(world.app.gc());
    for _ in 0..200 {
        assert!(poll_immediate(&mut gc).await.is_none(), "a collection waits");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(before.iter().all(|file| file.exists()));
    drop(hold);
    let collected = gc.await.unwrap();
    assert_eq!(collected.files, 2, "what was not discarded is litter");
    assert_eq!(collected.packs, 3);
    assert_eq!(world.blob_files().len(), 1);
    for file in &kept {
        assert_eq!(world.read(file).await.unwrap().len(), 20_000);
    }
}

/// A backup may hold the store for hours. The upkeep that runs by itself has other work than
/// collection, so it does not wait.
#[tokio::test]
async fn upkeep_waits_for_no_hold_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(store(dir.path()));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    world.app.upkeep().await;
    sparse(&world).await;
    seal(&*blobs, 90, LARGE, Purpose::Blob).await;
    world.pass(Duration::from_hours(25));
    let hold = world.app.hold().await;
    let upkeep = tokio::time::timeout(Duration::from_secs(5), world.app.upkeep());
    assert!(upkeep.await.is_ok(), "it waits for the hold");
    let packs = world.packs();
    assert_eq!(world.blob_files().len(), 1);
    drop(hold);
    // What was due before is still due.
    world.app.upkeep().await;
    assert_eq!(world.blob_files().len(), 0);
    assert!(world.packs() < packs);
}

#[tokio::test]
async fn a_reader_finds_a_blob_that_moved_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Faulty::new(store(dir.path())));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    let kept = sparse(&world).await;
    let app = Arc::clone(&world.app);
    let collect = Box::pin(async move { assert_eq!(app.gc().await.unwrap().packs, 3) });
    *blobs.before_open.lock().unwrap() = Some(collect);
    assert_eq!(world.read(&kept[0]).await.unwrap(), content(0, 20_000));
    assert_eq!(world.app.health().await.content.unwrap().damaged_blobs, 0);
}

/// Waits until this many callers have sealed bytes and stopped, and stops no others.
async fn until_stopped(blobs: &Faulty, callers: usize) {
    while blobs.seals.sealed.load(Ordering::SeqCst) < callers {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    blobs.seals.pause.store(false, Ordering::SeqCst);
}

/// Begins a collection, checks that it waits for the callers that were stopped, and lets those go
/// on.
async fn collect_and_go_on(world: &World, blobs: &Faulty) -> JoinHandle<Collected> {
    let app = Arc::clone(&world.app);
    let gc = tokio::spawn(async move { app.gc().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!gc.is_finished(), "it waits for them");
    blobs.seals.go_on.notify_waiters();
    gc
}

/// However old the bytes look, the caller that sealed them is about to record them.
#[tokio::test]
async fn bytes_on_their_way_to_a_record_stay() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Faulty::new(store(dir.path())));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    let upload = init(&world.app, LARGE as u64).await;
    blobs.seals.pause.store(true, Ordering::SeqCst);
    let spawn_put = |content| {
        let app = Arc::clone(&world.app);
        tokio::spawn(async move { put(&app, "f", &content).await.unwrap() })
    };
    let (small, large) = (spawn_put(content(1, 20_000)), spawn_put(content(2, LARGE)));
    let of_upload = tokio::spawn({
        let app = Arc::clone(&world.app);
        async move { part(&app, upload, 1, &content(3, LARGE)).await }
    });
    until_stopped(&blobs, 3).await;
    // These blobs close the pack of the small one.
    for seed in 4..10 {
        world.put(&content(seed, 20_000)).await;
    }
    world.pass(TTL.saturating_sub(MARGIN));
    let gc = collect_and_go_on(&world, &blobs).await;
    of_upload.await.unwrap().unwrap();
    gc.await.unwrap();
    for (file, content) in [(small, content(1, 20_000)), (large, content(2, LARGE))] {
        assert_eq!(world.read(&file.await.unwrap()).await.unwrap(), content);
    }
    let file = complete(&world.app, upload).await.unwrap();
    assert_eq!(world.read(&file).await.unwrap(), content(3, LARGE));
}

/// As above, but the pack alone is at risk.
#[tokio::test]
async fn a_pack_whose_blob_is_on_its_way_to_a_record_stays() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Faulty::new(store(dir.path())));
    let world = World::new(dir.path(), Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    blobs.seals.pause.store(true, Ordering::SeqCst);
    let app = Arc::clone(&world.app);
    let small = tokio::spawn(async move { put(&app, "f", &content(1, 20_000)).await.unwrap() });
    until_stopped(&blobs, 1).await;
    let mut others = Vec::new();
    for seed in 4..10 {
        others.push(world.put(&content(seed, 20_000)).await);
    }
    for file in &others {
        world.delete(file).await;
    }
    world.pass(GRACE + MARGIN);
    let gc = collect_and_go_on(&world, &blobs).await;
    let file = small.await.unwrap();
    gc.await.unwrap();
    assert_eq!(world.read(&file).await.unwrap(), content(1, 20_000));
}
