//! `import` takes over the tree of another server, beside a daemon and without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};

use crate::support::{
    Daemon, bytes,
    client::encode,
    command::{report, run},
    daemon::BINARY,
    eventually, settle, sha256,
};

/// A tree of the other server.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("storage")).unwrap();
        Self(dir)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.path().join(key)
    }

    fn plain(&self, key: &str, content: &[u8]) {
        fs::create_dir_all(self.path(key).parent().unwrap()).unwrap();
        fs::write(self.path(key), content).unwrap();
    }

    fn side(&self, key: &str, side: &Value) {
        self.plain(&format!("{key}.meta"), side.to_string().as_bytes());
    }

    /// Writes a file, with its side file, as the other server kept it.
    fn file(&self, key: &str, content: &[u8], more: &Value) {
        let mut side = json!({"sha256": sha256(content), "mime": "text/x-old"});
        side.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.plain(key, content);
        self.side(key, &side);
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("import").arg(self.0.path()).arg("--json").env_clear();
        command.arg("--data-dir").arg(data);
        command
    }

    fn import(&self, data: &Path) -> Imported {
        Imported::of(&self.command(data).output().unwrap())
    }
}

struct Imported {
    status: Option<i32>,
    sums: Value,
    left_out: BTreeMap<String, String>,
}

impl Imported {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let sums = lines.pop();
        let sums = sums.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let word = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
        let left_out = lines.iter().map(|line| (word(line, "left_out"), word(line, "why")));
        Self { status: output.status.code(), sums, left_out: left_out.collect() }
    }

    fn counts(&self) -> [u64; 3] {
        ["taken_over", "listed_already", "left_out"].map(|name| self.sums[name].as_u64().unwrap())
    }
}

#[test]
fn every_key_is_kept_with_what_its_side_file_says() {
    let tree = Tree::new();
    let more = json!({
        "user_id": "u@x.io", "folder": "a b/ü", "filename": "n|1?.txt", "original_name": "other",
        "created_at": "2021-02-03T04:05:06.789+00:00", "size": 5, "project": "p",
    });
    let key = "storage/u@x.io/a b/ü/0000abcd_n_1_.txt";
    tree.file(key, b"hello", &more);
    let large = bytes(1, 3_000_000);
    tree.file("storage/v/0badCAFE_large.bin", &large, &json!({"original_name": "large.bin"}));
    tree.plain("storage/v/x/00000001_no side.png", b"png");
    tree.file("storage/v/00000002_of.meta", b"a name like a side file's", &json!({}));
    let daemon = Daemon::start();
    let imported = tree.import(&daemon.dir());
    assert_eq!(imported.left_out, BTreeMap::new());
    assert_eq!((imported.status, imported.counts()), (Some(0), [4, 0, 0]));
    assert_eq!(imported.sums["without_side_file"], 1);
    let service = daemon.service();
    let told = |key: &str| service.get(&format!("/v1/files/metadata/{}", encode(key))).ok();
    let file = told(key);
    assert_eq!(
        [&file["key"], &file["filename"], &file["folder"], &file["mime"], &file["createdAt"]],
        [key, "n|1?.txt", "a b/ü", "text/x-old", "2021-02-03T04:05:06.789Z"],
    );
    assert_eq!((&file["meta"], &file["size"]), (&json!({"project": "p"}), &json!(5)));
    assert_eq!(daemon.user("u@x.io").content(key).body, b"hello");
    assert_eq!(service.content("storage/v/0badCAFE_large.bin").body, large);
    assert_eq!(told("storage/v/x/00000001_no side.png")["mime"], "image/png");
    assert_eq!(told("storage/v/00000002_of.meta")["filename"], "of.meta");
    assert_eq!(service.names("?user_id=v&folder=x"), ["no side.png"]);
    // Files are listed by the time at which they were first stored, not by that of the import.
    let put = service.put("/v1/files/content?user_id=u@x.io&filename=new", "x");
    assert_eq!(put.status, 201);
    assert_eq!(service.names("?user_id=u@x.io"), ["new", "n|1?.txt"]);
    let again = tree.import(&daemon.dir());
    assert_eq!((again.status, again.counts()), (Some(0), [0, 4, 0]));
}

