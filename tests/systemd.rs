//! The systemd units: checked by systemd's own tools and against the program.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use streamlined::config::KNOBS;

/// The highest exposure level that is accepted, in tenths, as `systemd-analyze security
/// --threshold` takes it.
const EXPOSURE_MAX: &str = "15";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(units().join(name)).unwrap()
}

fn named(extensions: &[&str]) -> Vec<String> {
    let entries = fs::read_dir(units()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let named: Vec<String> =
        names.filter(|name| extensions.iter().any(|extension| name.ends_with(extension))).collect();
    assert!(named.len() >= 2, "{named:?}");
    named
}

#[test]
fn systemd_finds_nothing_to_say() {
    let root = tempfile::tempdir().unwrap();
    let (bin, system) = (root.path().join("usr/bin"), root.path().join("usr/lib/systemd/system"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(system.parent().unwrap()).unwrap();
    symlink("usr/bin", root.path().join("bin")).unwrap();
    // The units of this machine include the targets that ours name.
    let copied = Command::new("cp").args(["-a", "/usr/lib/systemd/system"]).arg(&system).status();
    assert!(copied.unwrap().success());
    for program in ["streamlined", "kill"] {
        let path = bin.join(program);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut names = named(&[".service", ".socket", ".timer"]);
    for name in &names {
        fs::copy(units().join(name), system.join(name)).unwrap();
    }
    // The socket unit that docs/OPERATIONS.md tells operators to write.
    let page = units().join("../docs/OPERATIONS.md");
    let page = fs::read_to_string(page).unwrap();
    let block = page.split_once("\n```ini\n# /etc/systemd/system/").unwrap().1;
    let (name, text) = block.split_once("\n```").unwrap().0.split_once('\n').unwrap();
    assert!(name.ends_with(".socket") && text.contains("FileDescriptorName=metrics"), "{block}");
    fs::write(system.join(name), text).unwrap();
    names.push(name.into());
    let root = format!("--root={}", root.path().display());
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no", &root]).args(&names).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn services_are_exposed_to_little() {
    for name in named(&[".service"]) {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--no-pager", &threshold]);
        let output = security.arg(units().join(&name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn services_call_the_program_as_it_is() {
    for name in named(&[".service"]) {
        let text = unit(&name);
        let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("/usr/bin/streamlined"));
        // An unknown word is refused even with `--help` behind it.
        let mut program = Command::new(env!("CARGO_BIN_EXE_streamlined"));
        let output = program.args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_secret_can_be_a_credential() {
    let service = unit("streamlined.service");
    let secrets: Vec<_> = KNOBS.iter().filter(|knob| knob.secret).collect();
    assert!(!secrets.is_empty());
    for knob in secrets {
        let line = format!("LoadCredential={}", knob.name);
        assert!(service.lines().any(|known| known == line), "{line}");
    }
}

/// systemd tries a failed start again without limit, because a disk may appear late.
#[test]
fn a_service_that_is_to_restart_is_never_given_up() {
    assert!(unit("streamlined.service").contains("\nRestart=always\n"));
    for name in named(&[".service"]) {
        let text = unit(&name);
        let (of_unit, of_service) = text.split_once("\n[Service]\n").unwrap();
        if of_service.contains("\nRestart=") {
            assert!(of_unit.contains("\nStartLimitIntervalSec=0\n"), "{name}");
        }
    }
}
