//! Data directories that older versions wrote.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Client, Daemon,
    command::{refused, report, run},
    sha256, staged_files,
};

/// Two files, and an open upload with 100 of its 300 bytes, in format 1, which has no journal.
const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-1.tar.gz");
/// The open uploads of [`IN_FORMAT_3`], partly received, which expire in a hundred years.
const FORMAT_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-3.tar.gz");
/// The files of [`in_format_5`], and one that was deleted.
const FORMAT_5: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-5.tar.gz");

/// Name, seed and size of the files that the open uploads of [`FORMAT_3`] are to become.
const IN_FORMAT_3: [(&str, usize, usize); 7] = [
    ("from-one", 1, 300_000),
    ("from-zero", 2, 200_000),
    ("whole", 3, 150_000),
    ("first", 4, 90_000),
    ("second", 9, 5),
    ("tus", 5, 400_000),
    ("growing", 5, 500_000),
];
/// The batch of the files `first` and `second`.
const BATCH: &str = "edf504aae3a983287cf2214ea8682e94";

fn unpack(fixture: &str, data: &Path) {
    let unpacked = Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(data).status();
    assert!(unpacked.unwrap().success());
}

#[test]
fn a_directory_of_format_1_is_taken_over() {
    let mut daemon = Daemon::prepared(|data| unpack(FORMAT_1, data));
    daemon.expect_trouble("keys/ had");
    for _ in 0..2 {
        let format = fs::read_to_string(daemon.dir().join("FORMAT")).unwrap();
        assert_eq!(format, "6\n");
        let service = daemon.service();
        let list = service.get("/v1/files/all?user_id=alice").ok();
        assert_eq!(list["total_size"], 70_100);
        let small = service.content("storage/alice/main/pictures/7337235e_small.txt");
        assert_eq!(small.body, [b'a'; 100]);
        let large = service.content("storage/alice/main/6f8b7e5b_large.txt");
        assert_eq!(large.body, vec![b'b'; 70_000]);
        // The next round reads from the new journal alone.
        daemon.expect_trouble("rebuilt from the journal");
        fs::remove_dir_all(daemon.dir().join("meta")).unwrap();
        daemon.restart(Signal::KILL);
    }
    // Content that format 1 stored is found by its SHA-256 only after it is stored again.
    let user = daemon.user("alice");
    let large = vec![b'b'; 70_000];
    let is_known = || {
        let file = json!({"name": "f", "size": large.len(), "sha256": sha256(&large)});
        let opened = user.post("/v1/files/init", json!({"mode": "single", "files": [file]})).ok();
        opened.get("known").is_some()
    };
    assert!(!is_known());
    user.store("again.txt", "main", &large);
    assert!(is_known());
}

/// The content that an upload of [`IN_FORMAT_3`] is to have.
fn content(name: &str) -> Vec<u8> {
    let &(_, seed, size) = IN_FORMAT_3.iter().find(|(known, ..)| *known == name).unwrap();
    (0..size).map(|at| u8::try_from((seed + at / 1000) % 256).unwrap()).collect()
}

/// The ids of the user's open uploads, by their names.
fn open(user: &Client) -> HashMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let list = user.get("/v1/files/uploads").ok();
    let uploads = list["uploads"].as_array().unwrap().iter();
    uploads.map(|upload| (text(&upload["name"]), text(&upload["uploadId"]))).collect()
}

/// Appends what is missing from `at` on, in two pieces.
fn append_rest(user: &Client, id: &str, whole: &[u8], at: usize) {
    let tus = user.header("tus-resumable", "1.0.0");
    let path = format!("/v1/tus/{id}");
    assert_eq!(tus.send("HEAD", &path, "").header("upload-offset"), at.to_string());
    let typed = tus.header("content-type", "application/offset+octet-stream");
    let sized = typed.header("upload-length", &whole.len().to_string());
    for (from, to) in [(at, at + 100_000), (at + 100_000, whole.len())] {
        let sent = sized.header("upload-offset", &from.to_string());
        assert_eq!(sent.send("PATCH", &path, &whole[from..to]).status, 204);
    }
}

/// A daemon on a fixture, whose index is there or has to be made anew.
fn taken_over(fixture: &str, from_journal: bool) -> Daemon {
    let mut daemon = Daemon::prepared(|data| {
        unpack(fixture, data);
        if from_journal {
            fs::remove_dir_all(data.join("meta")).unwrap();
        }
    });
    daemon.expect_trouble("keys/ had");
    if from_journal {
        daemon.expect_trouble("rebuilt from the journal");
    }
    daemon
}

