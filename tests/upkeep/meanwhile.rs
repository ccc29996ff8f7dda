//! Parts that are sent again while other steps rely on them, and stored copies that differ from
//! what was received.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use streamlined::{
    app::{
        App, Error,
        append::{Arrival, Claim, Content, Ends, Piece},
        complete::{Completed, Completion},
        gc::Collected,
        upload::{DeclaredFile, Init},
    },
    blob::disk::DiskBlobs,
    meta::{Metadata, memory::MemoryMetadata},
    metrics::stores,
    model::{
        digest::Sha256,
        file::CallerMeta,
        id::{PartNumber, UploadId},
        name::{FileName, Folder},
        upload::{Mode, tail},
    },
    sys::clock::Clock,
};

use crate::{
    faulty::Faulty,
    world::{TTL, World, complete, content, flip, init_as, init_of, read, store, user},
};

const LARGE: usize = 95_000;

async fn world(dir: &Path) -> (World, Arc<Faulty>) {
    let blobs = Arc::new(Faulty::new(store(dir)));
    let world = World::new(dir, Arc::new(MemoryMetadata::default()), blobs.clone()).await;
    (world, blobs)
}

/// Sends a part whose length is announced.
async fn put(app: &Arc<App>, id: UploadId, number: u32, content: &Bytes) {
    let (number, said) = (PartNumber(number), Some(content.len() as u64));
    let mut incoming = app.begin_part_of(id, number, said).await.unwrap();
    incoming.write(content.clone()).await.unwrap();
    app.finish_part(&user(), id, number, incoming, None).await.unwrap();
}

/// Sets what runs once, in a hook between two steps of others.
fn will(
    hook: &Mutex<Option<BoxFuture<'static, ()>>>,
    meanwhile: impl Future<Output = ()> + Send + 'static,
) {
    *hook.lock().unwrap() = Some(meanwhile.boxed());
}

async fn append(app: &Arc<App>, id: UploadId, bytes: Bytes) -> Result<(), Error> {
    let announced = Some(bytes.len() as u64);
    append_from(app, id, announced, stream::iter([Ok(Arrival::Bytes(bytes))])).await
}

async fn append_from(
    app: &Arc<App>,
    id: UploadId,
    announced: Option<u64>,
    content: impl Content,
) -> Result<(), Error> {
    let offset = tail(&app.upload_status(&user(), id).await.unwrap().parts).offset;
    let claim = Claim { offset, size: None, announced, ends: Ends::Itself, whole: None };
    app.append(&user(), id, Piece { claim, checksum: None, content }).await.map(drop)
}

fn is_changed<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Conflict { code: "upload_changed", .. }))
}

#[tokio::test]
async fn a_part_sent_again_while_the_last_one_is_continued_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let app = &world.app;
    let id = init_as(app, Mode::Growing, 0).await;
    for number in 1..=3 {
        put(app, id, number, &content(number.into(), LARGE)).await;
    }
    // After this the last part lies in another place of the assembly than before.
    let (small, again) = (content(4, 10), content(5, 70_000));
    let meanwhile = {
        let (app, small, again) = (Arc::clone(app), small.clone(), again.clone());
        async move {
            put(&app, id, 2, &small).await;
            put(&app, id, 3, &again).await;
        }
    };
    will(&blobs.before_part, meanwhile);
    let appended = append(app, id, content(6, 300_000)).await;
    assert!(is_changed(&appended), "{appended:?}");
    let file = complete(app, id).await.unwrap();
    let whole = [content(1, LARGE), small, again].concat();
    assert!(read(app, &file).await.unwrap() == whole);
}

