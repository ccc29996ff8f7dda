//! The metadata seam: walks, blobs that move, damage, and the progress of a scrub.

use streamlined::{
    meta::{Asker, Error, Metadata, upkeep::ScrubPass},
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        time::UnixMillis,
    },
};

use crate::{
    metadata::{NOW, QUOTA, on_every_engine},
    records::{file, key, locator, new_file, part, upload, upload_id, user},
};

const ONE: ContentHash = ContentHash([1; 32]);

async fn put(meta: &dyn Metadata, salt: u32, content: u8, place: u64) {
    let new = new_file(file(1, 0, salt, 5, content, 1), place, None);
    meta.record_files(vec![new], NOW, QUOTA).await.unwrap();
}

#[test]
fn walks_see_everything_once_in_order() {
    on_every_engine(async |meta| {
        assert_eq!(meta.parts_after(None, 9).await, Ok(vec![]));
        assert_eq!(meta.blobs_after(None, 9).await, Ok(vec![]));
        let mut wanted = Vec::new();
        for id in [255, 0, 7] {
            meta.create_uploads(vec![upload(id, 1, 9, 50)], None, Asker::Service, NOW, QUOTA)
                .await
                .unwrap();
            for number in [3, 0, 1] {
                let place = u64::from(id) * 10 + u64::from(number);
                let part = part(number, 1, place);
                meta.record_part(upload_id(id), part, None, NOW, QUOTA).await.unwrap();
                wanted.push(((upload_id(id), PartNumber(number.into())), locator(place)));
            }
        }
        wanted.sort_by_key(|(key, _)| *key);
        let (mut seen, mut last): (Vec<_>, Option<(UploadId, PartNumber)>) = (Vec::new(), None);
        loop {
            let page = meta.parts_after(last, 2).await.unwrap();
            assert!(page.len() <= 2);
            let Some((key, _)) = page.last() else { break };
            last = Some(*key);
            seen.extend(page);
        }
        assert_eq!(seen, wanted);

        for content in [9, 0, 255, 4, 1] {
            put(meta, content.into(), content, content.into()).await;
        }
        meta.mark_damaged(&ContentHash([4; 32]), &locator(4), UnixMillis(70)).await.unwrap();
        let (mut seen, mut last) = (Vec::new(), None);
        loop {
            let page = meta.blobs_after(last, 2).await.unwrap();
            let Some((hash, _)) = page.last() else { break };
            last = Some(*hash);
            seen.extend(page.into_iter().map(|(hash, blob)| (hash.0[0], blob)));
        }
        let hashes: Vec<_> = seen.iter().map(|(hash, _)| *hash).collect();
        assert_eq!(hashes, [0, 1, 4, 9, 255]);
        for (hash, blob) in seen {
            assert_eq!(blob.locator, locator(hash.into()));
            assert_eq!(blob.damaged, (hash == 4).then_some(UnixMillis(70)));
        }
    });
}

#[test]
fn a_blob_moves_only_from_where_it_lies() {
    on_every_engine(async |meta| {
        assert_eq!(meta.relocate_blob(&ONE, &locator(1), &locator(2)).await, Ok(false));
        put(meta, 1, 1, 10).await;
        put(meta, 2, 1, 11).await;
        assert_eq!(meta.relocate_blob(&ONE, &locator(10), &locator(20)).await, Ok(false));
        assert_eq!(meta.relocate_blob(&ONE, &locator(11), &locator(20)).await, Ok(true));
        let blob = meta.blob(&ONE).await.unwrap().unwrap();
        assert_eq!((blob.locator, blob.references), (locator(20), 2));
        // A blob without a file moves as well, and is still forgotten when its time is over.
        meta.remove_file(&key(1, 0, 1), UnixMillis(50)).await.unwrap();
        meta.remove_file(&key(1, 0, 2), UnixMillis(50)).await.unwrap();
        assert_eq!(meta.relocate_blob(&ONE, &locator(20), &locator(30)).await, Ok(true));
        assert_eq!(meta.unreferenced_blobs(UnixMillis(51), 9).await, Ok(vec![ONE]));
        assert_eq!(meta.forget_blob(&ONE, UnixMillis(51)).await, Ok(Some(locator(30))));
    });
}

