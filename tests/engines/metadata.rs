//! The metadata seam: its contract on every engine, then random steps on two engines at once.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{collection::vec, prelude::*};
use streamlined::{
    meta::{
        AppendTo, Asker, Batch, Declared, Error, Metadata, Removal, Selection, Upkeep,
        accounts::{Holder, UserChange},
        memory::MemoryMetadata,
        sled::SledMetadata,
    },
    model::{
        digest::{ContentHash, Sha256},
        file::{CallerMeta, Totals},
        id::{FileId, SelectionId, TokenId},
        locator::Locator,
        name::{FileName, Folder},
        time::UnixMillis,
        upload::{Mode, Upload},
    },
};
use tokio::runtime::Runtime;

use crate::{
    accounts::token,
    records::{file, folder, key, locator, new_file, part, upload, upload_id, user},
};

pub const NOW: UnixMillis = UnixMillis(1_000);
pub const QUOTA: u64 = 1_000;

fn sled(dir: &Path) -> SledMetadata {
    SledMetadata::open(dir, 16 << 20, 4 << 10).unwrap()
}

/// Runs a contract on every engine.
#[expect(clippy::needless_pass_by_value, reason = "reads as a block at the call")]
pub fn on_every_engine(contract: impl AsyncFn(&dyn Metadata)) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(contract(&MemoryMetadata::default()));
    runtime.block_on(contract(&sled(dir.path())));
}

#[test]
fn users_appear_once_and_tokens_are_found_by_digest() {
    on_every_engine(async |meta| {
        assert_eq!(meta.user(&user(1)).await, Ok(None));
        let made = meta.ensure_user(&user(1), NOW).await.unwrap();
        assert_eq!(meta.ensure_user(&user(1), UnixMillis(9)).await, Ok(made.clone()));
        assert_eq!(meta.user(&user(1)).await, Ok(Some(made)));
        assert_eq!(meta.has_service_tokens().await, Ok(false));
        let mut digest = [7; 32];
        let token = token(7);
        meta.add_service_token(token.clone()).await.unwrap();
        assert_eq!(meta.add_service_token(token.clone()).await, Err(Error::Exists));
        assert_eq!(meta.service_token(&digest).await, Ok(Some(token)));
        digest[31] = 0;
        assert_eq!(meta.service_token(&digest).await, Ok(None));
        assert_eq!(meta.has_service_tokens().await, Ok(true));
    });
}

#[test]
fn selections_are_kept_until_their_time_is_over() {
    on_every_engine(async |meta| {
        let id =
            |expires, digest| SelectionId { expires: UnixMillis(expires), digest: [digest; 16] };
        let files = Selection::Files((0..2500_u16).map(|n| FileId::new(NOW, n, 7)).collect());
        let tree = Selection::Folder { owner: user(1), folder: folder(2) };
        meta.add_selection(id(50, 1), files.clone()).await.unwrap();
        meta.add_selection(id(60, 2), tree.clone()).await.unwrap();
        assert_eq!(meta.selection(id(50, 1)).await, Ok(Some(files)));
        assert_eq!(meta.selection(id(60, 2)).await, Ok(Some(tree.clone())));
        for unknown in [id(50, 2), id(51, 1), id(60, 1)] {
            assert_eq!(meta.selection(unknown).await, Ok(None));
        }
        assert_eq!(meta.forget_selections(UnixMillis(49), 9).await, Ok(false));
        assert!(meta.selection(id(50, 1)).await.unwrap().is_some());
        // Each call forgets at most two records; this selection has three.
        while meta.forget_selections(UnixMillis(59), 2).await.unwrap() {}
        assert_eq!(meta.selection(id(50, 1)).await, Ok(None));
        assert_eq!(meta.selection(id(60, 2)).await, Ok(Some(tree)));
    });
}