#[tokio::test]
async fn a_last_part_that_is_sent_again_while_it_is_read_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let app = &world.app;
    let id = init_as(app, Mode::Growing, 0).await;
    for number in [1, 2, 2] {
        // The second part 2 lies in a file of its own, which is removed when that part is replaced.
        put(app, id, number, &content(number.into(), LARGE)).await;
    }
    let meanwhile = {
        let app = Arc::clone(app);
        async move { put(&app, id, 2, &content(9, LARGE)).await }
    };
    will(&blobs.before_open, meanwhile);
    let appended = append(app, id, content(6, 10)).await;
    assert!(is_changed(&appended), "{appended:?}");
}

async fn init_batch(app: &Arc<App>, size: u64) -> (UploadId, Vec<UploadId>) {
    let file = |name| {
        let (mime, sha256, blake3) = (None, None, None);
        DeclaredFile { name: FileName::parse(name).unwrap(), size, mime, sha256, blake3 }
    };
    let init = Init {
        mode: Mode::Batch,
        files: ["a", "b"].map(file).into(),
        folder: Folder::default(),
        meta: CallerMeta::default(),
        user: None,
    };
    let opened = app.init_upload(&user(), init).await.unwrap();
    (opened.id, opened.batch.iter().map(|(id, _)| *id).collect())
}

#[tokio::test]
async fn a_part_of_a_batch_that_is_sent_again_while_it_is_joined_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let app = &world.app;
    let (batch, ids) = init_batch(app, LARGE as u64).await;
    for id in &ids {
        put(app, *id, 1, &content(1, LARGE)).await;
    }
    let meanwhile = {
        let (app, id) = (Arc::clone(app), ids[0]);
        async move { put(&app, id, 1, &content(2, LARGE)).await }
    };
    will(&blobs.before_join, meanwhile);
    let completed = app.complete_upload(&user(), Completion::of(batch)).await.map(drop);
    let Err(Error::OfUpload(id, error)) = completed else { panic!("{completed:?}") };
    assert!(id == ids[0] && is_changed(&Err::<(), _>((*error).clone())), "{error:?}");
    app.complete_upload(&user(), Completion::of(batch)).await.unwrap();
}

/// The running digests cover what was received, not what the disk made of it.
#[tokio::test]
async fn a_copy_that_is_not_what_came_replaces_none_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let app = &world.app;
    let parts = [content(1, LARGE), content(2, LARGE)];
    let whole = Bytes::from(parts.concat());
    let first = world.put(&whole).await;
    let send = async || {
        let id = init_as(app, Mode::Chunked, whole.len() as u64).await;
        for (number, part) in (1..).zip(&parts) {
            put(app, id, number, part).await;
        }
        id
    };
    let id = send().await;
    flip(&world.files("staging").pop().unwrap(), LARGE + 7);
    let completed = complete(app, id).await;
    assert!(matches!(&completed, Err(Error::PartsDamaged(it)) if it == &[2]), "{completed:?}");
    assert!(world.read(&first).await.unwrap() == whole);
    put(app, id, 2, &parts[1]).await;
    let second = complete(app, id).await.unwrap();
    for file in [&first, &second] {
        assert!(world.read(file).await.unwrap() == whole);
    }
    // A damaged blob is healed by good parts of the same content.
    flip(&world.blob_files().pop().unwrap(), 7);
    world.read(&first).await.unwrap_err();
    let third = complete(app, send().await).await.unwrap();
    for file in [first, second, third] {
        assert!(world.read(&file).await.unwrap() == whole);
    }
}

