//! What a store that lost something is made of, and what is left as it is.

use super::*;

/// The world with its index as it was after `then` users, in the journal's last log but one.
fn with_index_behind(first: u64, then: u64, save_bytes: u64) -> World {
    let world = World::with(first, save_bytes);
    copy(&world.path("meta"), &world.path("early"));
    world.add(&world.open(NEVER), first..then);
    fs::remove_dir_all(world.path("meta")).unwrap();
    fs::rename(world.path("early"), world.path("meta")).unwrap();
    world
}

fn rebuilt(world: &World) -> Result<Option<String>, Error> {
    SledMetadata::rebuild(&world.path(""), 16 << 20)
}

/// What a start refuses for one loss does not cost what only the index has.
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
        let named = "commit 216 cannot be read, and 217 to 230 behind it are left out";
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

/// No start reads a snapshot, or a log before the index's end.
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
        // It is the same store.
        let exported = world.runtime.block_on(world.open(NEVER).exported(backup.path()));
        assert_eq!(exported, Ok(Some(Exported::Before)), "{harm}");
        fs::remove_dir_all(world.path("meta")).unwrap();
        world.reopened(202);
    }
}

/// One that is to be made anew, of what cannot be read, may be the only one that has it.
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

/// What is lost is named again: up to the end of all of it nothing is out of its place.
#[test]
fn a_rebuild_that_fails_leaves_the_journal_as_it_was() {
    for has_index in [true, false] {
        let world = with_index_behind(30, 50, NEVER);
        if !has_index {
            fs::remove_dir_all(world.path("meta")).unwrap();
        }
        damage(world.logs().last().unwrap(), 40);
        // No directory can be made here.
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

/// Of a journal that lost records and says no more whose it is; it ends before another is there.
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

/// An index and a log of before were put back: between them and the snapshot commits are missing.
#[test]
fn a_snapshot_has_what_index_and_logs_do_not_come_to() {
    let world = World::with(90, NEVER);
    copy(&world.path("meta"), &world.path("early"));
    let log = world.logs().remove(0);
    let early = fs::read(&log).unwrap();
    world.add(&world.open(SAVE_BYTES), 90..300);
    assert!(!world.snapshots().is_empty() && !log.exists());
    fs::remove_dir_all(world.path("meta")).unwrap();
    fs::rename(world.path("early"), world.path("meta")).unwrap();
    fs::write(&log, early).unwrap();
    // What a rebuild that was killed left is in nobody's way, and goes.
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