#[test]
fn parts_replace_one_another_and_end_with_the_file() {
    on_every_engine(async |meta| {
        meta.create_uploads(vec![upload(1, 1, 10, 50)], None, Asker::Service, NOW, QUOTA)
            .await
            .unwrap();
        let record = async |n, size, place| {
            meta.record_part(upload_id(1), part(n, size, place), None, UnixMillis(60), QUOTA).await
        };
        assert_eq!(record(2, 4, 2).await, Ok(None));
        assert_eq!(record(0, 6, 0).await, Ok(None));
        assert_eq!(record(2, 3, 3).await, Ok(Some(part(2, 4, 2))));
        assert_eq!(meta.parts(upload_id(1)).await, Ok(vec![part(0, 6, 0), part(2, 3, 3)]));
        let session = meta.upload(upload_id(1)).await.unwrap().unwrap();
        assert_eq!((session.received, session.revision), (9, 3));
        assert_eq!(session.expires, UnixMillis(60));
        let is_part = |place| async move {
            meta.refers_to_part(upload_id(1), part(2, 0, 0).number, &locator(place)).await.unwrap()
        };
        assert!(is_part(3).await && !is_part(2).await);

        let new =
            |revision| vec![new_file(file(1, 0, 1, 5, 1, 9), 9, Some((upload_id(1), revision)))];
        assert_eq!(meta.record_files(new(2), NOW, QUOTA).await, Err(Error::Changed));
        let recorded = meta.record_files(new(3), UnixMillis(99), QUOTA).await.unwrap();
        assert_eq!(recorded[0].parts, [part(0, 6, 0), part(2, 3, 3)]);
        assert_eq!(meta.record_files(new(3), NOW, QUOTA).await, Err(Error::Closed));
        assert_eq!(record(1, 1, 1).await, Err(Error::Closed));
        assert_eq!(meta.parts(upload_id(1)).await, Ok(vec![]));
        assert_eq!(meta.uploads_of(&user(1), None, 9).await, Ok(vec![]));
        let remove = async |removal| meta.remove_upload(upload_id(1), removal).await;
        assert_eq!(remove(Removal::Open).await, Err(Error::Closed));
        assert_eq!(remove(Removal::ExpiredBy(UnixMillis(98))).await, Err(Error::Changed));
        assert_eq!(remove(Removal::ExpiredBy(UnixMillis(99))).await, Ok(vec![]));
        assert_eq!(record(1, 1, 1).await, Err(Error::NotFound));
        assert_eq!(meta.file_by_id(file(1, 0, 1, 5, 1, 9).id).await.unwrap().unwrap().size, 9);
    });
}

/// An upload without a size, and one of 5 bytes.
async fn begin_growing(meta: &dyn Metadata) {
    let growing = Upload { mode: Mode::Growing, ..upload(1, 1, 0, 50) };
    let uploads = vec![growing, upload(2, 1, 5, 50)];
    meta.create_uploads(uploads, None, Asker::Service, NOW, QUOTA).await.unwrap();
}

#[test]
fn what_is_appended_lies_where_the_session_ended() {
    on_every_engine(async |meta| {
        let reserved = async || meta.user(&user(1)).await.unwrap().unwrap().reserved;
        begin_growing(meta).await;
        let append = async |n, size, place, revision| {
            let (part, to) = (part(n, size, place), AppendTo { revision, declares: None });
            meta.record_part(upload_id(1), part, Some(to), UnixMillis(60), QUOTA).await
        };
        assert_eq!(append(1, 4, 1, 0).await, Ok(None));
        assert_eq!(append(2, 4, 2, 0).await, Err(Error::Changed));
        assert_eq!(append(1, 6, 2, 1).await, Ok(Some(part(1, 4, 1))));
        assert_eq!(reserved().await, 11);
        let declare = async |n, size, revision| {
            let declared = Declared { size, mode: Mode::Stream };
            meta.declare_size(upload_id(n), declared, revision, QUOTA).await
        };
        let refused = Error::Quota { limit: 1000, used: 11, asked: 990 };
        assert_eq!(declare(1, 996, 2).await, Err(refused));
        assert_eq!(declare(1, 20, 1).await, Err(Error::Changed));
        assert_eq!(declare(2, 5, 0).await, Err(Error::Changed));
        assert_eq!(declare(3, 5, 0).await, Err(Error::NotFound));
        assert_eq!(meta.upload(upload_id(1)).await.unwrap().unwrap().declared(), None);
        let declared = declare(1, 20, 2).await.unwrap();
        assert_eq!((declared.declared(), declared.revision), (Some(20), 3));
        assert_eq!(meta.upload(upload_id(1)).await, Ok(Some(declared)));
        assert_eq!(reserved().await, 25);
        assert_eq!(declare(1, 20, 3).await, Err(Error::Changed));
        assert_eq!(append(2, 1, 3, 2).await, Err(Error::Changed));
        assert_eq!(append(2, 1, 3, 3).await, Ok(None));
        let new = vec![new_file(file(1, 0, 1, 5, 1, 7), 9, Some((upload_id(1), 4)))];
        meta.record_files(new, NOW, QUOTA).await.unwrap();
        assert_eq!(append(3, 1, 4, 4).await, Err(Error::Closed));
        assert_eq!(declare(1, 20, 4).await, Err(Error::Closed));
    });
}

