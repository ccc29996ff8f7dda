use super::Committer;
use crate::{
    meta::{
        Accounts, Error, Metadata,
        sled::{
            SledMetadata,
            ballast::Ballast,
            index,
            open::{self, Opened},
            records::Records,
            runs::{Runs, tests::damage},
            txn::Txn,
        },
        upkeep::Upkeep,
    },
    model::{name::UserId, time::UnixMillis},
};

fn opened(dir: &tempfile::TempDir) -> SledMetadata {
    SledMetadata::open(dir.path(), 16 << 20, u64::MAX).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// Commits that were answered are still there when sled fails to take them. Later steps are
/// refused, and whoever asks whether the store is ready is told.
#[test]
fn what_cannot_be_settled_is_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let meta = opened(&dir);
    // Bytes that are no run, where a list would lie.
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
        assert_eq!(meta.records.read(&key).unwrap().unwrap(), b"kept");
        let user = UserId::parse("u").unwrap();
        assert!(meta.ensure_user(&user, UnixMillis(1)).await.is_err());
    });
    drop(meta);
    // The journal has the commit, and the damaged index is rebuilt.
    let meta = opened(&dir);
    assert_eq!(meta.records.read(b"l-entry").unwrap().unwrap(), b"kept");
}

/// The remedy that a check names must have an effect at the next open.
#[test]
fn a_record_that_a_check_cannot_read_is_noted_for_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let meta = opened(&dir);
    let misplaced = [index::FILES, b"x"].concat();
    let write = move |txn: &mut Txn<'_>| {
        txn.write(misplaced, b"");
        Ok(())
    };
    let found = runtime().block_on(async {
        meta.committer.commit(write).await.unwrap();
        meta.check().await.unwrap()
    });
    assert!(found.len() == 1 && found[0].contains("restart the daemon"), "{found:?}");
    assert!(dir.path().join("journal/rebuild").exists());
}

/// A close does not wait for ever when sled does not return.
#[test]
fn a_close_that_takes_too_long_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut meta = opened(&dir);
    runtime().block_on(meta.begun(UnixMillis(1))).unwrap();
    let records = meta.records.clone();
    let meta = records.while_settling(move || {
        meta.committer.close(1);
        assert!(meta.committer.ready().is_err());
        meta
    });
    drop(meta);
}

/// sled syncs each batch that it takes, so the commits that a killed daemon left unsettled are
/// replayed many at a time.
#[test]
fn many_commits_are_replayed_in_few_steps() {
    const COMMITS: u64 = 300;
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let meta = opened(&dir);
    let user = |n: u64| UserId::parse(&format!("user{n}")).unwrap();
    runtime().block_on(async {
        for n in 0..COMMITS {
            meta.ensure_user(&user(n), UnixMillis(n)).await.unwrap();
        }
    });
    // The state that a kill would leave.
    let (from, to) = (dir.path().join("."), copy.path());
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
    drop(meta);
    let before = crate::sys::sync_override::calls();
    let meta = opened(&copy);
    let syncs = crate::sys::sync_override::calls() - before;
    assert!(syncs < COMMITS / 4, "{syncs} syncs");
    runtime().block_on(async {
        for n in 0..COMMITS {
            assert!(meta.user(&user(n)).await.unwrap().is_some(), "{n}");
        }
    });
}

/// On a full disk the last of the ballast is for upkeep alone. A client's deletion that happens to
/// wait beside a step of upkeep still has the room that was made before.
#[test]
fn a_step_of_upkeep_does_not_refuse_those_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(opened(&dir));
    let place = open::Place::new(dir.path(), 16 << 20);
    let Opened { db, journal, file } = open::open(&place).unwrap();
    // A ballast that has been used up, and that cannot grow.
    let gone = tempfile::tempdir().unwrap();
    let ballast = Ballast::given_up(gone.path()).unwrap();
    drop(gone);
    let records = Records::over(Runs::new(&db), journal.last(), journal.files().clone());
    let committer = Committer::start(records, journal, file, ballast, u64::MAX).unwrap();
    runtime().block_on(async {
        let (begin, waits) = std::sync::mpsc::channel::<()>();
        let first = committer.release(move |_| waits.recv().map_err(|_| Error::Busy));
        let (delete, upkeep) = (committer.release(|_| Ok(())), committer.reclaim(|_| Ok(())));
        let take = committer.commit(|_| Ok(()));
        let begin = async move { begin.send(()).unwrap() };
        let ended = tokio::join!(first, delete, upkeep, take, begin);
        assert_eq!(ended, (Ok(()), Ok(()), Ok(()), Err(Error::NoSpace), ()));
    });
}