#[test]
fn what_cannot_be_taken_over_is_named_and_the_rest_is() {
    let tree = Tree::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("00000000_secret"), "secret").unwrap();
    fs::write(outside.path().join("side"), "{}").unwrap();
    let here = |name: &str| format!("storage/u/{name}");
    tree.file(&here("00000001_good"), b"good", &json!({}));
    tree.file(&here("00000002_digest"), b"bad", &json!({"sha256": sha256(b"other")}));
    tree.file(&here("00000003_digest"), b"bad", &json!({"sha256": "short"}));
    tree.file(&here("00000004_user"), b"x", &json!({"user_id": "v"}));
    tree.plain(&here("00000005_side"), b"x");
    tree.plain(&here("00000005_side.meta"), b"no json");
    tree.plain(&here("00000006_orphan.meta"), b"{}");
    tree.plain(&here("no key"), b"x");
    tree.plain("storage/top", b"x");
    tree.plain("storage/a#b/00000007_n", b"x");
    tree.plain(&here("00000008_back\\slash"), b"x");
    tree.plain(&here("00000009_new\nline"), b"x");
    tree.plain(&format!("storage/u/{}/0000000a_deep", vec!["d"; 33].join("/")), b"x");
    symlink(outside.path().join("00000000_secret"), tree.path(&here("0000000b_link"))).unwrap();
    symlink(outside.path(), tree.path(&here("linked"))).unwrap();
    let _socket = UnixListener::bind(tree.path(&here("0000000c_socket"))).unwrap();
    let pipe = Command::new("mkfifo").arg(tree.path(&here("0000000d_pipe"))).status();
    assert!(pipe.unwrap().success());
    tree.plain(&here("0000000e_side"), b"x");
    symlink(outside.path().join("side"), tree.path(&here("0000000e_side.meta"))).unwrap();

    let daemon = Daemon::start();
    let dry = Imported::of(&tree.command(&daemon.dir()).arg("--dry-run").output().unwrap());
    assert!(daemon.service().names("?user_id=u").is_empty());
    let imported = tree.import(&daemon.dir());
    let wanted = [
        ("storage/u/00000002_digest", "the content has SHA-256"),
        ("storage/u/00000003_digest", "sha256 must be 64 hex"),
        ("storage/u/00000004_user", "names another user"),
        ("storage/u/00000005_side", "its side file: expected"),
        ("storage/u/00000006_orphan.meta", "without its file"),
        ("storage/u/no key", "not of the form"),
        ("storage/top", "no file can"),
        ("storage/a#b/00000007_n", "the user id must not"),
        ("storage/u/00000008_back\\slash", "no file can"),
        ("storage/u/00000009_new\nline", "no file can"),
        ("storage/u/0000000b_link", "symbolic link"),
        ("storage/u/linked", "symbolic link"),
        ("storage/u/0000000c_socket", "not a regular file"),
        ("storage/u/0000000d_pipe", "not a regular file"),
        ("storage/u/0000000e_side", "its side file: "),
    ];
    for report in [&dry, &imported] {
        let why: BTreeMap<&str, &str> =
            report.left_out.iter().map(|(path, why)| (path.as_str(), why.as_str())).collect();
        for (path, wanted) in wanted {
            let why = why.get(path).unwrap_or_else(|| panic!("{path} in {why:#?}"));
            let why = why.to_lowercase();
            assert!(why.contains(&wanted.to_lowercase()), "{path}: {why}");
        }
        assert!(why.keys().any(|path| path.ends_with("/d/d")), "{why:#?}");
        assert_eq!((report.status, report.counts()), (Some(1), [1, 0, 17]), "{why:#?}");
    }
    assert_eq!(daemon.service().names("?user_id=u"), ["good"]);
}

/// A media type that is too long for any request is not sent; its own file and the others are taken
/// over.
#[test]
fn a_media_type_that_is_none_is_left_out_alone() {
    let tree = Tree::new();
    for n in 0..20 {
        let more = if n == 3 { json!({"mime": "x".repeat(70_000)}) } else { json!({}) };
        tree.file(&format!("storage/u/{n:08x}_n.txt"), b"x", &more);
    }
    let daemon = Daemon::start();
    let imported = tree.import(&daemon.dir());
    assert_eq!((imported.status, imported.counts()), (Some(0), [20, 0, 0]));
    let file = daemon.service().content("storage/u/00000003_n.txt");
    assert_eq!(file.header("content-type"), "text/plain");
}