/// The same holds for a small copy, in a pack or in a file of its own.
#[tokio::test]
async fn a_small_copy_that_is_not_what_came_replaces_none_that_is() {
    const SMALL: usize = 50_000;
    for (pack_bytes_max, shelf) in [(64 << 10, "blobs/packs"), (0, "staging")] {
        let dir = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open_with(dir.path(), pack_bytes_max, 62_000).unwrap();
        let meta = Arc::new(MemoryMetadata::default());
        let world = World::new(dir.path(), meta, Arc::new(blobs)).await;
        let app = &world.app;
        let whole = content(1, SMALL);
        let first = world.put(&whole).await;
        let id = init_as(app, Mode::Single, SMALL as u64).await;
        put(app, id, 1, &whole).await;
        // A pack holds one of the two copies, so the last file holds the part.
        flip(&world.files(shelf).into_iter().max().unwrap(), SMALL / 2);
        let completed = complete(app, id).await;
        assert!(matches!(&completed, Err(Error::PartsDamaged(it)) if it == &[1]), "{completed:?}");
        assert!(world.read(&first).await.unwrap() == whole);
        put(app, id, 1, &whole).await;
        let second = complete(app, id).await.unwrap();
        assert!(world.read(&second).await.unwrap() == whole);
    }
}

/// When two uploads of the same content are completed at once, neither copy is read before its
/// record, because the content is not known yet.
#[tokio::test]
async fn a_copy_that_is_not_what_came_replaces_none_that_came_meanwhile() {
    assert_eq!(meet(false).await, (1, 2));
}

/// A copy that cannot be read just now is not known to be damaged, nor is the other one known to be
/// good: both stay.
#[tokio::test]
async fn a_copy_that_cannot_be_read_is_no_damaged_one() {
    assert_eq!(meet(true).await, (0, 3));
}

/// Completes the same content twice at once, where either a byte of the later copy is wrong or
/// nothing can be read. Answers how much damage was found and how many blobs lie there then; one of
/// them has another content.
async fn meet(is_unreadable: bool) -> (u64, usize) {
    let damage_found = || stores::DAMAGE_FOUND.of("complete").get();
    let before = damage_found();
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let app = &world.app;
    let parts = [content(1, LARGE), content(2, LARGE)];
    let send = async |id, parts: &[Bytes]| {
        for (number, part) in (1..).zip(parts) {
            put(app, id, number, part).await;
        }
    };
    let (batch, ids) = init_batch(app, 2 * LARGE as u64).await;
    send(ids[0], &parts).await;
    if !is_unreadable {
        flip(&world.files("staging").pop().unwrap(), 7);
    }
    send(ids[1], &[content(3, LARGE), content(4, LARGE)]).await;
    let id = init_as(app, Mode::Chunked, 2 * LARGE as u64).await;
    send(id, &parts).await;
    // The first file of the batch waits for its record when another upload records the same
    // content.
    let first = Arc::new(Mutex::new(None));
    let meanwhile = {
        let (app, first, blobs) = (Arc::clone(app), first.clone(), blobs.clone());
        async move {
            will(&blobs.clone().before_join, async move {
                let file = complete(&app, id).await.unwrap();
                *first.lock().unwrap() = Some(file);
                blobs.unreadable.store(is_unreadable, Ordering::SeqCst);
            });
        }
    };
    will(&blobs.before_join, meanwhile);
    let completed = app.complete_upload(&user(), Completion::of(batch)).await.unwrap();
    let Completed::Batch(files) = completed else { panic!("a batch") };
    let first = first.lock().unwrap().take().unwrap();
    assert_eq!(first.blake3, files[0].blake3);
    for file in [&first, &files[0]] {
        assert!(world.read(file).await.unwrap() == parts.concat());
    }
    (damage_found() - before, world.blob_files().len())
}