/// Parts that format 3 kept in files of their own and in packs are joined with parts that arrive
/// now and lie in an assembly, whatever the order of their numbers.
#[test]
fn open_uploads_of_format_3_go_on_to_their_end() {
    for from_journal in [false, true] {
        let mut daemon = taken_over(FORMAT_3, from_journal);
        assert_eq!(fs::read_to_string(daemon.dir().join("FORMAT")).unwrap(), "6\n");
        let user = daemon.user("alice");
        let ids = open(&user);
        assert_eq!(ids.len(), IN_FORMAT_3.len());
        let put = |name: &str, number: u32, from: usize, to: usize| {
            let path = format!("/v1/files/{}/parts/{number}", ids[name]);
            user.put(&path, &content(name)[from..to]).ok();
        };
        put("from-one", 3, 140_000, 300_000);
        // This part was there already and is sent again.
        put("from-one", 2, 40_000, 140_000);
        put("from-zero", 1, 100_000, 170_000);
        put("first", 2, 70_000, 90_000);
        put("second", 1, 0, 5);
        for name in ["from-one", "from-zero", "whole"] {
            assert_eq!(user.complete(&ids[name]).ok()["sha256"], sha256(&content(name)));
        }
        let batch = user.complete(BATCH).ok();
        for (at, name) in ["first", "second"].into_iter().enumerate() {
            assert_eq!(batch["files"][at]["sha256"], sha256(&content(name)));
        }
        append_rest(&user, &ids["tus"], &content("tus"), 121_000);
        append_rest(&user, &ids["growing"], &content("growing"), 70_000);
        assert_eq!(open(&user), HashMap::new());
        daemon.restart(Signal::KILL);
        let user = daemon.user("alice");
        let list = user.get("/v1/files/all").ok();
        let files = list["files"].as_array().unwrap();
        assert_eq!(files.len(), IN_FORMAT_3.len());
        for file in files {
            let key = file["key"].as_str().unwrap();
            assert!(user.content(key).body == content(file["filename"].as_str().unwrap()), "{key}");
        }
        let tus = files.iter().find(|file| file["filename"] == "tus").unwrap();
        let told = user.get(&format!("/v1/files/metadata/{}", tus["key"].as_str().unwrap())).ok();
        assert_eq!(told["meta"], json!({"camera": "x100"}));
        // No file of the old parts is left behind.
        assert!(staged_files(&daemon).is_empty());
    }
}

/// Owner, folder, name and content of the files of [`FORMAT_5`], in the order in which they were
/// stored.
fn in_format_5() -> impl DoubleEndedIterator<Item = (&'static str, &'static str, String, String)> {
    (0..24).map(|n| {
        let folder = ["", "main", "main/pictures", "other"][n % 4];
        let content = format!("{} ", n % 20).repeat(n + 1);
        (["alice", "bob", "carol"][n % 3], folder, format!("{n}.txt"), content)
    })
}

/// When the index is opened, the record of each file moves to the other records of its owner.
#[test]
fn files_of_format_5_are_found_as_before() {
    for from_journal in [false, true] {
        let mut daemon = taken_over(FORMAT_5, from_journal);
        for _ in 0..2 {
            assert_eq!(fs::read_to_string(daemon.dir().join("FORMAT")).unwrap(), "6\n");
            for owner in ["alice", "bob", "carol"] {
                let user = daemon.user(owner);
                for folder in ["", "main", "main/pictures", "other"] {
                    let newest_first: Vec<_> = in_format_5()
                        .rev()
                        .filter(|file| file.0 == owner && file.1.starts_with(folder))
                        .collect();
                    let list = user.get(&format!("/v1/files/all?folder={folder}")).ok();
                    let files = list["files"].as_array().unwrap();
                    assert_eq!(files.len(), newest_first.len());
                    assert_eq!(list["total_count"], files.len());
                    for (file, (_, folder, name, content)) in files.iter().zip(newest_first) {
                        assert_eq!(
                            (&file["filename"], &file["folder"]),
                            (&json!(name), &json!(folder))
                        );
                        let whole = user.content(file["key"].as_str().unwrap());
                        assert_eq!(whole.body, content.as_bytes());
                        let image =
                            format!("/api/images/{}/download", file["id"].as_str().unwrap());
                        assert_eq!(user.get(&image).body, content.as_bytes());
                    }
                }
            }
            daemon.restart(Signal::KILL);
        }
        let user = daemon.user("alice");
        let list = user.get("/v1/files/all").ok();
        for file in list["files"].as_array().unwrap() {
            user.delete_file(file).ok();
        }
        assert_eq!(user.get("/v1/files/all").ok()["total_count"], 0);
        daemon.stop();
        assert_eq!(report(&daemon.dir(), &["fsck"])["findings"], json!([]));
    }
}

