//! The commands of the binary, beside a daemon or without one.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use super::daemon::BINARY;

/// Runs a command on a data directory.
pub fn command(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--data-dir").arg(data).env_clear();
    command.output().unwrap()
}

/// Runs a command that must succeed and returns the JSON that it prints.
pub fn run(data: &Path, arguments: &[&str]) -> Value {
    let output = succeeded(data, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must succeed and returns the report with which its output ends.
pub fn report(data: &Path, arguments: &[&str]) -> Value {
    let printed = String::from_utf8(succeeded(data, arguments).stdout).unwrap();
    serde_json::from_str(&printed[printed.find('{').unwrap()..]).unwrap()
}

fn succeeded(data: &Path, arguments: &[&str]) -> Output {
    let output = command(data, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output
}

/// Runs a command that must fail with this status and returns the one line that it prints.
pub fn refused(data: &Path, status: i32, arguments: &[&str]) -> String {
    let output = command(data, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    let is_one = said.lines().count() == 1 && said.starts_with("streamlined: ");
    assert!(is_one, "{arguments:?}: {said}");
    said
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