#[test]
fn what_is_listed_stays_as_it_is() {
    let tree = Tree::new();
    let key = "storage/u/00000001_n";
    tree.file(key, b"first", &json!({}));
    let daemon = Daemon::start();
    assert_eq!(tree.import(&daemon.dir()).counts(), [1, 0, 0]);
    tree.file(key, b"other", &json!({}));
    let imported = tree.import(&daemon.dir());
    assert_eq!(imported.counts(), [0, 0, 1]);
    assert!(imported.left_out[key].contains("other content"));
    assert_eq!(daemon.service().content(key).body, b"first");
    // If the side file has no digest, the content itself is compared.
    tree.side(key, &json!({}));
    assert_eq!(tree.import(&daemon.dir()).counts(), [0, 0, 1]);
    fs::write(tree.path(key), b"first").unwrap();
    assert_eq!(tree.import(&daemon.dir()).counts(), [0, 1, 0]);
}

#[test]
fn the_default_quota_lets_in_what_is_there_and_a_set_one_does_not() {
    let tree = Tree::new();
    tree.file("storage/u/00000001_n", &[1; 2000], &json!({}));
    tree.file("storage/held/00000002_n", &[2; 2000], &json!({}));
    let daemon = Daemon::with(&[("quota_bytes", "1KiB"), ("file_bytes_max", "1KiB")]);
    run(&daemon.dir(), &["user", "set", "held", "--quota", "1KiB"]);
    let imported = tree.import(&daemon.dir());
    assert_eq!(imported.counts(), [1, 0, 1]);
    assert!(imported.left_out["storage/held/00000002_n"].contains("quota"));
    let put = daemon.user("u").put("/v1/files/content?filename=n", "x");
    put.refused(413, "quota_exceeded");
}

/// A tree of `count` files for three users. Most are small; some are large enough for a blob file
/// of their own.
fn forest(count: u64) -> (Tree, Vec<(String, Vec<u8>)>) {
    let tree = Tree::new();
    let names =
        ["a b", "ü€", "'quotes\" & <tags>", "100% +plus", "-rf", "..hidden", "emoji 🦀.txt"];
    let mut files = Vec::new();
    for n in 0..count {
        let name = names[usize::try_from(n).unwrap() % names.len()];
        let key = format!("storage/user{}/f{}/{n:08x}_{name}", n % 3, n % 5);
        let content = bytes(n, if n % 50 == 0 { 300_000 } else { usize::try_from(n).unwrap() });
        tree.file(&key, &content, &json!({"original_name": name}));
        files.push((key, content));
    }
    (tree, files)
}

#[test]
fn an_import_that_was_killed_goes_on() {
    let (tree, files) = forest(600);
    let daemon = Daemon::start();
    let count = || {
        let total = |user: &str| {
            let path = format!("/v1/files/all?user_id={user}&limit=1");
            daemon.service().get(&path).ok()["total_count"].as_u64().unwrap()
        };
        total("user0") + total("user1") + total("user2")
    };
    let mut first = tree.command(&daemon.dir()).stdout(Stdio::null()).spawn().unwrap();
    eventually(|| count() > 0);
    first.kill().unwrap();
    first.wait().unwrap();
    let before = count();
    let again = tree.import(&daemon.dir());
    let [taken, listed, left_out] = again.counts();
    assert_eq!((taken + listed, left_out), (600, 0), "{:?}", again.left_out);
    // What was on its way when the first import died may have been stored or not.
    assert!(listed >= before && before > 0, "{listed} {before}");
    assert!(taken > 0, "the first import was over before it was killed");
    stands(&daemon, &tree, &files);
}

/// Fault points that kill the process that does the work again and again: between the steps of
/// storing a small content, a large one, and their records.
const DEADLY: [&str; 6] = [
    "pack: written 3",
    "pack: durable 4",
    "file: written 3",
    "file: name durable 3",
    "commit: journal durable 6",
    "commit: seen 7",
];

/// The keys that are listed; each must be listed once.
fn listed(daemon: &Daemon) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for user in ["user0", "user1", "user2"] {
        let page = daemon.service().get(&format!("/v1/files/all?user_id={user}")).ok();
        for file in page["files"].as_array().unwrap() {
            let key = file["key"].as_str().unwrap().to_owned();
            assert!(keys.insert(key), "{file} is listed twice");
        }
    }
    keys
}