#[test]
fn a_size_is_declared_with_the_bytes_that_it_comes_with_or_not_at_all() {
    on_every_engine(async |meta| {
        let reserved = async || meta.user(&user(1)).await.unwrap().unwrap().reserved;
        begin_growing(meta).await;
        let append = async |id, n, revision, size| {
            let declares = Some(Declared { size, mode: Mode::Stream });
            let to = AppendTo { revision, declares };
            meta.record_part(upload_id(id), part(n, 4, n.into()), Some(to), UnixMillis(60), QUOTA)
                .await
        };
        let refused = Error::Quota { limit: 1000, used: 5, asked: 996 };
        assert_eq!(append(1, 1, 0, 996).await, Err(refused));
        assert_eq!(append(1, 1, 1, 20).await, Err(Error::Changed));
        assert_eq!(append(2, 1, 0, 20).await, Err(Error::Changed));
        let before = meta.upload(upload_id(1)).await.unwrap().unwrap();
        assert_eq!((before.declared(), before.revision, before.received), (None, 0, 0));
        assert_eq!(append(1, 1, 0, 20).await, Ok(None));
        let session = meta.upload(upload_id(1)).await.unwrap().unwrap();
        assert_eq!((session.declared(), session.mode), (Some(20), Mode::Stream));
        assert_eq!((session.revision, session.received, reserved().await), (1, 4, 25));
        assert_eq!(append(1, 2, 1, 20).await, Err(Error::Changed));
    });
}

#[test]
fn a_final_session_ends_what_it_is_made_of() {
    on_every_engine(async |meta| {
        let reserved = async || meta.user(&user(1)).await.unwrap().unwrap().reserved;
        let of = |n, owner, mode| Upload { mode, ..upload(n, owner, 4, 50) };
        let last = |n| Upload { size: 0, ..of(n, 1, Mode::Final) };
        let partials = vec![of(1, 1, Mode::Partial), of(2, 1, Mode::GrowingPartial)];
        let others = vec![of(3, 1, Mode::Single), of(4, 2, Mode::Partial)];
        for uploads in [partials, others] {
            meta.create_uploads(uploads, None, Asker::Service, NOW, QUOTA).await.unwrap();
        }
        let create = async |n, ids: &[u8]| {
            meta.create_final(last(n), ids.iter().map(|n| upload_id(*n)).collect(), NOW).await
        };
        for strange in [3, 4, 9] {
            assert_eq!(create(5, &[1, strange]).await, Err(Error::NotFound));
        }
        assert_eq!(create(5, &[1, 1]).await, Err(Error::Exists));
        assert_eq!(meta.final_of(upload_id(1)).await, Ok(None));
        assert_eq!(meta.upload(upload_id(5)).await, Ok(None));
        create(5, &[2, 1]).await.unwrap();
        assert_eq!(create(6, &[1]).await, Err(Error::Exists));
        assert_eq!(meta.final_of(upload_id(1)).await, Ok(Some(upload_id(5))));
        assert_eq!(meta.partials(upload_id(5)).await, Ok(vec![upload_id(2), upload_id(1)]));
        assert_eq!(meta.partials(upload_id(1)).await, Ok(vec![]));
        // An aborted final session releases its partial sessions.
        meta.remove_upload(upload_id(5), Removal::Open).await.unwrap();
        assert_eq!(meta.partials(upload_id(5)).await, Ok(vec![]));
        create(6, &[1, 2]).await.unwrap();

        let declared = Declared { size: 5, mode: Mode::Partial };
        meta.declare_size(upload_id(2), declared, 0, QUOTA).await.unwrap();
        for (n, size, place) in [(1, 4, 1), (2, 5, 2)] {
            meta.record_part(upload_id(n), part(1, size, place), None, NOW, QUOTA).await.unwrap();
        }
        assert_eq!(reserved().await, 4 + 5 + 4);
        let new =
            |revision| vec![new_file(file(1, 0, 1, 5, 1, 9), 9, Some((upload_id(6), revision)))];
        // The revisions of the partial sessions add up to 3: two parts and one declared size. A
        // file is recorded only with the current sum.
        assert_eq!(meta.record_files(new(2), NOW, QUOTA).await, Err(Error::Changed));
        let recorded = meta.record_files(new(3), UnixMillis(99), QUOTA).await.unwrap();
        assert_eq!(recorded[0].parts, [part(1, 4, 1), part(1, 5, 2)]);
        assert_eq!(reserved().await, 4);
        for n in [1, 2] {
            assert_eq!(meta.upload(upload_id(n)).await, Ok(None));
            assert_eq!(meta.parts(upload_id(n)).await, Ok(vec![]));
            assert_eq!(meta.final_of(upload_id(n)).await, Ok(None));
        }
        assert_eq!(meta.uploads_of(&user(1), None, 9).await.unwrap().len(), 1);
        // The partial sessions are listed for as long as the final session exists.
        assert_eq!(meta.partials(upload_id(6)).await, Ok(vec![upload_id(1), upload_id(2)]));
        let over = Removal::ExpiredBy(UnixMillis(99));
        meta.remove_upload(upload_id(6), over).await.unwrap();
        assert_eq!(meta.partials(upload_id(6)).await, Ok(vec![]));
        assert_eq!(meta.check().await, Ok(vec![]));
    });
}

