//! Data directories that older versions wrote.

use std::process::Command;

use rustix::process::Signal;

use crate::support::Daemon;

/// Two files and an open upload of 100 of 300 bytes, as format 1 kept them: no journal.
const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-1.tar.gz");

#[test]
fn a_directory_of_format_1_is_taken_over() {
    let mut daemon = Daemon::prepared(|data| {
        let unpacked = Command::new("tar").arg("-xzf").arg(FORMAT_1).arg("-C").arg(data).status();
        assert!(unpacked.unwrap().success());
    });
    for _ in 0..2 {
        let format = std::fs::read_to_string(daemon.dir().join("FORMAT")).unwrap();
        assert_eq!(format, "5\n");
        let service = daemon.service();
        let list = service.get("/v1/files/all?user_id=alice").ok();
        assert_eq!(list["total_size"], 70_100);
        let small = service.content("storage/alice/main/pictures/7337235e_small.txt");
        assert_eq!(small.body, [b'a'; 100]);
        let large = service.content("storage/alice/main/6f8b7e5b_large.txt");
        assert_eq!(large.body, vec![b'b'; 70_000]);
        // From the new journal alone.
        daemon.expect_trouble("rebuilt from the journal");
        std::fs::remove_dir_all(daemon.dir().join("meta")).unwrap();
        daemon.restart(Signal::KILL);
    }
}
