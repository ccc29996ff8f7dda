//! Content that is stored already: which users have it, and new files that refer to it where it
//! lies.

use streamlined::{
    meta::{Error, HOLDERS_MAX, NewFile},
    model::{
        digest::{ContentHash, Sha256},
        time::UnixMillis,
    },
};

use super::{
    metadata::on_every_engine,
    records::{file, locator, new_file, user},
};

const ONE: ContentHash = ContentHash([1; 32]);
const KEEP: UnixMillis = UnixMillis(1_000);

#[test]
fn a_file_of_a_content_is_found_by_its_owner() {
    on_every_engine(async |meta| {
        let put = async |owner, salt| {
            let new = new_file(file(owner, 0, salt, u64::from(salt), 1, 5), salt.into(), None);
            meta.record_files(vec![new], KEEP, 1_000_000).await.unwrap();
        };
        let found = async |owner| {
            let file = meta.file_with(&user(owner), &ONE).await.unwrap();
            file.map(|file| file.id.created().0)
        };
        assert_eq!(found(1).await, None);
        put(1, 10).await;
        put(2, 20).await;
        assert_eq!((found(1).await, found(2).await, found(3).await), (Some(10), Some(20), None));
        assert_eq!(meta.file_with(&user(1), &ContentHash([2; 32])).await, Ok(None));
        put(1, 30).await;
        assert_eq!(found(1).await, Some(30));
        let newest = file(1, 0, 30, 30, 1, 5).key;
        meta.remove_file(&newest, UnixMillis(40)).await.unwrap();
        assert_eq!(found(1).await, Some(10));
        // Together with the files of users 1 and 2, these are more than a blob's record names.
        for salt in (50..).take(HOLDERS_MAX) {
            put(3, salt).await;
        }
        assert_eq!((found(1).await, found(3).await), (Some(10), Some(49 + HOLDERS_MAX as u64)));
        assert_eq!(found(4).await, None);
    });
}

#[test]
fn every_file_of_a_content_is_found_by_its_owner() {
    on_every_engine(async |meta| {
        let put = async |owner, salt, content| {
            let file = file(owner, 0, salt, u64::from(salt), content, 5);
            meta.record_files(vec![new_file(file, salt.into(), None)], KEEP, 1_000_000).await
        };
        let found = async |owner, content| {
            let file = meta.file_with_sha256(&user(owner), &Sha256([content; 32])).await.unwrap();
            file.map(|file| (file.id.created().0, file.sha256.0[0]))
        };
        put(1, 10, 1).await.unwrap();
        put(1, 20, 2).await.unwrap();
        assert_eq!((found(1, 1).await, found(1, 2).await), (Some((10, 1)), Some((20, 2))));
        // Another user stores it in more files than a blob's record names.
        assert_eq!((found(2, 1).await, found(1, 3).await), (None, None));
        for salt in (30..).take(HOLDERS_MAX + 1) {
            put(2, salt, 1).await.unwrap();
        }
        put(1, 50, 1).await.unwrap();
        assert_eq!((found(1, 1).await, found(2, 1).await), (Some((10, 1)), Some((30, 1))));
        // Any file of the content is found; once the owner's last one is removed, none is.
        for (salt, next) in [(10, Some((50, 1))), (50, None)] {
            meta.remove_file(&file(1, 0, salt, 0, 1, 5).key, KEEP).await.unwrap();
            assert_eq!(found(1, 1).await, next);
        }
        assert_eq!((found(2, 1).await, found(1, 2).await), (Some((30, 1)), Some((20, 2))));
        assert_eq!(meta.check().await, Ok(vec![]));
    });
}

#[test]
fn a_file_is_made_of_known_content_only_while_it_is_there() {
    on_every_engine(async |meta| {
        let record = async |salt: u32, place, is_known| {
            let file = file(1, 0, salt, u64::from(salt), 1, 5);
            let new = NewFile { is_known, ..new_file(file, place, None) };
            meta.record_files(vec![new], KEEP, 1_000_000).await
        };
        assert_eq!(record(1, 7, true).await, Err(Error::Changed));
        record(2, 7, false).await.unwrap();
        let recorded = record(3, 7, true).await.unwrap();
        assert_eq!(recorded[0].replaced, Some(locator(7)));
        assert_eq!(record(4, 8, true).await, Err(Error::Changed));
        let blob = meta.blob(&ONE).await.unwrap().unwrap();
        assert_eq!((blob.references, &blob.locator), (2, &locator(7)));
        meta.mark_damaged(&ONE, &locator(7), UnixMillis(9)).await.unwrap();
        assert_eq!(record(5, 7, true).await, Err(Error::Changed));
        meta.unmark_damaged(&ONE, &locator(7)).await.unwrap();
        // A blob without a file still counts as known until it is forgotten.
        for salt in [2, 3] {
            meta.remove_file(&file(1, 0, salt, 0, 1, 5).key, UnixMillis(10)).await.unwrap();
        }
        record(6, 7, true).await.unwrap();
        assert_eq!(meta.forget_blob(&ONE, UnixMillis(99)).await, Ok(None));
        meta.remove_file(&file(1, 0, 6, 0, 1, 5).key, UnixMillis(11)).await.unwrap();
        assert_eq!(meta.forget_blob(&ONE, UnixMillis(99)).await, Ok(Some(locator(7))));
        assert_eq!(record(7, 7, true).await, Err(Error::Changed));
    });
}