#[test]
fn the_quota_counts_files_and_reservations() {
    on_every_engine(async |meta| {
        let reserved = async || meta.user(&user(1)).await.unwrap().unwrap().reserved;
        meta.create_uploads(vec![upload(1, 1, 600, 50)], None, Asker::Service, NOW, QUOTA)
            .await
            .unwrap();
        let two = vec![upload(2, 1, 300, 50), upload(3, 1, 101, 50)];
        let refused = Error::Quota { limit: 1000, used: 900, asked: 101 };
        assert_eq!(meta.create_uploads(two, None, Asker::Service, NOW, QUOTA).await, Err(refused));
        assert_eq!(meta.upload(upload_id(2)).await, Ok(None));
        assert_eq!(reserved().await, 600);
        let put = async |salt, size| {
            let new = vec![new_file(file(1, 1, salt, 5, 1, size), 1, None)];
            meta.record_files(new, NOW, QUOTA).await
        };
        put(1, 400).await.unwrap();
        assert_eq!(put(2, 1).await, Err(Error::Quota { limit: 1000, used: 1000, asked: 1 }));
        put(3, 0).await.unwrap();
        let grow = meta.record_part(upload_id(1), part(1, 601, 1), None, NOW, QUOTA).await;
        assert_eq!(grow, Err(Error::Quota { limit: 1000, used: 1000, asked: 1 }));
        meta.record_part(upload_id(1), part(1, 601, 1), None, NOW, QUOTA + 1).await.unwrap();
        assert_eq!(reserved().await, 601);
        let parts = meta.remove_upload(upload_id(1), Removal::Open).await.unwrap();
        assert_eq!((parts.len(), reserved().await), (1, 0));
        put(2, 600).await.unwrap();
    });
}