#[test]
fn a_mark_lasts_as_long_as_the_bytes_it_speaks_of() {
    on_every_engine(async |meta| {
        let mark = async |place, now| meta.mark_damaged(&ONE, &locator(place), now).await;
        let since = async || {
            let damaged = meta.blob(&ONE).await.unwrap().and_then(|blob| blob.damaged);
            assert_eq!(meta.damaged_count().await, Ok(damaged.is_some().into()));
            damaged
        };
        assert_eq!(mark(1, NOW).await, Ok(false));
        put(meta, 1, 1, 10).await;
        assert_eq!((mark(11, NOW).await, since().await), (Ok(false), None));
        assert_eq!((mark(10, UnixMillis(5)).await, since().await), (Ok(true), Some(UnixMillis(5))));
        assert_eq!((mark(10, UnixMillis(6)).await, since().await), (Ok(true), Some(UnixMillis(5))));
        assert_eq!(meta.unmark_damaged(&ONE, &locator(9)).await, Ok(false));
        assert_eq!(meta.unmark_damaged(&ONE, &locator(10)).await, Ok(true));
        assert_eq!(
            (meta.unmark_damaged(&ONE, &locator(10)).await, since().await),
            (Ok(false), None)
        );

        // A mark ends when the content is stored again, moved as a good copy, or forgotten.
        mark(10, NOW).await.unwrap();
        put(meta, 2, 1, 20).await;
        assert_eq!(since().await, None);
        mark(20, NOW).await.unwrap();
        meta.relocate_blob(&ONE, &locator(20), &locator(30)).await.unwrap();
        assert_eq!(since().await, None);
        mark(30, NOW).await.unwrap();
        meta.remove_file(&key(1, 0, 1), NOW).await.unwrap();
        meta.remove_file(&key(1, 0, 2), NOW).await.unwrap();
        assert_eq!(since().await, Some(NOW));
        meta.forget_blob(&ONE, UnixMillis(NOW.0 + 1)).await.unwrap();
        assert_eq!(since().await, None);
    });
}

#[test]
fn damaged_blobs_are_counted() {
    on_every_engine(async |meta| {
        for content in [3, 1, 2] {
            put(meta, content.into(), content, content.into()).await;
            let hash = ContentHash([content; 32]);
            meta.mark_damaged(&hash, &locator(content.into()), NOW).await.unwrap();
        }
        assert_eq!(meta.damaged_count().await, Ok(3));
    });
}

#[test]
fn a_scrub_keeps_its_place_and_its_last_end() {
    on_every_engine(async |meta| {
        assert_eq!(meta.scrub_state().await, Ok(<_>::default()));
        let mut pass = ScrubPass { blobs: 3, position: Some(ONE), ..ScrubPass::new(NOW) };
        meta.save_scrub(pass).await.unwrap();
        let state = meta.scrub_state().await.unwrap();
        assert_eq!((state.running, state.last), (Some(pass), None));
        pass.completed = Some(UnixMillis(2_000));
        meta.save_scrub(pass).await.unwrap();
        let next = ScrubPass::new(UnixMillis(3_000));
        meta.save_scrub(next).await.unwrap();
        let state = meta.scrub_state().await.unwrap();
        assert_eq!((state.running, state.last), (Some(next), Some(pass)));
    });
}

#[test]
fn an_index_knows_when_it_was_begun() {
    on_every_engine(async |meta| {
        assert_eq!(meta.begun(UnixMillis(7)).await, Ok(UnixMillis(7)));
        assert_eq!(meta.begun(UnixMillis(5)).await, Ok(UnixMillis(7)));
    });
}

#[test]
fn damaged_parts_are_forgotten_as_long_as_they_are_those_recorded() {
    on_every_engine(async |meta| {
        let reserved = async || meta.user(&user(1)).await.unwrap().unwrap().reserved;
        meta.create_uploads(vec![upload(1, 1, 30, 50)], None, Asker::Service, NOW, QUOTA)
            .await
            .unwrap();
        let record = async |number, size, place| {
            meta.record_part(upload_id(1), part(number, size, place), None, NOW, QUOTA)
                .await
                .unwrap()
        };
        for number in 1..4 {
            record(number, 20, number.into()).await;
        }
        // Part 2 is sent again after it was looked at.
        let damaged: Vec<_> = meta.parts(upload_id(1)).await.unwrap().drain(..2).collect();
        record(2, 21, 9).await;
        let before = meta.upload(upload_id(1)).await.unwrap().unwrap();
        assert_eq!((before.received, reserved().await), (61, 61));
        let forgotten = meta.forget_parts(upload_id(1), damaged.clone()).await;
        assert_eq!(forgotten, Ok(vec![damaged[0].clone()]));
        let after = meta.upload(upload_id(1)).await.unwrap().unwrap();
        assert_eq!((after.received, reserved().await), (41, 41));
        assert!(after.revision > before.revision, "a completion under way has to notice");
        let left = meta.parts(upload_id(1)).await.unwrap();
        assert_eq!(left.iter().map(|part| part.number.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(meta.forget_parts(upload_id(1), damaged).await, Ok(vec![]));
        meta.forget_parts(upload_id(1), left).await.unwrap();
        assert_eq!(reserved().await, 30, "what init declared");
        assert_eq!(meta.forget_parts(upload_id(2), vec![]).await, Err(Error::NotFound));
        let new = new_file(file(1, 0, 1, 5, 1, 0), 1, Some((upload_id(1), after.revision + 2)));
        meta.record_files(vec![new], NOW, QUOTA).await.unwrap();
        assert_eq!(meta.forget_parts(upload_id(1), vec![]).await, Err(Error::Closed));
        assert_eq!(meta.check().await, Ok(vec![]));
    });
}
