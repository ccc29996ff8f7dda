//! Damage is found, damaged content is refused, and it is healed.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use streamlined::{
    app::Error,
    meta::{Upkeep, memory::MemoryMetadata, upkeep::ScrubPass},
    model::{digest::ContentHash, range::Slice},
    sys::clock::Clock,
};

use crate::{
    faulty::Faulty,
    world::{GRACE, SCRUB_EVERY, World, content, flip, put, store},
};

const LARGE: usize = 300_000;

async fn world(dir: &Path) -> (World, Arc<Faulty>) {
    let blobs = Arc::new(Faulty::new(store(dir)));
    let world = World::new(dir, Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    (world, blobs)
}

async fn damaged(world: &World) -> u64 {
    world.app.health().await.content.unwrap().damaged_blobs
}

#[tokio::test]
async fn what_scrub_finds_is_refused_until_it_is_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let whole = world.put(&content(1, 10_000)).await;
    let packed = world.put(&content(2, 10_000)).await;
    let large = world.put(&content(3, LARGE)).await;
    let path = world.blob_files().pop().unwrap();
    let missing = world.put(&content(4, LARGE)).await;
    let gone = world.blob_files().into_iter().find(|file| *file != path).unwrap();
    let pack = world.files("blobs/packs").pop().unwrap();
    flip(&pack, 48 + 10_000 + 48 + 5_000);
    flip(&path, LARGE - 1);
    fs::rename(&gone, dir.path().join("gone")).unwrap();

    let pass = world.app.scrub_now(u64::MAX).await.unwrap();
    assert_eq!((pass.blobs, pass.bytes, pass.damaged, pass.unreadable), (4, 10_000, 3, 0));
    assert_eq!(damaged(&world).await, 3);
    for file in [&packed, &large, &missing] {
        for slice in [Slice::whole(file.size), Slice { start: 0, end: 1 }] {
            let refused = world.app.open_content(file, slice).await;
            assert!(matches!(refused, Err(Error::Damaged(hash)) if hash == file.blake3));
        }
    }
    assert!(world.read(&whole).await.is_ok());

    // A blob that was found damaged is good again: the next pass says so.
    fs::rename(dir.path().join("gone"), &gone).unwrap();
    assert_eq!(world.app.scrub_now(u64::MAX).await.unwrap().damaged, 2);
    assert_eq!((damaged(&world).await, world.read(&missing).await.unwrap().len()), (2, LARGE));

    // The content is stored again: the file reads the new copy, and the old one is removed.
    for (file, seed, size) in [(&packed, 2, 10_000), (&large, 3, LARGE)] {
        put(&world.app, "again", &content(seed, size)).await.unwrap();
        assert_eq!(world.read(file).await.unwrap(), content(seed, size));
    }
    assert_eq!((damaged(&world).await, path.exists()), (0, false));
}

#[tokio::test]
async fn a_reader_that_finds_damage_marks_it() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let packed = world.put(&content(1, 10_000)).await;
    let large = world.put(&content(2, LARGE)).await;
    flip(&world.files("blobs/packs").pop().unwrap(), 48 + 7);
    flip(&world.blob_files().pop().unwrap(), 5);
    assert!(matches!(world.read(&packed).await, Err(Error::Damaged(_))));
    assert_eq!(damaged(&world).await, 1);
    // A range is checked by its own group of 64 KiB. Once damage is known, no range is served.
    let (bad, good) = (Slice { start: 100, end: 200 }, Slice { start: 70_000, end: 70_100 });
    assert!(world.app.open_content(&large, good).await.is_ok());
    assert!(matches!(world.app.open_content(&large, bad).await, Err(Error::Damaged(_))));
    assert_eq!(damaged(&world).await, 2);
    assert!(matches!(world.app.open_content(&large, good).await, Err(Error::Damaged(_))));
    let missing = world.put(&content(3, LARGE)).await;
    for file in world.blob_files() {
        fs::remove_file(file).unwrap();
    }
    assert!(matches!(world.read(&missing).await, Err(Error::Damaged(_))));
    assert_eq!(damaged(&world).await, 3);
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let file = world.put(&content(1, 10_000)).await;
    blobs.unreadable.store(true, Ordering::SeqCst);
    let pass = world.app.scrub_now(u64::MAX).await.unwrap();
    assert_eq!((pass.blobs, pass.damaged, pass.unreadable), (1, 0, 1));
    assert_eq!(damaged(&world).await, 0);
    assert!(world.read(&file).await.is_ok());
}