#[test]
fn lists_and_totals_cover_what_lies_beneath() {
    on_every_engine(async |meta| {
        for n in 0..10_u8 {
            let new = new_file(file(1, n, n.into(), 10 + u64::from(n), n, 1), n.into(), None);
            meta.record_files(vec![new], NOW, QUOTA).await.unwrap();
        }
        let list = async |path: &str, after: Option<FileId>, limit| {
            let folder = Folder::parse(path).unwrap();
            let files = meta.list_files(&user(1), &folder, after, limit).await.unwrap();
            files.iter().map(|file| file.id.created().0).collect::<Vec<_>>()
        };
        assert_eq!(list("", None, 99).await, (10..20).rev().collect::<Vec<_>>());
        assert_eq!(list("a", None, 99).await, [18, 17, 16, 13, 12, 11]);
        assert_eq!(list("a/b", None, 3).await, [18, 17, 13]);
        let third = meta.list_files(&user(1), &folder(2), None, 3).await.unwrap()[2].id;
        assert_eq!(list("a/b", Some(third), 3).await, [12]);
        assert_eq!(list("none", None, 9).await, [0; 0]);
        assert_eq!(meta.list_files(&user(2), &folder(0), None, 9).await, Ok(vec![]));
        let totals = meta.totals(&user(1), &folder(1)).await;
        assert_eq!(totals, Ok(Totals { files: 6, bytes: 6 }));
        meta.remove_file(&key(1, 3, 3), NOW).await.unwrap();
        assert_eq!(list("a/b", None, 99).await, [18, 17, 12]);
        let totals = meta.totals(&user(1), &folder(2)).await;
        assert_eq!(totals, Ok(Totals { files: 3, bytes: 3 }));
    });
}

#[test]
fn content_is_counted_shared_and_let_go() {
    on_every_engine(async |meta| {
        let record = async |salt, place| {
            let new = vec![new_file(file(1, 0, salt, 5, 1, 1), place, None)];
            meta.record_files(new, NOW, QUOTA).await
        };
        let content = ContentHash([1; 32]);
        let blob = async || meta.blob(&content).await.unwrap().map(|b| (b.references, b.locator));
        assert_eq!(record(1, 10).await.unwrap()[0].replaced, None);
        assert_eq!(record(2, 20).await.unwrap()[0].replaced, Some(locator(10)));
        assert_eq!(blob().await, Some((2, locator(20))));
        assert_eq!(record(2, 30).await, Err(Error::Exists));
        assert_eq!(blob().await, Some((2, locator(20))));
        let removed = meta.remove_file(&key(1, 0, 1), UnixMillis(40)).await.unwrap();
        assert_eq!(removed.key, key(1, 0, 1));
        assert_eq!(meta.remove_file(&key(1, 0, 1), NOW).await, Err(Error::NotFound));
        let forget = async |before| meta.forget_blob(&content, UnixMillis(before)).await;
        assert_eq!(forget(99).await, Ok(None));
        meta.remove_file(&key(1, 0, 2), UnixMillis(50)).await.unwrap();
        let unreferenced = async |before| meta.unreferenced_blobs(UnixMillis(before), 9).await;
        assert_eq!(unreferenced(50).await, Ok(vec![]));
        assert_eq!(unreferenced(51).await, Ok(vec![content]));
        // Storing the content again adds a reference.
        record(3, 40).await.unwrap();
        assert_eq!((unreferenced(99).await, forget(99).await), (Ok(vec![]), Ok(None)));
        meta.remove_file(&key(1, 0, 3), UnixMillis(60)).await.unwrap();
        // A caller that listed the blob before it was stored again cannot forget it early.
        assert_eq!((forget(51).await, forget(60).await), (Ok(None), Ok(None)));
        assert_eq!(forget(61).await, Ok(Some(locator(40))));
        assert_eq!((blob().await, unreferenced(99).await), (None, Ok(vec![])));
    });
}

#[test]
fn batches_live_as_long_as_their_sessions() {
    on_every_engine(async |meta| {
        let batch =
            Batch { id: upload_id(9), owner: user(1), uploads: vec![upload_id(1), upload_id(2)] };
        let uploads = vec![upload(1, 1, 1, 50), upload(2, 1, 1, 50)];
        meta.create_uploads(uploads, Some(batch.clone()), Asker::Service, NOW, QUOTA)
            .await
            .unwrap();
        assert_eq!(meta.batch(upload_id(9)).await, Ok(Some(batch)));
        meta.record_part(upload_id(2), part(1, 1, 1), None, UnixMillis(70), QUOTA).await.unwrap();
        let expired = async |now: u64| {
            let mut ids = BTreeSet::new();
            loop {
                let expired = meta.collect_expired(UnixMillis(now), 2).await.unwrap();
                ids.extend(expired.ids);
                if !expired.more {
                    return Vec::from_iter(ids);
                }
            }
        };
        assert_eq!(expired(49).await, []);
        assert_eq!(expired(60).await, [upload_id(1)]);
        let removal = Removal::ExpiredBy(UnixMillis(70));
        meta.remove_upload(upload_id(1), removal).await.unwrap();
        assert_eq!(expired(69).await, []);
        meta.remove_upload(upload_id(2), removal).await.unwrap();
        assert_eq!(expired(70).await, [upload_id(9)]);
        meta.remove_batch(upload_id(9)).await.unwrap();
        assert_eq!(meta.remove_batch(upload_id(9)).await, Err(Error::NotFound));
        assert_eq!(expired(99).await, []);
    });
}

