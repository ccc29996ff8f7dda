//! Sends one sequence of requests to two apps, one over the memory engines and one over sled and
//! the disk: they answer the same, whatever is asked in whatever order.

use std::{
    fmt::Debug,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::{Builder, Runtime};

use super::{KEYS, NOW};
use crate::{
    app::{
        App, Error, Policy, Result,
        append::{Arrival, Claim, Ends, Piece, Progress},
        archive::Chosen,
        catalog::Listing,
        complete::{Completed, Completion},
        gc::Collected,
        publish::NewContent,
        upload::{DeclaredFile, Init, Opened, Status},
    },
    auth::{jwt::Expected, link::LinkKey},
    blob::{BlobStore, Reader, disk::DiskBlobs, memory::MemoryBlobs},
    meta::{
        Metadata,
        accounts::{Edit, UserChange},
        memory::MemoryMetadata,
        sled::SledMetadata,
    },
    model::{
        digest::Sha256,
        file::{CallerMeta, FileRecord},
        id::{PartNumber, UploadId},
        name::{FileName, Folder, UserId},
        principal::{Principal, Role, TokenStamp},
        range::Slice,
        upload::{Mode, Upload, UploadState},
    },
    sys::clock::{Clock, ManualClock},
};

const STEPS_MAX: usize = 48;
const TTL: Duration = Duration::from_hours(24);
const QUOTA: u64 = 300_000;
const USERS: [&str; 2] = ["u", "v"];
const FOLDERS: [&str; 4] = ["", "a", "a/b", "A"];

/// The input, read as decisions; at its end, the first choice is always taken.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[usize::from(self.byte()) % N]
    }

    /// One of the things that exist by now.
    fn known<T: Clone>(&mut self, known: &[T]) -> Option<T> {
        known.get(usize::from(self.byte()) % known.len().max(1)).cloned()
    }

    /// A content with a size at which something changes: packed or not, one group of the tree or
    /// more.
    fn content(&mut self) -> Bytes {
        let size = self.of([0, 1, 100, 1000, 4096, 65_535, 65_536, 65_537, 131_073]);
        let seed = self.byte() % 4;
        (0..=250).cycle().take(size).map(|at: u8| at.wrapping_add(seed)).collect()
    }

    fn user(&mut self) -> UserId {
        UserId::parse(self.of(USERS)).expect("a user's id")
    }

    fn principal(&mut self) -> Principal {
        let (id, token) = (self.user(), TokenStamp::default());
        let role = self.of([Role::Researcher, Role::Researcher, Role::Admin, Role::Viewer]);
        Principal::User { id, role, token }
    }

    fn name(&mut self) -> FileName {
        FileName::parse(self.of(["f", "F", "g.txt", "é", "e\u{301}"])).expect("a name")
    }

    fn folder(&mut self) -> Folder {
        Folder::parse(self.of(FOLDERS)).expect("a folder")
    }
}

/// The same thing in each of the two apps.
type Both<T> = [T; 2];

struct Pair {
    apps: Both<Arc<App>>,
    /// The index of the model, which is the app over the memory engines.
    meta: Arc<dyn Metadata>,
    clock: Arc<ManualClock>,
    uploads: Vec<Both<UploadId>>,
    /// The uploads that are batches, by their ids in the model.
    batches: Vec<UploadId>,
    files: Vec<Both<FileRecord>>,
}

/// See the module.
pub fn sequence(input: &[u8]) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("threads")
    });
    static WORLDS: AtomicU64 = AtomicU64::new(0);
    let number = WORLDS.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("streamlined-{}-{number}", std::process::id()));
    let mut pair = Pair::open(&dir).expect("two stores");
    let mut dice = Dice(input);
    RUNTIME.block_on(async {
        for _ in 0..STEPS_MAX {
            if !dice.0.is_empty() {
                pair.step(&mut dice, &dir).await;
            }
        }
        pair.agree().await;
    });
    drop(pair);
    let _ = fs::remove_dir_all(dir);
}