/// More than its whole lifetime passes between the request to complete it and the join.
#[tokio::test]
async fn an_upload_does_not_expire_while_it_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let (world, blobs) = world(dir.path()).await;
    let app = &world.app;
    let later = || {
        let (app, clock) = (Arc::clone(app), Arc::clone(&world.clock));
        async move {
            clock.set(clock.now().after(TTL * 2));
            app.sweep(&mut Collected::default()).await.unwrap();
        }
    };
    let id = init_as(app, Mode::Chunked, 2 * LARGE as u64).await;
    for number in [2, 1] {
        put(app, id, number, &content(number.into(), LARGE)).await;
    }
    will(&blobs.before_join, later());
    let file = complete(app, id).await.unwrap();
    assert!(world.read(&file).await.unwrap() == [content(1, LARGE), content(2, LARGE)].concat());
    // The same holds for the uploads of a batch and for the partial uploads of a final one.
    let (batch, ids) = init_batch(app, LARGE as u64).await;
    for id in &ids {
        put(app, *id, 1, &content(3, LARGE)).await;
    }
    will(&blobs.before_join, later());
    app.complete_upload(&user(), Completion::of(batch)).await.unwrap();
    let mut partials = Vec::new();
    for seed in 4..6 {
        partials.push(init_as(app, Mode::Partial, LARGE as u64).await);
        put(app, partials[partials.len() - 1], 1, &content(seed, LARGE)).await;
    }
    will(&blobs.before_join, later());
    let whole = app.concatenate(&user(), init_of(Mode::Final, 0), partials).await.unwrap();
    let file = whole.file.unwrap();
    assert!(world.read(&file).await.unwrap() == [content(4, LARGE), content(5, LARGE)].concat());
}

/// A client that asks for the progress of an upload gets it, even when damage is found on the way.
#[tokio::test]
async fn an_upload_that_is_whole_but_damaged_tells_where_it_goes_on() {
    // The client that completes the upload by its id may not be the one that wrote it.
    for completes_by_id in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(MemoryMetadata::default());
        let world =
            async || World::new(dir.path(), meta.clone(), Arc::new(store(dir.path()))).await;
        let before = world().await;
        let id = init_as(&before.app, Mode::Stream, 3 * LARGE as u64).await;
        for number in 1..=3 {
            put(&before.app, id, number, &content(number.into(), LARGE)).await;
        }
        flip(&before.files("staging").pop().unwrap(), LARGE + 7);
        // After the restart no running digests are left.
        let after = world().await;
        if completes_by_id {
            assert!(complete(&after.app, id).await.is_err());
        }
        let progress = after.app.progress(&user(), id).await.unwrap();
        assert_eq!((progress.offset, progress.file.is_none()), (LARGE as u64, true));
        assert_eq!(meta.parts(id).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_a_replaced_part_took_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let app = &world.app;
    let id = init_as(app, Mode::Growing, 0).await;
    put(app, id, 1, &content(1, 1 << 20)).await;
    let assembly = world.files("staging").pop().unwrap();
    let took = || assembly.metadata().unwrap().blocks() * 512;
    assert!(took() >= 1 << 20);
    put(app, id, 1, &content(2, 10)).await;
    assert_eq!(took(), 0);
    // The file becomes a small blob, so nothing of the assembly stays.
    complete(app, id).await.unwrap();
    assert_eq!(world.files("staging"), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_is_refused_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (world, _) = world(dir.path()).await;
    let app = &world.app;
    let large = content(1, 1 << 20);
    let id = init_as(app, Mode::Growing, 0).await;
    let said = Some(large.len() as u64);
    let mut incoming = app.begin_part_of(id, PartNumber(1), said).await.unwrap();
    incoming.write(large.clone()).await.unwrap();
    let wrong = Some(Sha256([0; 32]));
    app.finish_part(&user(), id, PartNumber(1), incoming, wrong).await.unwrap_err();
    let assembly = world.files("staging").pop().unwrap();
    assert_eq!(assembly.metadata().unwrap().blocks(), 0);
    // This upload ends before the bytes come.
    let meanwhile = {
        let app = Arc::clone(app);
        async move { app.abort_upload(&user(), id).await.unwrap() }
    };
    let content = stream::once(async move {
        meanwhile.await;
        Ok(Arrival::Bytes(large))
    });
    let appended = append_from(app, id, None, content.boxed()).await;
    assert!(matches!(appended, Err(Error::NotFound(_))), "{appended:?}");
    assert_eq!(world.files("staging"), [] as [PathBuf; 0]);
}