#[test]
fn several_files_are_recorded_together_or_not_at_all() {
    on_every_engine(async |meta| {
        let new = |salt, upload| new_file(file(1, 1, salt, 5, 1, 1), salt.into(), upload);
        let missing = Some((upload_id(1), 0));
        let files = vec![new(1, None), new(2, missing)];
        assert_eq!(meta.record_files(files, NOW, QUOTA).await, Err(Error::NotFound));
        assert_eq!(meta.file(&key(1, 1, 1)).await, Ok(None));
        assert_eq!(meta.totals(&user(1), &folder(1)).await, Ok(Totals::default()));
        let files = vec![new(1, None), new(1, None)];
        assert_eq!(meta.record_files(files, NOW, QUOTA).await, Err(Error::Exists));
        assert_eq!(meta.blob(&ContentHash([1; 32])).await, Ok(None));
    });
}

/// sled never syncs pages that are too large for its log, so every page must fit into it.
#[test]
fn the_longest_records_stay_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let meta = sled(dir.path());
    let long = "x".repeat(255);
    let deep = Folder::parse(&vec![long.as_str(); 32].join("/")).unwrap();
    Runtime::new().unwrap().block_on(async {
        for n in 0..120 {
            let mut file = file(1, 0, n, 5, 1, 1);
            file.meta = CallerMeta("m".repeat(4096).into());
            file.name = FileName::parse(&long).unwrap();
            file.folder = deep.clone();
            file.mime = long.clone().into();
            // An imported key that is not composed of the other fields is kept as it is.
            let key = format!("storage/{}/{n}", vec!["y".repeat(255); 34].join("/"));
            file.key = streamlined::model::key::FileKey::parse(&key).unwrap();
            meta.record_files(vec![new_file(file, 1, None)], NOW, u64::MAX).await.unwrap();
        }
        assert_eq!(meta.totals(&user(1), &deep).await.unwrap().files, 120);
    });
    let outside = fs::read_dir(dir.path().join("meta/blobs")).unwrap().count();
    assert_eq!(outside, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Begin { upload: u8, owner: u8, size: u64, expires: u64 },
    Part { upload: u8, number: u8, size: u64, expires: u64 },
    Finish { upload: u8, folder: u8, salt: u32, content: u8 },
    Put { owner: u8, folder: u8, salt: u32, content: u8, size: u64 },
    Remove { owner: u8, folder: u8, salt: u32 },
    Abort { upload: u8 },
    Expire { now: u64 },
    Forget { content: u8, before: u64 },
    ForgetParts { upload: u8, number: u8 },
    Relocate { content: u8, to: u64 },
    Mark { content: u8 },
    Unmark { content: u8 },
    Change { owner: u8 },
    RemoveUser { owner: u8 },
    AddToken { n: u8 },
    Supersede { n: u8, by: u8 },
    Revoke { n: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, size, time) = (0..4_u8, 0..400_u64, 0..100_u64);
    let step = prop_oneof![
        (id.clone(), 0..2_u8, size.clone(), time.clone()).prop_map(
            |(upload, owner, size, expires)| { Step::Begin { upload, owner, size, expires } }
        ),
        (id.clone(), 0..3_u8, size.clone(), time.clone()).prop_map(
            |(upload, number, size, expires)| Step::Part { upload, number, size, expires }
        ),
        (id.clone(), 0..5_u8, 0..9_u32, 0..3_u8).prop_map(|(upload, folder, salt, content)| {
            Step::Finish { upload, folder, salt, content }
        }),
        (0..2_u8, 0..5_u8, 0..9_u32, 0..3_u8, size).prop_map(
            |(owner, folder, salt, content, size)| Step::Put { owner, folder, salt, content, size }
        ),
        (0..2_u8, 0..5_u8, 0..9_u32).prop_map(|(owner, folder, salt)| Step::Remove {
            owner,
            folder,
            salt
        }),
        id.prop_map(|upload| Step::Abort { upload }),
        time.clone().prop_map(|now| Step::Expire { now }),
        (0..3_u8, time).prop_map(|(content, before)| Step::Forget { content, before }),
        (0..4_u8, 0..3_u8).prop_map(|(upload, number)| { Step::ForgetParts { upload, number } }),
        (0..3_u8, 100..103_u64).prop_map(|(content, to)| Step::Relocate { content, to }),
        (0..3_u8).prop_map(|content| Step::Mark { content }),
        (0..3_u8).prop_map(|content| Step::Unmark { content }),
        (0..2_u8).prop_map(|owner| Step::Change { owner }),
        (0..2_u8).prop_map(|owner| Step::RemoveUser { owner }),
        (0..4_u8).prop_map(|n| Step::AddToken { n }),
        (0..4_u8, 0..4_u8).prop_map(|(n, by)| Step::Supersede { n, by }),
        (0..4_u8).prop_map(|n| Step::Revoke { n }),
    ];
    vec(step, 1..60)
}