pub(super) fn app(
    dir: &Path,
    meta: Arc<dyn Metadata>,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<ManualClock>,
) -> io::Result<Arc<App>> {
    let policy = Policy {
        file_bytes_max: 200_000,
        part_bytes_max: 100_000,
        quota_bytes: QUOTA,
        upload_ttl: TTL,
        reclaim_grace: Duration::from_hours(1),
        scrub_every: Duration::from_hours(24),
        scrub_bytes_per_second: u64::MAX,
        public_read: false,
        tokens: Expected { issuer: "i".into(), audience: "a".into() },
    };
    let links = LinkKey::open(&dir.join("keys"))?;
    Ok(App::new(meta, blobs, Arc::clone(&KEYS.0), links, clock, policy))
}

fn durable(dir: &Path, clock: Arc<ManualClock>) -> io::Result<Arc<App>> {
    let meta = SledMetadata::open(dir, 1 << 20, 1 << 20).map_err(io::Error::other)?;
    app(dir, Arc::new(meta), Arc::new(DiskBlobs::open(dir, 64 << 10)?), clock)
}

pub(super) fn researcher(id: &UserId) -> Principal {
    Principal::User { id: id.clone(), role: Role::Researcher, token: TokenStamp::default() }
}

/// A refusal as a client sees it, without random values.
fn told(error: &Error) -> String {
    match error {
        Error::Invalid { code, .. } | Error::Conflict { code, .. } => (*code).into(),
        Error::NoSuchFiles(keys) => format!("{} files are not there", keys.len()),
        Error::FilesGone(ids) => format!("{} files are gone", ids.len()),
        Error::Internal(why) | Error::Unavailable(why) => panic!("it failed: {why}"),
        Error::OfUpload(_, error) => format!("one of a batch: {}", told(error)),
        error => format!("{error:?}"),
    }
}

fn seen(file: &FileRecord) -> impl Debug + PartialEq + use<> {
    let FileRecord { id, owner, name, folder, size, mime, sha256, blake3, .. } = file.clone();
    (owner, name, folder, size, mime, sha256, blake3, id.created())
}

fn stands(upload: &Upload) -> impl Debug + Ord + use<> {
    let place = (upload.owner.as_str().to_owned(), upload.folder.as_str().to_owned());
    let open = upload.state == UploadState::Open;
    (place, upload.name.as_str().to_owned(), upload.size, upload.received, upload.expires, open)
}

async fn read(mut reader: Box<dyn Reader>) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    while let Some(bytes) = reader.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

