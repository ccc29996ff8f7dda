//! A log that cannot be written: requests go on, and commands end as they would otherwise.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    reload::log,
    support::{
        Client,
        daemon::{BINARY, TOKEN, signal},
        eventually,
    },
};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe without a reader: writing to it fails with `EPIPE`.
fn broken() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn serve(data: &Path, stderr: Stdio) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).env_clear();
    command.stdout(Stdio::null()).stderr(stderr);
    command
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    for stderr in [full(), broken()] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut serve = serve(&data, stderr);
        let mut child = serve.env("STREAMLINED_SERVICE_TOKEN", TOKEN).spawn().unwrap();
        eventually(|| {
            assert!(child.try_wait().unwrap().is_none(), "the daemon ended");
            data.join("listen").exists()
        });
        let url = format!("http://{}", fs::read_to_string(data.join("listen")).unwrap().trim());
        let service = Client::new(&url, &[("x-service-token", TOKEN)]);
        let stored = || {
            let path = "/v1/files/content?user_id=u&filename=f";
            assert_eq!(service.put(path, b"content").status, 201);
            // One of the refusals that are logged.
            service.anonymous().get("/v1/files/all").refused(401, "unauthenticated");
        };
        stored();
        signal(&child, Signal::HUP);
        // The log cannot tell when the configuration was read again. The filter can: one that was
        // set by command is then replaced by the configured one.
        assert_eq!(log(&data, &["debug"]), "debug");
        stored();
        signal(&child, Signal::HUP);
        eventually(|| log(&data, &[]) == "info");
        stored();
        signal(&child, Signal::TERM);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_first_token_that_cannot_be_shown_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(serve(&data, full()).status().unwrap().code(), Some(1));
    let log = dir.path().join("log");
    let mut child = serve(&data, File::create(&log).unwrap().into()).spawn().unwrap();
    eventually(|| data.join("listen").exists());
    assert!(fs::read_to_string(&log).unwrap().contains("service token (shown once"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_command_that_cannot_say_why_ends_by_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    for stderr in [full(), broken()] {
        let mut fsck = Command::new(BINARY);
        fsck.args(["fsck", "--data-dir"]).arg(dir.path()).env_clear();
        assert_eq!(fsck.stderr(stderr).status().unwrap().code(), Some(1));
    }
    for stderr in [full(), broken()] {
        let mut unknown = Command::new(BINARY);
        assert_eq!(unknown.arg("unknown").stderr(stderr).status().unwrap().code(), Some(2));
    }
}
