//! `streamlined token generate`, beside a running daemon and without one.

use std::{path::Path, process::Output};

use crate::support::{Daemon, command::command};

fn generate(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, &[&["token", "generate"], arguments].concat())
}

/// The token in the block that the command prints.
pub fn token_in(output: &Output) -> String {
    let printed = str::from_utf8(&output.stdout).unwrap();
    printed.lines().skip_while(|line| *line != "Token:").nth(1).unwrap().to_owned()
}

#[test]
fn it_prints_the_documented_block_and_the_token_works() {
    let daemon = Daemon::start();
    let output = generate(&daemon.dir(), &["classification-service", "--days", "730"]);
    assert!(output.status.success());
    let token = token_in(&output);
    let rule = "=".repeat(80);
    let wanted = format!(
        "{rule}\nService Token Generated Successfully\n{rule}\n\n\
         Service Name: classification-service\nRole: service\nValid for: 730 days\n\n\
         Token:\n{token}\n\n\
         {rule}\nUsage in HTTP requests:\n  Authorization: Bearer {token}\n{rule}\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
    daemon.user("u").store("f", "", b"x");
    assert_eq!(daemon.bearer(&token).names("?user_id=u"), ["f"]);
}

#[test]
fn it_makes_the_keys_that_a_later_daemon_uses() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let tokens = [0, 1].map(|_| token_in(&generate(&data, &["s"])));
    let daemon = Daemon::on(&data);
    for token in tokens {
        daemon.bearer(&token).get("/v1/files/all?user_id=u").ok();
    }
    let keys = daemon.anyone().get("/.well-known/jwks.json").ok();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn wrong_usage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["s", "--days", "0"][..], &["s", "--days", "x"], &[" "], &[]] {
        let output = generate(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
