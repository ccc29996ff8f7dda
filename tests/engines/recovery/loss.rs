//! What a store that lost something is made of, and what is left as it is.

use super::*;

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
