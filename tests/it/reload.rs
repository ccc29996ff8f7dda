//! SIGHUP: which settings are taken over, which are not, and that a fault changes nothing. Also
//! what is logged.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Signal, geteuid};

use crate::support::{
    Daemon,
    command::{command, refused},
    daemon::{BINARY, signal},
    eventually,
};

/// A daemon whose configuration file the test rewrites.
fn configured(file: &Path, text: &str) -> Daemon {
    fs::write(file, text).unwrap();
    Daemon::with(&[("config", file.to_str().unwrap())])
}

/// Asks a daemon for the filter of its log, or sets it.
pub fn log(data: &Path, arguments: &[&str]) -> String {
    let output = command(data, &[&["log"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn what_can_change_does_and_the_rest_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let mut daemon = configured(&file, "file_bytes_max = '10B'\n");
    let user = daemon.user("u");
    let put = |name: &str, size: usize| {
        user.put(&format!("/v1/files/content?filename={name}"), vec![1; size])
    };
    put("a", 11).refused(413, "too_large");
    daemon.expect_trouble("restart to apply it");
    let text = "file_bytes_max = '1KiB'\nrequests_per_second_max = 1\njournal_bytes = '1MiB'\n\
                jwt_issuer = 'another'\npublic_url = 'https://files.example/'\n\
                service_token = 'a-second-token-for-tests'\nlisten = '127.0.0.1:1'\n";
    fs::write(&file, text).unwrap();
    daemon.signal(Signal::HUP);
    eventually(|| daemon.log().contains("the configuration was read again"));
    // Flags and variables still override the file.
    let named: Vec<String> = daemon
        .log()
        .lines()
        .filter(|line| line.contains("restart to apply it"))
        .map(|line| line.split("\"setting\":\"").nth(1).unwrap().split('"').next().unwrap().into())
        .collect();
    assert_eq!(named, ["journal_bytes"]);
    // The user's token, which is cached as valid, names the previous issuer.
    put("b", 11).refused(401, "unauthenticated");
    let service = daemon.service();
    let path = "/v1/files/content?user_id=u&filename=c";
    let stored = service.put(path, vec![1; 11]);
    assert_eq!(stored.status, 201, "{stored:?}");
    let mut codes = Vec::new();
    eventually(|| {
        codes.push(service.get("/v1/files/all?user_id=u").status);
        codes.contains(&429)
    });
    let key = stored.json()["key"].as_str().unwrap().to_owned();
    let mut link = String::new();
    eventually(|| {
        let signed = service.get(&format!("/v1/files/signed-url?key={key}"));
        link = signed.json()["url"].as_str().unwrap_or_default().to_owned();
        signed.status == 200
    });
    assert!(link.starts_with("https://files.example/get/"), "{link}");
}

#[test]
fn a_faulty_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let mut daemon = configured(&file, "public_read = true\n");
    let key = daemon.user("u").store("f", "", b"x")["key"].as_str().unwrap().to_owned();
    daemon.expect_trouble("nothing was changed");
    fs::write(&file, "public_read = false\nquota_bytes = 'lots'\nlog = 'off'\n").unwrap();
    daemon.signal(Signal::HUP);
    eventually(|| daemon.log().contains("nothing was changed"));
    assert!(daemon.log().contains("c.toml:2: quota_bytes must be"), "{}", daemon.log());
    let faulty = "streamlined_reloads_total{what=\"configuration\",outcome=\"faulty\"} 1";
    assert!(daemon.operator("GET", "/metrics").contains(faulty));
    assert_eq!(daemon.anyone().get(&format!("/{key}")).status, 200);
    fs::write(&file, "public_read = false\n").unwrap();
    daemon.signal(Signal::HUP);
    eventually(|| daemon.anyone().get(&format!("/{key}")).status == 401);
}

#[test]
fn what_is_logged_changes_by_target_while_the_daemon_runs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let daemon = configured(&file, "log = 'info'\n");
    let requests = || daemon.log().matches("\"target\":\"streamlined::access\"").count();
    let ask = || daemon.anyone().get("/healthz").ok();
    ask();
    assert_eq!(requests(), 1);
    assert_eq!(log(&daemon.dir(), &[]), "info");
    let quiet = "info,streamlined::access=off";
    assert_eq!(log(&daemon.dir(), &[quiet]), quiet);
    ask();
    assert_eq!(requests(), 1);
    for wrong in ["/log?filter=a%3Db%3Dc", "/log?filter="] {
        let refused = daemon.operator("POST", wrong);
        assert!(refused.contains("400 ") && refused.contains("invalid_filter"), "{refused}");
    }
    assert_eq!(log(&daemon.dir(), &[]), quiet);
    daemon.signal(Signal::HUP);
    eventually(|| {
        ask();
        requests() > 1
    });
}

#[test]
fn the_line_of_a_request_says_all_and_no_secret() {
    let daemon = Daemon::start();
    let content = vec![7; 300_000];
    let stored = daemon.user("u@x.io").store("f", "", &content);
    let key = stored["key"].as_str().unwrap();
    let sign = format!("/v1/files/signed-url?key={key}&user_id=u%40x.io");
    let signed = daemon.service().get(&sign).ok();
    let link = signed["url"].as_str().unwrap();
    let got = daemon.anyone().get(link);
    assert_eq!(got.body, content);
    let mut lines = Vec::new();
    eventually(|| {
        lines = daemon
            .log()
            .lines()
            .filter(|line| line.contains("streamlined::access"))
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .collect();
        lines.len() == 4
    });
    let line = |route: &str| lines.iter().find(|line| line["route"] == route).unwrap();
    let put = line("/v1/files/content");
    assert_eq!((&put["method"], &put["status"]), (&"PUT".into(), &201.into()));
    assert_eq!(put["bytes_in"], content.len());
    assert_eq!(put["principal"], "user:u@x.io");
    assert_eq!(put["client"], "127.0.0.1");
    let fetched = line("/get/{encodedKey}");
    assert_eq!(fetched["bytes_out"], content.len());
    assert_eq!(fetched["request_id"], got.header("x-request-id"));
    assert!(fetched["ms"].as_f64().unwrap() >= fetched["ready_ms"].as_f64().unwrap());
    assert!(fetched["cut"].is_null());
    let signature = link.split("sig=").nth(1).unwrap().split('&').next().unwrap();
    assert!(signature.len() > 32 && !daemon.log().contains(signature));
}

/// The configuration is a named pipe here, so the start waits until the test closes it.
#[test]
fn a_hangup_in_a_start_is_for_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("c.toml"), dir.path().join("data"));
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let log = dir.path().join("log");
    let mut child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(&data)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    // Returns once the daemon has opened the other end.
    let pipe = fs::File::options().write(true).open(&file).unwrap();
    let other = dir.path().join("other.toml");
    fs::write(&other, "").unwrap();
    fs::rename(&other, &file).unwrap();
    signal(&child, Signal::HUP);
    drop(pipe);
    eventually(|| {
        assert!(child.try_wait().unwrap().is_none(), "the daemon ended");
        let log = fs::read_to_string(&log).unwrap();
        data.join("listen").exists() && log.contains("the configuration was read again")
    });
    signal(&child, Signal::TERM);
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_may_not_ask_the_daemon_is_not_told_that_none_runs() {
    if !geteuid().is_root() {
        return; // Only root can run a command as another user.
    }
    let daemon = Daemon::start();
    let mut command = Command::new(BINARY);
    command.args(["log", "--data-dir"]).arg(daemon.dir()).env_clear().uid(65534);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("for the daemon's own user") && said.contains("admin.sock"), "{said}");
    drop(daemon);
    let none = tempfile::tempdir().unwrap();
    let said = refused(none.path(), 1, &["log"]);
    assert!(said.contains("no daemon runs on"), "{said}");
}
