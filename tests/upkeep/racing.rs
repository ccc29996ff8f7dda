//! Garbage collection without any grace time, in a tight loop, beside everything that clients do.
//! `SEED` repeats a run, `ROUNDS` makes it longer.

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use streamlined::{
    app::{App, Error, Policy, gc::Collected},
    meta::{Upkeep, sled::SledMetadata},
    model::{file::FileRecord, time::UnixMillis},
    sys::clock::{Clock, SystemClock},
};

use crate::world::{app, complete, content, init, part, policy, put, read, store, user};

/// A clock so far ahead of the disk's that everything on the disk looks old.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> UnixMillis {
        SystemClock.now().after(Duration::from_hours(48))
    }
}

struct Random(blake3::OutputReader);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % end as u64).unwrap()
    }

    /// One of few contents, so that clients store the same ones; some are packed, some are not.
    fn content(&mut self) -> Bytes {
        let seed = self.below(24);
        content(seed as u64, if seed.is_multiple_of(4) { 70_000 + seed } else { 3_000 * seed })
    }
}

async fn client(app: Arc<App>, mut random: Random, rounds: usize) -> Vec<(FileRecord, Bytes)> {
    let mut files: Vec<(FileRecord, Bytes)> = Vec::new();
    for _ in 0..rounds {
        match random.below(6) {
            0 | 1 => {
                let content = random.content();
                files.push((put(&app, "f", &content).await.unwrap(), content));
            }
            2 | 3 => {
                let (first, second) = (random.content(), random.content());
                let parts = random.below(2) + 1;
                let whole = if parts == 1 { first.to_vec() } else { [&*first, &*second].concat() };
                let id = init(&app, whole.len() as u64).await;
                for _ in 0..=random.below(2) {
                    part(&app, id, 1, &first).await.unwrap();
                    if parts == 2 {
                        part(&app, id, 2, &second).await.unwrap();
                    }
                }
                if random.below(5) == 0 {
                    app.abort_upload(&user(), id).await.unwrap();
                } else {
                    // A part is sent again during the completion: either that is refused because
                    // the upload changed, or it succeeds.
                    let again = part(&app, id, 1, &first);
                    let (completed, again) = tokio::join!(complete(&app, id), again);
                    let file = match completed {
                        Err(Error::Conflict { code: "upload_changed", .. }) => {
                            again.unwrap();
                            complete(&app, id).await.unwrap()
                        }
                        completed => completed.unwrap(),
                    };
                    files.push((file, whole.into()));
                }
            }
            4 if !files.is_empty() => {
                let (file, _) = files.swap_remove(random.below(files.len()));
                app.delete_file(&user(), file.key).await.unwrap();
            }
            _ if !files.is_empty() => {
                let (file, content) = &files[random.below(files.len())];
                assert!(read(&app, file).await.unwrap() == *content);
            }
            _ => {}
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collection_never_takes_what_is_in_use() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let seed = number("SEED").unwrap_or(1);
    let rounds = number("ROUNDS").unwrap_or(150);
    println!("SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let meta = Arc::new(SledMetadata::open(dir.path(), 16 << 20, 64 << 20).unwrap());
    meta.begun(UnixMillis(0)).await.unwrap();
    let grace = Duration::ZERO;
    let ttl = Duration::from_hours(1);
    let policy = Policy { reclaim_grace: grace, upload_ttl: ttl, ..policy() };
    let app = app(dir.path(), meta.clone(), Arc::new(store(dir.path())), Arc::new(Ahead), policy);

    let stop = Arc::new(AtomicBool::new(false));
    let all = Arc::new(Mutex::new(Collected::default()));
    let collecting = tokio::spawn({
        let (app, stop, all) = (Arc::clone(&app), Arc::clone(&stop), Arc::clone(&all));
        async move {
            while !stop.load(Ordering::SeqCst) {
                let collected = app.gc().await.unwrap();
                let mut all = all.lock().unwrap();
                all.blobs += collected.blobs;
                all.files += collected.files;
                all.packs += collected.packs;
                all.moved_bytes += collected.moved_bytes;
            }
        }
    });
    let has_taken = |collected: &Collected| {
        collected.blobs > 0 && collected.packs > 0 && collected.moved_bytes > 0
    };
    let mut files = Vec::new();
    // How often the collection runs beside the clients depends on the machine, so clients start
    // again, ten times at most, until it has removed blobs and packs and has moved blobs.
    for wave in 0..10_u8 {
        let clients = (0..6_u8).map(|n| {
            let mut hasher = blake3::Hasher::new();
            let random = hasher.update(&seed.to_le_bytes()).update(&[n, wave]).finalize_xof();
            tokio::spawn(client(Arc::clone(&app), Random(random), rounds))
        });
        for client in clients.collect::<Vec<_>>() {
            files.extend(client.await.unwrap());
        }
        if has_taken(&all.lock().unwrap()) {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    collecting.await.unwrap();
    println!("{} files, {:?}", files.len(), all.lock().unwrap());
    assert!(has_taken(&all.lock().unwrap()));
    for (file, content) in &files {
        assert!(read(&app, file).await.unwrap() == *content);
    }
    let pass = app.scrub_now(u64::MAX).await.unwrap();
    assert_eq!((pass.damaged, pass.unreadable), (0, 0));
    assert_eq!(meta.damaged_count().await, Ok(0));
    app.gc().await.unwrap();
    let files = app.gc().await.unwrap();
    assert_eq!(files.files, 0, "nothing is left to find");
}