#[tokio::test]
async fn a_pack_with_a_damaged_blob_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let mut files = Vec::new();
    for seed in 0..9 {
        files.push(world.put(&content(seed, 20_000)).await);
    }
    let pack = world.files("blobs/packs").into_iter().min().unwrap();
    flip(&pack, 48 + 10_000);
    for file in &files[1..] {
        world.delete(file).await;
    }
    world.pass(GRACE * 2);
    // Compaction itself finds the damage, and the damaged blob keeps its pack.
    let collected = world.app.gc().await.unwrap();
    assert_eq!((collected.packs, collected.moved_bytes), (1, 0));
    assert_eq!((pack.exists(), damaged(&world).await), (true, 1));
    assert_eq!(world.app.gc().await.unwrap().packs, 0);
    put(&world.app, "again", &content(0, 20_000)).await.unwrap();
    // The pack that was open before is removed with it.
    assert_eq!((world.app.gc().await.unwrap().packs, pack.exists()), (2, false));
    assert_eq!(world.read(&files[0]).await.unwrap(), content(0, 20_000));
}

#[tokio::test]
async fn passes_come_in_time_and_lateness_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    world.put(&content(1, 100)).await;
    let health = async || {
        let health = world.app.health().await.content.unwrap();
        (health.scrub_completed, health.scrub_running, health.scrub_overdue)
    };
    let look = async || world.app.scrub_when_due().await.unwrap();
    assert_eq!(health().await, (None, false, false));
    look().await;
    let first = world.clock.now();
    assert_eq!(health().await, (Some(first), false, false));
    assert_eq!(look().await, SCRUB_EVERY);
    world.pass(SCRUB_EVERY.saturating_sub(Duration::from_millis(1)));
    assert_eq!(look().await, Duration::from_millis(1));
    assert_eq!(health().await.0, Some(first));
    world.pass(Duration::from_millis(1));
    look().await;
    assert_eq!(health().await.0, Some(world.clock.now()));
    world.pass(SCRUB_EVERY * 2);
    assert!(!health().await.2);
    world.pass(Duration::from_millis(1));
    assert!(health().await.2, "two passes should have come");
    look().await;
    assert!(!health().await.2);
    // A clock that steps back does not put the next pass off.
    world.clock.set(first);
    look().await;
    assert_eq!(health().await.0, Some(first));
}

#[tokio::test]
async fn a_pass_goes_on_where_a_restart_left_it() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Arc::new(MemoryMetadata::default());
    let world = World::new(dir.path(), meta.clone(), Arc::new(store(dir.path()))).await;
    let mut hashes: Vec<ContentHash> = Vec::new();
    for seed in 0..10 {
        hashes.push(world.put(&content(seed, 100)).await.blake3);
    }
    hashes.sort();
    let began = world.clock.now();
    let pass = ScrubPass { position: Some(hashes[6]), blobs: 7, ..ScrubPass::new(began) };
    meta.save_scrub(pass).await.unwrap();
    world.pass(SCRUB_EVERY * 2 + Duration::from_secs(1));
    let health = world.app.health().await.content.unwrap();
    assert!(health.scrub_running && health.scrub_overdue, "it should have ended long ago");
    world.app.scrub_when_due().await.unwrap();
    let last = meta.scrub_state().await.unwrap().last.unwrap();
    assert_eq!((last.began, last.blobs, last.bytes), (began, 10, 300));
    assert_eq!(last.completed, Some(world.clock.now()));
}

#[tokio::test]
async fn nothing_moves_out_of_a_pack_with_a_damaged_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let mut files = Vec::new();
    for (seed, size) in [10_000, 10_000, 20_000, 20_000, 20_000, 20_000].iter().enumerate() {
        files.push(world.put(&content(seed as u64, *size)).await);
    }
    let pack = world.files("blobs/packs").into_iter().min().unwrap();
    flip(&pack, 48 + 5_000);
    assert_eq!(world.app.scrub_now(u64::MAX).await.unwrap().damaged, 1);
    for file in &files[2..] {
        world.delete(file).await;
    }
    world.pass(GRACE * 2);
    let collected = world.app.gc().await.unwrap();
    assert_eq!((collected.moved_bytes, pack.exists()), (0, true));
    assert_eq!(world.read(&files[1]).await.unwrap(), content(1, 10_000));
}

#[tokio::test]
async fn a_pass_keeps_its_place_every_thousand_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Arc::new(MemoryMetadata::default());
    let blobs = Arc::new(Faulty::new(store(dir.path())));
    let world = World::new(dir.path(), meta.clone(), blobs.clone()).await;
    let puts = (0..1_005).map(async |seed| world.put(&content(seed, 10)).await);
    futures_util::future::join_all(puts).await;
    blobs.verified_max.store(1_003, Ordering::SeqCst);
    tokio::select! {
        _ = world.app.scrub_when_due() => panic!("it is stuck"),
        () = blobs.stuck.notified() => {}
    }
    assert_eq!(meta.scrub_state().await.unwrap().running.unwrap().blobs, 1_000);
    blobs.verified_max.store(5, Ordering::SeqCst);
    world.app.scrub_when_due().await.unwrap();
    let last = meta.scrub_state().await.unwrap().last.unwrap();
    assert_eq!((last.blobs, last.bytes), (1_005, 10_050));
}
