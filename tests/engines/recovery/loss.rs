//! How a store that lost commits is rebuilt, from what, and what is left untouched.

use super::*;

/// A store whose index has only the first `first` users. The last log of its journal has the users
/// from there up to `then`.
fn with_index_behind(first: u64, then: u64, save_bytes: u64) -> World {
    let world = World::with(first, save_bytes);
    world.keep_index();
    world.add(&world.open(NEVER), first..then);
    world.put_index_back();
    world
}

fn rebuilt(world: &World) -> Result<Option<String>, Error> {
    SledMetadata::rebuild(&world.path(""), 16 << 20)
}

/// A rebuild takes from the index what the journal lost before the index's end; only commits behind
/// that end are missing.
#[test]
fn an_index_has_what_cannot_be_read_before_its_end() {
    for harm in ["a commit", "the snapshot"] {
        let save_bytes = if harm == "a commit" { NEVER } else { SAVE_BYTES };
        let world = with_index_behind(200, 230, save_bytes);
        match harm {
            "a commit" => damage(&world.logs()[0], 10),
            _ => flip(world.snapshots().last().unwrap(), 500),
        }
        let backup = tempfile::tempdir().unwrap();
        copy(&world.path("journal"), &backup.path().join("journal"));
        damage(world.logs().last().unwrap(), 215);
        for _ in 0..2 {
            let said = world.try_open(NEVER).err().unwrap().to_string();
            assert!(said.contains("fsck --rebuild"), "{harm}: {said}");
        }
        let missing = rebuilt(&world).unwrap().unwrap();
        let named = "commit 216 cannot be read, and 217 to 230 after it are left out";
        assert!(missing.contains(named) && !missing.contains(';'), "{harm}: {missing}");
        assert!(!world.set_aside() && world.path("journal.damaged-1").exists());
        let exported = world.runtime.block_on(world.open(NEVER).exported(backup.path()));
        assert_eq!(exported, Ok(Some(Exported::Foreign)));
        world.reopened(215);
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(217);
        assert_eq!(rebuilt(&world), Ok(None));
    }
}

/// A start reads neither the snapshot nor logs before the index's end, so it does not notice damage
/// there. `rebuild` does, and makes a new journal from the index.
#[test]
fn a_journal_is_saved_anew_from_the_index_beside_it() {
    for harm in ["the snapshot", "a commit", "cut short", "no head"] {
        let save_bytes = if harm == "the snapshot" { SAVE_BYTES } else { NEVER };
        let world = World::with(200, save_bytes);
        let backup = tempfile::tempdir().unwrap();
        copy(&world.path("journal"), &backup.path().join("journal"));
        match harm {
            "the snapshot" => flip(&world.snapshots()[0], 500),
            "a commit" => damage(&world.logs()[0], 20),
            "cut short" => cut(&world.logs()[0]),
            _ => {
                flip(&world.logs()[0], 20);
                damage(&world.logs()[0], 20);
            }
        }
        assert_eq!(rebuilt(&world), Ok(None), "{harm}");
        assert!(!world.set_aside() && world.path("journal.damaged-1").exists(), "{harm}");
        world.reopened(200);
        // The new journal is that of the same store.
        let exported = world.runtime.block_on(world.open(NEVER).exported(backup.path()));
        assert_eq!(exported, Ok(Some(Exported::Before)), "{harm}");
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(202);
    }
}

/// An index that is to be rebuilt stays while the journal cannot be read: it may be the only copy
/// of what the journal lost.
#[test]
fn an_index_stays_where_no_other_can_be_made() {
    for harm in ["the snapshot", "a commit"] {
        let save_bytes = if harm == "a commit" { NEVER } else { SAVE_BYTES };
        let world = World::with(200, save_bytes);
        let harmed = match harm {
            "a commit" => world.logs()[0].clone(),
            _ => world.snapshots()[0].clone(),
        };
        let whole = fs::read(&harmed).unwrap();
        match harm {
            "a commit" => damage(&harmed, 20),
            _ => flip(&harmed, 500),
        }
        let note = world.path("journal/rebuild");
        fs::write(&note, "").unwrap();
        for _ in 0..2 {
            let said = world.try_open(NEVER).err().unwrap().to_string();
            assert!(said.contains("fsck --rebuild"), "{harm}: {said}");
        }
        assert!(!world.set_aside() && note.exists(), "{harm}");
        fs::write(&harmed, whole).unwrap();
        world.reopened(200);
        assert!(world.set_aside() && !note.exists(), "{harm}");
    }
}

/// A rebuild moves nothing before it has succeeded, so the next one names the same losses.
#[test]
fn a_rebuild_that_fails_leaves_the_journal_as_it_was() {
    for has_index in [true, false] {
        let world = with_index_behind(30, 50, NEVER);
        if !has_index {
            fs::remove_dir_all(world.path("meta")).unwrap();
        }
        damage(world.logs().last().unwrap(), 40);
        // A file in this place prevents the directory of the new journal from being made.
        let place = world.path("journal.new");
        fs::write(&place, "").unwrap();
        assert!(rebuilt(&world).is_err());
        assert!(!world.path("journal.damaged-1").exists());
        fs::remove_file(place).unwrap();
        let missing = rebuilt(&world).unwrap().unwrap();
        assert!(missing.contains("commit 41 cannot be read"), "{missing}");
        world.reopened(40);
    }
}

/// Here the journal has lost records and no file tells its id any more. An index that is rebuilt
/// from it is refused as long as the new journal does not exist.
pub fn an_index_at_a_loss_is_nothing_without_its_journal(world: &World) {
    let headless = World::new();
    copy(&world.path("journal"), &headless.path("journal"));
    headless.snapshots().iter().chain(&headless.logs()).for_each(|file| flip(file, 20));
    let place = headless.path("journal.new");
    fs::write(&place, "").unwrap();
    assert!(rebuilt(&headless).is_err());
    let refused = headless.try_open(NEVER).err();
    assert!(matches!(refused, Some(Error::Corrupt(_))), "{refused:?}");
    fs::remove_file(place).unwrap();
    assert!(rebuilt(&headless).unwrap().is_some());
}

/// An older index and log were put back: the commits between them and the snapshot are missing, and
/// the snapshot has them.
#[test]
fn a_snapshot_has_what_index_and_logs_do_not_come_to() {
    let world = World::with(90, NEVER);
    world.keep_index();
    let log = world.logs().remove(0);
    let early = fs::read(&log).unwrap();
    world.add(&world.open(SAVE_BYTES), 90..300);
    assert!(!world.snapshots().is_empty() && !log.exists());
    world.put_index_back();
    fs::write(&log, early).unwrap();
    // The leftover of a rebuild that was killed does not prevent a start, which removes it.
    fs::create_dir(world.path("journal.new")).unwrap();
    world.reopened(300);
    assert!(!world.path("journal.new").exists());
}

#[test]
fn a_store_is_told_from_a_new_one_whatever_its_pages_are() {
    let world = World::with(50, NEVER);
    world.runtime.block_on(world.open(NEVER).begun(UnixMillis(1))).unwrap();
    let db = world.sled();
    let first = db.range("A"..).keys().next().unwrap().unwrap();
    db.insert(first, b"\xff\xff").unwrap();
    drop(db);
    assert_eq!(world.open(NEVER).is_new(), Ok(false));
    assert_eq!(World::new().open(NEVER).is_new(), Ok(true));
}
