//! Starting: configuration, first start, what stops a start.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::support::{Daemon, daemon::BINARY};

#[test]
fn a_first_start_makes_everything_private() {
    let daemon = Daemon::start();
    let mode = |name: &str| {
        let path = daemon.dir().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for dir in ["", "meta", "blobs", "staging", "keys"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in ["FORMAT", "LOCK", "keys/link.key", "meta/db", "listen"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let health = daemon.anyone().get("/healthz").ok();
    assert_eq!((&health["status"], &health["writable"]), (&"healthy".into(), &true.into()));
    assert!(health["disk_free_gb"].as_f64().unwrap() > 0.0);
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_first_token_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = || {
        let log = dir.path().join("log");
        let mut child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .stderr(fs::File::create(&log).unwrap())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        crate::support::eventually(|| data.join("listen").exists());
        let address = fs::read_to_string(data.join("listen")).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        let token = text.lines().find_map(|line| line.split(": ").nth(1).map(str::to_owned));
        let token = token.filter(|token| token.starts_with("slt_"));
        let status = token.as_ref().map(|token| {
            let url = format!("http://{}", address.trim());
            let client = crate::support::Client::new(&url, &[("x-service-token", token)]);
            client.get("/v1/files/all?user_id=u").status
        });
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(data.join("listen")).unwrap();
        status
    };
    assert_eq!(start(), Some(200));
    assert_eq!(start(), None);
}

fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(BINARY);
    command.arg("serve").args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn all_faults_of_a_configuration_are_reported_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "quota_bytes = 'lots'\nspeed = 3\n").unwrap();
    let data = dir.path().join("data");
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "nowhere",
    ];
    let faults = refused(&arguments, &[("STREAMLINED_UPLOAD_TTL", "soon")]);
    for fault in [
        "c.toml:1: quota_bytes",
        "c.toml:2: there is no setting speed",
        "STREAMLINED_UPLOAD_TTL: upload_ttl",
        "--listen: listen must be HOST:PORT",
    ] {
        assert!(faults.contains(fault), "{faults}");
    }
    assert!(!data.exists());
}

#[test]
fn a_directory_in_use_or_of_another_format_is_left_alone() {
    let daemon = Daemon::start();
    let dir = daemon.dir();
    let arguments = ["--data-dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    assert!(refused(&arguments, &[]).contains("in use by another daemon"));
    daemon.anyone().get("/healthz").ok();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("FORMAT"), "99").unwrap();
    let arguments = ["--data-dir", other.path().to_str().unwrap()];
    assert!(refused(&arguments, &[]).contains("use a newer one"));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn a_token_that_everybody_knows_is_warned_of() {
    let public = "ee6d52ece4fa6c4c8836820d2eb7feeb6c78cbf2e2661ef76c9f5a805fc16340";
    let mut daemon = Daemon::with(&[("service_token", public)]);
    daemon.expect_trouble("printed in the public document");
    assert!(daemon.log().contains("printed in the public document"));
    assert!(!daemon.log().contains(public));
}
