use super::*;
use crate::{
    meta::{
        Metadata,
        sled::{SledMetadata, runs::tests::damage},
        upkeep::Upkeep,
    },
    model::{name::UserId, time::UnixMillis},
};

fn open(dir: &tempfile::TempDir) -> SledMetadata {
    SledMetadata::open(dir.path(), 16 << 20, u64::MAX).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// What was answered is there when sled has failed to take it; nothing more is taken, and the one
/// that asks whether all is well is told.
#[test]
fn what_cannot_be_settled_is_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(&dir);
    // A run that is none, where a list would lie.
    damage(meta.records.runs(), b"m");
    runtime().block_on(async {
        meta.begun(UnixMillis(1)).await.unwrap();
        let key = b"l-entry".to_vec();
        let write = key.clone();
        meta.committer
            .commit(move |txn| {
                txn.write(write, b"kept");
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(meta.ready().await, Ok(()));
        assert!(meta.probe().await.is_err());
        assert!(meta.ready().await.is_err());
        assert_eq!(meta.records.get(&key).unwrap().unwrap(), b"kept");
        let user = UserId::parse("u").unwrap();
        assert!(meta.ensure_user(&user, UnixMillis(1)).await.is_err());
    });
    drop(meta);
    // The journal has it, and the damaged index is made anew.
    let meta = open(&dir);
    assert_eq!(meta.records.get(b"l-entry").unwrap().unwrap(), b"kept");
}

/// A close does not wait for ever for a sled that does not come back.
#[test]
fn a_close_that_takes_too_long_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut meta = open(&dir);
    runtime().block_on(meta.begun(UnixMillis(1))).unwrap();
    let records = meta.records.clone();
    let meta = records.while_settling(move || {
        meta.committer.close(Duration::from_millis(100));
        assert!(meta.committer.ready().is_err());
        meta
    });
    drop(meta);
}