impl Pair {
    fn open(dir: &PathBuf) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let clock = Arc::new(ManualClock::new(NOW));
        let meta: Arc<dyn Metadata> = Arc::new(MemoryMetadata::default());
        let blobs = Arc::new(MemoryBlobs::default());
        let model = app(dir, Arc::clone(&meta), blobs, Arc::clone(&clock))?;
        let durable = durable(dir, Arc::clone(&clock))?;
        Ok(Self {
            apps: [model, durable],
            meta,
            clock,
            uploads: Vec::new(),
            batches: Vec::new(),
            files: Vec::new(),
        })
    }

    /// Sends a request to both apps, compares their answers, and answers them if they are no
    /// refusal.
    async fn ask<T, S: Debug + PartialEq>(
        &self,
        what: &str,
        ask: impl AsyncFn(&Arc<App>, usize) -> Result<T>,
        seen: impl Fn(&T) -> S,
    ) -> Option<Both<T>> {
        let [model, durable] = &self.apps;
        let (one, other) = (ask(model, 0).await, ask(durable, 1).await);
        let told = |answer: &Result<T>| answer.as_ref().map(&seen).map_err(told);
        assert_eq!(told(&one), told(&other), "the engines do not agree: {what}");
        Some([one.ok()?, other.ok()?])
    }

    async fn step(&mut self, dice: &mut Dice<'_>, dir: &Path) {
        match dice.byte() % 16 {
            0 | 1 => self.put(dice).await,
            2 | 3 => self.init(dice).await,
            4..=6 => self.part(dice).await,
            7 => self.append(dice).await,
            8 | 9 => self.complete(dice).await,
            10 => self.end(dice).await,
            11 => self.delete(dice).await,
            12 => self.archive(dice).await,
            13 => self.pass(dice).await,
            14 => self.user(dice).await,
            _ => self.reopen(dice, dir).await,
        }
    }

    async fn put(&mut self, dice: &mut Dice<'_>) {
        let (owner, name, folder) = (dice.user(), dice.name(), dice.folder());
        let (content, sha256) = (dice.content(), (dice.byte() == 1).then_some(Sha256([0; 32])));
        let put = async |app: &Arc<App>, _| {
            app.check_room(&owner, content.len() as u64).await?;
            let mut incoming = app.begin_file().await?;
            incoming.write(content.clone()).await?;
            let (owner, name, folder) = (owner.clone(), name.clone(), folder.clone());
            let principal = researcher(&owner);
            let new = NewContent { owner, name, folder, mime: None, sha256, content: incoming };
            app.put_content(&principal, new).await
        };
        let stored = self.ask("put", put, seen).await;
        self.files.extend(stored);
    }

    async fn init(&mut self, dice: &mut Dice<'_>) {
        let principal = dice.principal();
        let modes = [Mode::Single, Mode::Chunked, Mode::Batch, Mode::Stream, Mode::Growing];
        let (mode, folder) = (dice.of(modes), dice.folder());
        let count = if mode == Mode::Batch { 1 + dice.byte() % 3 } else { 1 };
        let mut names = Vec::new();
        for _ in 0..count {
            let size = if mode == Mode::Growing { 0 } else { dice.content().len() as u64 };
            names.push((dice.name(), size));
        }
        let init = async |app: &Arc<App>, _| {
            let file = |(name, size): &(FileName, u64)| DeclaredFile {
                name: name.clone(),
                size: *size,
                mime: None,
                sha256: None,
                blake3: None,
            };
            let files = names.iter().map(file).collect();
            let (folder, meta) = (folder.clone(), CallerMeta::default());
            app.init_upload(&principal, Init { mode, files, folder, meta, user: None }).await
        };
        let seen =
            |opened: &Opened| (opened.part_size, opened.parts, opened.expires, opened.batch.len());
        let Some([one, other]) = self.ask("init", init, seen).await else { return };
        self.uploads.push([one.id, other.id]);
        self.batches.extend((mode == Mode::Batch).then_some(one.id));
        let of_batch = one.batch.iter().zip(&other.batch);
        self.uploads.extend(of_batch.map(|((one, _), (other, _))| [*one, *other]));
    }

    /// A session, or a batch that still has one: engines may differ in how long they keep an empty
    /// batch.
    async fn upload(&self, dice: &mut Dice<'_>) -> Option<Both<UploadId>> {
        let id = dice.known(&self.uploads)?;
        let Some(batch) = self.meta.batch(id[0]).await.ok()? else {
            return Some(id).filter(|[model, _]| !self.batches.contains(model));
        };
        for session in batch.uploads {
            if self.meta.upload(session).await.ok()?.is_some() {
                return Some(id);
            }
        }
        None
    }

    async fn part(&mut self, dice: &mut Dice<'_>) {
        let (Some(id), principal) = (self.upload(dice).await, dice.principal()) else { return };
        let number = PartNumber(u32::from(dice.byte() % 5));
        let (content, sha256) = (dice.content(), (dice.byte() == 1).then_some(Sha256([0; 32])));
        let part = async |app: &Arc<App>, at: usize| {
            let mut incoming = app.begin_part().await?;
            incoming.write(content.clone()).await?;
            app.finish_part(&principal, id[at], number, incoming, sha256).await
        };
        self.ask("part", part, |size| *size).await;
        self.status(&principal, id).await;
    }

    async fn status(&self, principal: &Principal, id: Both<UploadId>) {
        let status = async |app: &Arc<App>, at: usize| app.upload_status(principal, id[at]).await;
        let seen = |status: &Status| {
            let parts = status.parts.iter().map(|part| (part.number, part.size, part.sha256));
            (format!("{:?}", stands(&status.upload)), parts.collect::<Vec<_>>())
        };
        self.ask("status", status, seen).await;
    }

    async fn append(&mut self, dice: &mut Dice<'_>) {
        let (Some(id), principal) = (self.upload(dice).await, dice.principal()) else { return };
        let (content, claimed) = (dice.content(), dice.byte());
        let size = (dice.byte() == 1).then_some(content.len() as u64);
        let cut = dice.byte() == 1;
        let seen = |progress: &Progress| {
            (progress.offset, progress.size, progress.file.as_ref().map(seen))
        };
        let progress = async |app: &Arc<App>, at: usize| app.progress(&principal, id[at]).await;
        let stands = self.ask("progress", progress, seen).await;
        let offset = stands.map_or(0, |[one, _]| one.offset) + u64::from(claimed == 1);
        let append = async |app: &Arc<App>, at: usize| {
            let announced = (!cut).then_some(content.len() as u64);
            let claim = Claim { offset, size, announced, ends: Ends::Itself, whole: None };
            let end = cut.then_some(Err(Error::BodyAborted));
            let content =
                stream::iter([Ok(Arrival::Bytes(content.clone()))].into_iter().chain(end));
            app.append(&principal, id[at], Piece { claim, checksum: None, content }).await
        };
        let appended = self.ask("append", append, seen).await;
        let both = appended.and_then(|[one, other]| Some([one.file?, other.file?]));
        self.files.extend(both);
    }

    async fn complete(&mut self, dice: &mut Dice<'_>) {
        let (Some(id), principal) = (self.upload(dice).await, dice.principal()) else { return };
        let renamed = (dice.byte() == 1).then(|| (dice.name(), dice.folder()));
        let inline = (dice.byte() == 1).then(|| dice.content());
        let sha256 = (dice.byte() == 1).then_some(Sha256([0; 32]));
        let complete = async |app: &Arc<App>, at: usize| {
            let (name, folder) = renamed.clone().unzip();
            let inline = match &inline {
                Some(content) => {
                    let mut incoming = app.begin_file().await?;
                    incoming.write(content.clone()).await?;
                    Some(incoming)
                }
                None => None,
            };
            let (id, meta) = (id[at], CallerMeta::default());
            let completion =
                Completion { sha256, name, folder, meta, inline, ..Completion::of(id) };
            Ok(match app.complete_upload(&principal, completion).await? {
                Completed::One(file) => vec![*file],
                Completed::Batch(files) => files,
            })
        };
        let seen = |files: &Vec<FileRecord>| files.iter().map(seen).collect::<Vec<_>>();
        let Some([one, other]) = self.ask("complete", complete, seen).await else { return };
        self.files.extend(one.into_iter().zip(other).map(<[_; 2]>::from));
    }

    async fn end(&mut self, dice: &mut Dice<'_>) {
        let (Some(id), principal) = (self.upload(dice).await, dice.principal()) else { return };
        let abort = async |app: &Arc<App>, at: usize| app.abort_upload(&principal, id[at]).await;
        self.ask("abort", abort, |()| ()).await;
        self.status(&principal, id).await;
    }

    async fn delete(&mut self, dice: &mut Dice<'_>) {
        let (Some(file), principal) = (dice.known(&self.files), dice.principal()) else { return };
        let delete = async |app: &Arc<App>, at: usize| {
            app.delete_file(&principal, file[at].key.clone()).await
        };
        self.ask("delete", delete, |_| ()).await;
    }

    async fn archive(&mut self, dice: &mut Dice<'_>) {
        let principal = dice.principal();
        let (owner, folder) = (dice.user(), dice.folder());
        let chosen = [dice.known(&self.files), dice.known(&self.files)];
        if self.files.len() >= 20 {
            return;
        }
        let by_folder = dice.byte() == 1;
        let fetch = async |app: &Arc<App>, at: usize| {
            let keys = chosen.iter().flatten().map(|file| file[at].key.clone()).collect();
            let listing = Listing { owner: owner.clone(), folder: folder.clone() };
            let chosen = if by_folder { Chosen::Folder(listing) } else { Chosen::Keys(keys) };
            let token = app.mint_batch_token(&principal, chosen).await?;
            let archive = app.open_archive(&token).await?;
            let whole = Slice::whole(archive.bytes());
            let bytes = read(archive.reader(whole)).await?;
            assert_eq!(bytes.len() as u64, whole.end);
            Ok(bytes)
        };
        self.ask("fetch", fetch, |bytes| blake3::hash(bytes)).await;
    }

    async fn pass(&mut self, dice: &mut Dice<'_>) {
        let minutes = dice.of([1, 30, 61, 12 * 60, 24 * 60, 49 * 60]);
        self.clock.set(self.clock.now().after(Duration::from_mins(minutes)));
        let sweep = async |app: &Arc<App>, _| {
            // A batch is removed with its last session, or in the next round.
            app.sweep(&mut Collected::default()).await?;
            app.sweep(&mut Collected::default()).await
        };
        self.ask("sweep", sweep, |()| ()).await;
    }

    async fn user(&mut self, dice: &mut Dice<'_>) {
        let (user, what) = (dice.user(), dice.byte() % 4);
        let quota = dice.of([Edit::Set(0), Edit::Set(1000), Edit::Set(100_000), Edit::Clear]);
        let change = async |app: &Arc<App>, _| {
            if what == 0 {
                return app.delete_user(user.clone()).await;
            }
            let change = UserChange { quota, ..UserChange::default() };
            app.change_user(user.clone(), change, false).await.map(drop)
        };
        self.ask("change", change, |()| ()).await;
    }

    /// Closes the stores and opens them again.
    async fn reopen(&mut self, dice: &mut Dice<'_>, dir: &Path) {
        if dice.byte().is_multiple_of(4) {
            // A new process restarts the counter of files within a millisecond.
            self.clock.set(self.clock.now().after(Duration::from_millis(1)));
            let [model, old] = self.apps.clone();
            old.finish().await;
            self.apps = [Arc::clone(&model), model];
            drop(old);
            self.apps[1] = durable(dir, Arc::clone(&self.clock)).expect("the same stores");
        }
        self.agree().await;
    }

    /// Checks that everything that can be observed is the same in both apps.
    async fn agree(&self) {
        for id in USERS.map(UserId::parse).into_iter().flatten() {
            for folder in FOLDERS.map(Folder::parse).into_iter().flatten() {
                let listing = Listing { owner: id.clone(), folder };
                let totals = async |app: &Arc<App>, _| app.totals(&listing).await;
                self.ask("totals", totals, |totals| format!("{totals:?}")).await;
                let list = async |app: &Arc<App>, _| app.list_files(&listing, None, 1000).await;
                let seen = |files: &Vec<FileRecord>| files.iter().map(seen).collect::<Vec<_>>();
                self.ask("list", list, seen).await;
            }
            let principal = researcher(&id);
            let uploads =
                async |app: &Arc<App>, _| app.list_uploads(&principal, None, None, 1000).await;
            let sorted = |uploads: &Vec<Upload>| {
                let mut uploads: Vec<_> = uploads.iter().map(stands).collect();
                uploads.sort();
                uploads
            };
            self.ask("uploads", uploads, sorted).await;
            let user = async |app: &Arc<App>, _| app.show_user(&id).await;
            self.ask("user", user, |user| (format!("{:?}", user.totals), user.record.reserved))
                .await;
        }
        for file in &self.files {
            let content = async |app: &Arc<App>, at: usize| {
                let file = app.file_for_anyone(&file[at].key).await?;
                read(app.open_content(&file, Slice::whole(file.size)).await?).await
            };
            let stored = self.ask("content", content, |bytes| blake3::hash(bytes)).await;
            let intact =
                stored.is_none_or(|[one, _]| blake3::hash(&one).as_bytes() == &file[0].blake3.0);
            assert!(intact, "a file is not what was stored");
        }
    }
}
