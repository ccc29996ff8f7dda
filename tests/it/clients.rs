//! Existing clients: the code and commands of the two integration documents, unchanged; token
//! libraries of two languages; browsers, tus clients and other tools. `.ci/test` makes the virtual
//! environment and `node_modules`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    Daemon,
    daemon::{BINARY, TOKEN},
};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(program: &Path, script: &str, daemon: &Daemon) {
    run_with(program, script, &[], daemon);
}

fn run_with(program: &Path, script: &str, arguments: &[&str], daemon: &Daemon) {
    assert!(
        program.exists(),
        "{} is missing: run .ci/test, which installs the test clients",
        program.display(),
    );
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    let output = Command::new(program)
        .arg(tests.join("clients").join(script))
        .args(arguments)
        .current_dir(&clients)
        .env("SERVER", daemon.url())
        .env("TOKEN", TOKEN)
        .env("STREAMLINED", BINARY)
        .env("DATA_DIR", daemon.dir())
        .env("SEEDS", tests.join("data/seeds"))
        .env("NODE_PATH", clients.join("node_modules"))
        .env("CLIENTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python"))
        .env("CHROMIUM", "/usr/bin/chromium")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.trim_end().ends_with("all held"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr),
    );
}

pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/venv/bin/python")
}

/// The path of Node, which is found on `PATH`. `node_modules/axios` shows that the set-up ran.
fn node() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/node_modules/axios");
    assert!(modules.exists(), "axios is missing: run .ci/test, which installs the test clients");
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join("node")).find(|node| node.exists());
    found.expect("node is on the path")
}

#[test]
fn the_python_of_the_upload_document_runs_unchanged() {
    run(&python(), "python/upload_document.py", &Daemon::start());
}

#[test]
fn the_node_of_the_upload_document_runs_unchanged() {
    run(&node(), "node/upload_document.js", &Daemon::start());
}

#[test]
fn answers_to_an_admin_have_the_shapes_that_are_described() {
    run(&python(), "python/administered.py", &Daemon::start());
}

#[test]
fn answers_about_uploads_have_the_shapes_and_codes_that_are_described() {
    run(&python(), "python/uploads.py", &Daemon::start());
}

#[test]
fn the_commands_of_both_documents_run_unchanged() {
    run(&python(), "python/commands.py", &Daemon::start());
}

#[test]
fn pyjwt_verifies_our_tokens_through_the_key_set() {
    run(&python(), "python/verify.py", &Daemon::start());
}

#[test]
fn the_python_example_checks_receipts() {
    run(&python(), "python/receipts.py", &Daemon::start());
}

#[test]
fn jose_verifies_our_tokens_through_the_key_set() {
    run(&node(), "node/verify.js", &Daemon::start());
}

#[test]
fn requests_curl_and_the_lints_of_redbot_take_our_downloads() {
    run(&python(), "python/downloads.py", &Daemon::start());
}

#[test]
fn schemathesis_finds_nothing_that_is_not_described() {
    // Each call claims an address of its own: schemathesis sends many requests without credentials,
    // and the daemon would delay the answers to one address.
    let daemon = Daemon::with(&[("trusted_proxies", "127.0.0.1")]);
    run(&python(), "python/described.py", &daemon);
}

#[test]
fn zipfile_and_unzip_read_our_archives() {
    run(&python(), "python/archives.py", &Daemon::start());
}

#[test]
fn naughty_strings_are_refused_or_come_back_as_they_were() {
    run(&python(), "python/names.py", &Daemon::start());
}

#[test]
fn yauzl_reads_our_archives() {
    run(&node(), "node/archives.js", &Daemon::start());
}

#[test]
fn chromium_plays_seeks_and_runs_nothing() {
    run(&node(), "node/browser.js", &Daemon::start());
}

#[test]
fn tus_js_client_uploads_through_a_wire_that_breaks() {
    run(&node(), "node/tus.js", &Daemon::start());
}

#[test]
fn aiotus_uploads_side_by_side_through_a_wire_that_breaks() {
    run(&python(), "python/concurrent_tus.py", &Daemon::start());
}

#[test]
fn a_page_of_an_allowed_origin_uploads_and_reads_in_chromium() {
    let port = free_port();
    let origin = format!("http://localhost:{port}");
    let daemon = Daemon::with(&[("allowed_origins", &origin)]);
    run_with(&node(), "node/origins.js", &[&port.to_string()], &daemon);
}

/// The daemon is behind a proxy that adds a prefix to every path.
#[test]
fn uppy_in_chromium_goes_on_after_cuts_and_a_reload() {
    let port = free_port();
    let proxied = format!("http://127.0.0.1:{port}/store");
    run(&node(), "node/uppy.js", &Daemon::with(&[("public_url", &proxied)]));
}

#[test]
fn tuspy_goes_on_after_an_interruption() {
    run(&python(), "python/tus.py", &Daemon::start());
}

#[test]
fn prometheus_parses_our_metrics_and_the_dashboard_names_what_is_there() {
    run(&python(), "python/metrics.py", &Daemon::with(&[("metrics", "admins")]));
}