/// Applies one step and answers everything that its outcome shows.
async fn take(meta: &dyn Metadata, step: &Step, at: u64) -> String {
    match *step {
        Step::Begin { upload: n, owner, size, expires } => {
            if meta.upload(upload_id(n)).await.unwrap().is_some() {
                return "exists".into();
            }
            let uploads = vec![upload(n, owner, size, expires)];
            format!("{:?}", meta.create_uploads(uploads, None, Asker::Service, NOW, QUOTA).await)
        }
        Step::Part { upload, number, size, expires } => {
            let part = part(number, size, at);
            let expires = UnixMillis(expires);
            format!("{:?}", meta.record_part(upload_id(upload), part, None, expires, QUOTA).await)
        }
        Step::Finish { upload, folder, salt, content } => {
            let Some(session) = meta.upload(upload_id(upload)).await.unwrap() else {
                return "none".into();
            };
            let owner = session.owner.as_str().bytes().last().unwrap() - b'0';
            let file = file(owner, folder, salt, at, content, session.received);
            let new = new_file(file, at, Some((session.id, session.revision)));
            format!("{:?}", meta.record_files(vec![new], UnixMillis(50), QUOTA).await)
        }
        Step::Put { owner, folder, salt, content, size } => {
            let new = new_file(file(owner, folder, salt, at, content, size), at, None);
            format!("{:?}", meta.record_files(vec![new], NOW, QUOTA).await)
        }
        Step::Remove { owner, folder, salt } => {
            format!("{:?}", meta.remove_file(&key(owner, folder, salt), UnixMillis(at)).await)
        }
        Step::Abort { upload } => {
            format!("{:?}", meta.remove_upload(upload_id(upload), Removal::Open).await)
        }
        Step::Expire { now } => {
            let now = UnixMillis(now);
            let mut ids = meta.collect_expired(now, 99).await.unwrap().ids;
            ids.sort();
            // An id that was used for two sessions may be named twice; real ids are random and are
            // not reused.
            ids.dedup();
            let mut removed = Vec::new();
            for id in ids {
                removed.push(meta.remove_upload(id, Removal::ExpiredBy(now)).await);
            }
            format!("{removed:?}")
        }
        Step::Forget { content, before } => {
            let before = UnixMillis(before);
            format!("{:?}", meta.forget_blob(&ContentHash([content; 32]), before).await)
        }
        Step::ForgetParts { upload, number } => {
            let mut parts = meta.parts(upload_id(upload)).await.unwrap();
            parts.retain(|part| part.number.0 >= number.into());
            format!("{:?}", meta.forget_parts(upload_id(upload), parts).await)
        }
        Step::Relocate { content, to } => {
            let (hash, from) = lying(meta, content, at).await;
            format!("{:?}", meta.relocate_blob(&hash, &from, &locator(to)).await)
        }
        Step::Mark { content } => {
            let (hash, place) = lying(meta, content, at).await;
            format!("{:?}", meta.mark_damaged(&hash, &place, UnixMillis(at)).await)
        }
        Step::Unmark { content } => {
            let (hash, place) = lying(meta, content, at).await;
            format!("{:?}", meta.unmark_damaged(&hash, &place).await)
        }
        Step::Change { owner } => {
            let change = UserChange {
                disabled: Some(at.is_multiple_of(2)),
                tokens_valid_from: Some(at),
                ..UserChange::default()
            };
            format!("{:?}", meta.change_user(&user(owner), change, UnixMillis(at)).await)
        }
        Step::RemoveUser { owner } => format!("{:?}", meta.remove_user(&user(owner), at).await),
        Step::AddToken { n } => format!("{:?}", meta.add_service_token(token(n)).await),
        Step::Supersede { n, by } => {
            let until = UnixMillis(at);
            format!("{:?}", meta.supersede_service_token(TokenId([n; 8]), until, token(by)).await)
        }
        Step::Revoke { n } => {
            format!("{:?}", meta.revoke_service_token(TokenId([n; 8]), UnixMillis(at)).await)
        }
    }
}

