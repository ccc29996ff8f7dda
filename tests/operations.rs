//! Runs the commands of `docs/OPERATIONS.md` as they are written.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

/// Stands in for `systemctl`: starts and stops the daemon with the unit's credentials,
/// configuration and data directory. `--listen` stands in for the socket unit, whose address
/// overrides the setting.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
verb=$1
case "$*" in *streamlined.service*) ;; *) exit 0 ;; esac
stop() {
  [ -f ROOT/pid ] || return 0
  kill "$(cat ROOT/pid)"
  while kill -0 "$(cat ROOT/pid)" 2>/dev/null; do sleep 0.05; done
  rm ROOT/pid
}
start() {
  CREDENTIALS_DIRECTORY=ROOT/etc/credstore streamlined serve \
    --config ROOT/etc/streamlined/streamlined.toml --data-dir ROOT/var/lib/streamlined \
    --listen 127.0.0.1:PORT >>ROOT/log 2>&1 </dev/null &
  echo $! >ROOT/pid
  for _ in $(seq 600); do
    ! grep -qs : ROOT/var/lib/streamlined/listen || exit 0
    sleep 0.05
  done
  exit 1
}
case $verb in
  enable | start) start ;;
  stop) stop ;;
  restart) stop; start ;;
esac
"#;

/// Commands that need more than a test has: a Debian package, or a release and a build of half an
/// hour. The mark of each names the script that tries it.
const ELSEWHERE: [(&str, &str); 3] = [
    ("tried by .ci/deb", "apt install ./streamlined_VERSION-1_amd64.deb"),
    (
        "tried by .ci/release",
        "sha256sum --check SHA256SUMS
tar xf streamlined-VERSION.tar.gz
cd streamlined-VERSION
SOURCE_DATE_EPOCH=0 .ci/offline
sha256sum target/release/streamlined",
    ),
    ("tried by .ci/deb", "apt install ./streamlined_0.2.0-1_amd64.deb"),
];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap()
}

/// The code blocks whose info string begins with this word, each with the rest of its info string.
fn blocks<'a>(page: &'a str, word: &str) -> Vec<(&'a str, &'a str)> {
    let all = page.split("\n```").skip(1).step_by(2);
    let marked = all.filter_map(|block| {
        let (mark, text) = block.split_once('\n').unwrap();
        let rest = mark.strip_prefix(word)?;
        assert!(rest.is_empty() || rest.starts_with(' '), "{mark}");
        Some((rest.trim_start(), text))
    });
    marked.collect()
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_not_run_here_is_known_and_tried_elsewhere() {
    let page = page();
    let version = env!("CARGO_PKG_VERSION");
    let wanted = ELSEWHERE.map(|(mark, text)| (mark, text.replace("VERSION", version)));
    let found = blocks(&page, "console");
    assert_eq!(found, wanted.each_ref().map(|(mark, text)| (*mark, text.as_str())));
    for (mark, _) in ELSEWHERE {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(&mark["tried by ".len()..]);
        assert!(script.metadata().unwrap().permissions().mode() & 0o100 != 0, "{mark}");
    }
    let marked = ["console", "sh", "ini", "nginx"].map(|mark| blocks(&page, mark).len());
    assert_eq!(
        marked.iter().sum::<usize>() * 2,
        page.matches("\n```").count(),
        "every block says what it is"
    );
}

#[test]
fn commands_in_the_text_are_those_of_the_program() {
    const COMMANDS: [&str; 12] = [
        "audit", "backup", "config", "fsck", "gc", "import", "key", "log", "restore", "scrub",
        "token", "user",
    ];
    let page = page();
    let text: String = page.split("\n```").step_by(2).collect();
    let mut tried = 0;
    for span in text.split('`').skip(1).step_by(2) {
        let words = span.strip_prefix("streamlined ").unwrap_or(span).split_whitespace();
        if !words.clone().next().is_some_and(|word| COMMANDS.contains(&word)) {
            continue;
        }
        // An unknown word is refused even with `--help` behind it.
        let mut program = Command::new(env!("CARGO_BIN_EXE_streamlined"));
        let output = program.args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{span}: {}", String::from_utf8_lossy(&output.stderr));
        tried += 1;
    }
    assert!(tried > 8, "{tried}");
}

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let page = page();
    let blocks = blocks(&page, "sh");
    let commands = blocks.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n");
    assert!(commands.lines().count() > 40);
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for dir in ["bin", "etc/streamlined", "var/lib/private/streamlined", "mnt/new"] {
        fs::create_dir_all(path(dir)).unwrap();
    }
    // The layout that StateDirectory= makes.
    fs::create_dir(path("var/lib/private/streamlined-backup")).unwrap();
    for name in ["streamlined", "streamlined-backup"] {
        let private = format!("private/{name}");
        symlink(private, path(&format!("var/lib/{name}"))).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_streamlined"));
    symlink(binary, path("bin/streamlined")).unwrap();
    let example = Command::new(binary).args(["config", "example"]).output().unwrap();
    fs::write(path("etc/streamlined/streamlined.toml"), example.stdout).unwrap();
    let old = path("srv/old-server/storage/u");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("0000abcd_n"), "n").unwrap();

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let here = root.path().to_str().unwrap();
    executable(&path("bin/systemctl"), &SYSTEMCTL.replace("ROOT", here).replace("PORT", &port));
    let mut script = commands.replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"));
    for dir in ["/etc/", "/var/lib/", "/srv/", "/mnt/"] {
        script = script.replace(dir, &format!("{here}{dir}"));
    }
    let search = format!("{here}/bin:{}", std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &script])
        .env_clear()
        .env("PATH", search)
        .output()
        .unwrap();
    if let Ok(pid) = fs::read_to_string(path("pid")) {
        Command::new("kill").arg(pid.trim()).status().unwrap();
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let log = fs::read_to_string(path("log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n{log}");
    let shown = String::from_utf8_lossy(&output.stdout);
    let listed = shown.matches("_streamlined.toml").count();
    assert!(listed >= 3, "put, listed, listed after the restore: {shown}");
    for line in log.lines() {
        assert!(!line.contains(r#""level":"ERROR""#), "{line}");
    }
}