/// The index of an older format is made anew from the journal, so it must stay if the journal lacks
/// something that it has.
#[test]
fn an_index_that_the_journal_does_not_hold_stays() {
    let data = tempfile::tempdir().unwrap();
    unpack(FORMAT_3, data.path());
    let log = data.path().join("journal/0000000000000000.log");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..1000]).unwrap();
    let said = refused(data.path(), 1, &["user", "list"]);
    assert!(said.contains("cannot be rebuilt in its new layout from the journal"), "{said}");
    assert_eq!(fs::read_to_string(data.path().join("FORMAT")).unwrap(), "3\n");
    // Nothing is lost: once its journal is back, the directory is taken over.
    fs::write(&log, &whole).unwrap();
    let users = run(data.path(), &["user", "list"]);
    assert!(users.to_string().contains("alice"), "{users}");
}

/// Everything below a directory, with the content of each file.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.insert(path, Vec::new());
        } else if path.is_file() {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_directory_that_is_not_ours_is_left_as_it_is_by_every_command() {
    let mut daemon = Daemon::start();
    daemon.user("alice").store("f", "a", b"content");
    daemon.stop();
    let data = daemon.dir();
    let other = tempfile::tempdir().unwrap();
    let tree_of_before = other.path().join("before");
    fs::create_dir_all(tree_of_before.join("storage")).unwrap();
    let to = other.path().join("to").to_str().unwrap().to_owned();
    let some = tempfile::NamedTempFile::new().unwrap();
    let work: [&[&str]; 13] = [
        &["gc"],
        &["scrub"],
        &["fsck"],
        &["fsck", "--rebuild"],
        &["backup", &to],
        &["user", "list"],
        &["token", "list"],
        &["token", "revoke", "--jti", "a"],
        &["key", "list"],
        &["key", "rotate"],
        &["key", "import", some.path().to_str().unwrap()],
        &["user", "set", "alice", "--quota", "1"],
        &["import", tree_of_before.to_str().unwrap(), "--dry-run"],
    ];
    let begin: [&[&str]; 4] = [
        &["serve"],
        &["token", "create", "name"],
        &["token", "generate", "name"],
        &["import", tree_of_before.to_str().unwrap()],
    ];
    fs::write(data.join("FORMAT"), "99\n").unwrap();
    let before = tree(&data);
    for command in work.iter().chain(&begin) {
        let said = refused(&data, 1, command);
        assert!(said.contains("has format 99"), "{command:?}: {said}");
    }
    let from = data.to_str().unwrap();
    let restored = other.path().join("restored");
    let said = refused(&restored, 1, &["restore", from]);
    assert!(said.contains("has format 99"), "{said}");
    assert!(tree(&data) == before);

    // Nor does a command make a data directory of a wrong one.
    for is_there in [true, false] {
        let empty = other.path().join(format!("empty-{is_there}"));
        if is_there {
            fs::create_dir(&empty).unwrap();
        }
        for command in work {
            let said = refused(&empty, 1, command);
            assert!(said.contains("no FORMAT file"), "{command:?}: {said}");
        }
        assert!(!empty.exists() || tree(&empty).is_empty());
    }
    fs::remove_dir_all(tree_of_before).unwrap();
    assert_eq!(tree(other.path()).len(), 1, "but for the empty one");
}

/// A first start needs a directory that is empty or holds only what may be there before.
#[test]
fn a_directory_that_holds_something_else_is_not_taken_over() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("index.html"), "theirs").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = tree(place.path());
    for command in [&["serve"][..], &["token", "create", "x"], &["token", "generate", "x"]] {
        let said = refused(place.path(), 1, command);
        assert!(said.contains("holds index.html") && said.contains("empty directory"), "{said}");
    }
    assert!(tree(place.path()) == before);
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o755);
    let daemon = Daemon::prepared(|data| {
        fs::create_dir(data.join("lost+found")).unwrap();
        fs::create_dir(data.join("keys")).unwrap();
        fs::write(data.join("README.md"), "what this is").unwrap();
    });
    daemon.user("u").store("f", "", b"content");
}