/// Checks that every file of a forest is there, once, and that `fsck` finds nothing wrong.
fn stands(daemon: &Daemon, tree: &Tree, files: &[(String, Vec<u8>)]) {
    let count = u64::try_from(files.len()).unwrap();
    assert_eq!(tree.import(&daemon.dir()).counts(), [0, count, 0]);
    let keys: BTreeSet<String> = files.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(listed(daemon), keys);
    for (key, content) in files {
        assert!(daemon.service().content(key).body == *content, "{key}");
    }
    report(&daemon.dir(), &["fsck"]);
}

#[test]
fn an_import_whose_daemon_dies_again_and_again_comes_to_its_end() {
    let (tree, files) = forest(300);
    for point in DEADLY {
        // The fault point counts only while the import runs, not what the daemon does by itself.
        let place = tempfile::tempdir().unwrap();
        let armed = place.path().join("armed");
        let environment =
            [("SLT_FAULT_POINT", point), ("SLT_FAULT_AFTER", armed.to_str().unwrap())];
        let mut daemon = Daemon::under(&[], &environment);
        let (mut deaths, mut before) = (0, BTreeSet::new());
        loop {
            settle(&daemon);
            fs::write(&armed, "").unwrap();
            let output = tree.command(&daemon.dir()).output().unwrap();
            fs::remove_file(&armed).unwrap();
            if output.status.success() {
                // The last run found exactly what was stored before, and brought the rest.
                let [taken, known, left_out] = Imported::of(&output).counts();
                assert_eq!([taken + known, known, left_out], [300, before.len() as u64, 0]);
                break;
            }
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("streamlined: ") && output.status.code() == Some(1), "{said}");
            daemon.wait();
            daemon.resume();
            deaths += 1;
            let now = listed(&daemon);
            assert!(now.is_superset(&before), "{point}: {:?}", before.difference(&now));
            before = now;
        }
        eprintln!("{point}: {deaths} deaths");
        assert!(deaths > 0, "{point}");
        stands(&daemon, &tree, &files);
    }
}

#[test]
fn an_import_without_a_daemon_that_dies_again_and_again_comes_to_its_end() {
    let (tree, files) = forest(300);
    for point in DEADLY {
        let mut daemon = Daemon::start();
        daemon.stop();
        let mut deaths = 0;
        loop {
            let output =
                tree.command(&daemon.dir()).env("SLT_FAULT_POINT", point).output().unwrap();
            if output.status.success() {
                let [taken, known, left_out] = Imported::of(&output).counts();
                assert_eq!((taken + known, left_out), (300, 0));
                break;
            }
            assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()), "{point}");
            deaths += 1;
        }
        eprintln!("{point}: {deaths} deaths");
        assert!(deaths > 0, "{point}");
        daemon.resume();
        stands(&daemon, &tree, &files);
    }
}

/// The import is the first command on a new directory, and may leave content there but no file.
#[test]
fn an_import_that_took_nothing_over_stops_no_start() {
    let tree = Tree::new();
    tree.file("storage/u/00000001_n", b"small", &json!({"sha256": sha256(b"other")}));
    tree.file("storage/u/00000002_n", &bytes(1, 300_000), &json!({"sha256": sha256(b"other")}));
    let place = tempfile::tempdir().unwrap();
    for died_at in [None, Some("pack: written 1"), Some("file: name durable 1")] {
        let data = place.path().join(died_at.unwrap_or("whole").replace([' ', ':'], ""));
        let mut command = tree.command(&data);
        if let Some(point) = died_at {
            let died = command.env("SLT_FAULT_POINT", point).output().unwrap();
            assert_eq!(died.status.signal(), Some(Signal::KILL.as_raw()), "{point}");
        } else {
            assert_eq!(Imported::of(&command.output().unwrap()).counts(), [0, 0, 2]);
        }
        Daemon::on(&data).user("u").store("n", "", b"content");
    }
}

/// The id of a user that the machine does not have.
const DAEMON: u32 = 61_234;

/// Root runs the command for a daemon of another user, who must own all that it makes.
#[test]
fn root_leaves_no_files_that_the_daemon_could_not_open() {
    if !geteuid().is_root() {
        eprintln!("only root can try this");
        return;
    }
    let (tree, _) = forest(20);
    // As systemd keeps the state of a dynamic user: below a directory that only root can enter.
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(tree.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data = private.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(DAEMON), Some(DAEMON)).unwrap();
    assert_eq!(tree.import(&data).counts(), [20, 0, 0]);
    let mut dirs = vec![data];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (DAEMON, DAEMON), "{}", entry.path().display());
            if found.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
}