/// A blob and the locator of its bytes; now and then a wrong locator.
async fn lying(meta: &dyn Metadata, content: u8, at: u64) -> (ContentHash, Locator) {
    let hash = ContentHash([content; 32]);
    let record = meta.blob(&hash).await.unwrap().filter(|_| !at.is_multiple_of(4));
    (hash, record.map_or(locator(999), |blob| blob.locator))
}

/// Everything that can be read.
async fn observe(meta: &dyn Metadata) -> Vec<String> {
    let mut seen = Vec::new();
    for owner in 0..2 {
        seen.push(format!("{:?}", meta.user(&user(owner)).await));
        seen.push(format!("{:?}", meta.uploads_of(&user(owner), None, 99).await));
        for n in 0..5 {
            seen.push(format!("{:?}", meta.totals(&user(owner), &folder(n)).await));
            seen.push(format!("{:?}", meta.list_files(&user(owner), &folder(n), None, 99).await));
            let sha256 = Sha256([n; 32]);
            seen.push(format!("{:?}", meta.file_with_sha256(&user(owner), &sha256).await));
        }
    }
    for n in 0..4 {
        seen.push(format!("{:?}", meta.upload(upload_id(n)).await));
        seen.push(format!("{:?}", meta.parts(upload_id(n)).await));
        seen.push(format!("{:?}", meta.blob(&ContentHash([n; 32])).await));
    }
    seen.push(format!("{:?}", meta.unreferenced_blobs(UnixMillis(u64::MAX), 99).await));
    seen.push(format!("{:?}", meta.parts_after(None, 99).await));
    seen.push(format!("{:?}", meta.blobs_after(None, 99).await));
    seen.push(format!("{:?}", meta.users(None, 99).await));
    seen.push(format!("{:?}", meta.service_tokens(None, 99).await));
    for owner in 0..2 {
        let owner = user(owner);
        seen.push(format!("{:?}", meta.tokens_valid_from(Holder::User(&owner)).await));
    }
    seen.push(format!("{:?}", meta.damaged_count().await));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..<_>::default() })]

    /// The sled engine does what the reference engine does, also across restarts and after it was
    /// rebuilt from its journal.
    #[test]
    fn engines_agree_on_random_steps(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let (reference, mut engine) = (MemoryMetadata::default(), sled(dir.path()));
        runtime.block_on(async {
            for (at, step) in steps.iter().enumerate() {
                if at % 7 == 3 {
                    drop(engine);
                    // Every other restart rebuilds the index from the journal alone.
                    if at % 2 == 1 {
                        fs::remove_dir_all(dir.path().join("meta")).unwrap();
                    }
                    engine = sled(dir.path());
                }
                let at = at as u64;
                let (wanted, got) =
                    (take(&reference, step, at).await, take(&engine, step, at).await);
                prop_assert_eq!(wanted, got, "step {}: {:?}", at, step);
            }
            prop_assert_eq!(observe(&reference).await, observe(&engine).await);
            prop_assert_eq!(engine.check().await, Ok(vec![]));
            Ok(())
        })?;
    }
}
