//! Starting: configuration, first start, what stops a start.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::support::{
    Daemon,
    command::{self, run},
    daemon::BINARY,
};

#[test]
fn a_first_start_makes_everything_private() {
    let daemon = Daemon::within(tempfile::tempdir().unwrap());
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
    assert_eq!(mode("admin.sock"), 0o600);
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

#[test]
fn a_start_that_fails_shows_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["--data-dir", data.to_str().unwrap(), "--listen", &address];
    for certificate in [None, Some("/nonexistent")] {
        let tls = certificate.map(|path| ("STREAMLINED_TLS_CERTIFICATE", path));
        let key = certificate.map(|path| ("STREAMLINED_TLS_KEY", path));
        let variables: Vec<_> = tls.into_iter().chain(key).collect();
        let listen = if certificate.is_some() { "127.0.0.1:0" } else { &address };
        let said = refused(&[&arguments[..3], &[listen]].concat(), &variables);
        assert!(!said.contains("slt_"), "{said}");
    }
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
    let arguments = ["--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let variables = [("STREAMLINED_UPLOAD_TTL", "soon"), ("STREAMLINED_LISTEN", "nowhere")];
    let faults = refused(&arguments, &variables);
    for fault in [
        "c.toml:1: quota_bytes",
        "c.toml:2: there is no setting speed",
        "STREAMLINED_UPLOAD_TTL: upload_ttl",
        "STREAMLINED_LISTEN: listen must be HOST:PORT",
    ] {
        assert!(faults.contains(fault), "{faults}");
    }
    assert!(!data.exists());
}

/// Runs a command with nothing but `variables` in its environment; returns status, stdout and
/// stderr.
fn ran(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    let output = command.args(arguments).env_clear().envs(variables.iter().copied()).output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_check_names_every_fault_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let check = |text: &str, variables: &[(&str, &str)]| {
        fs::write(&file, text).unwrap();
        ran(&["config", "check", "--config", file.to_str().unwrap()], variables)
    };
    let secret = ("STREAMLINED_SERVICE_TOKEN", "far too short");
    let text = "scrub_every = '0d'\n\nquota = '5GiB'\nlisten = [1]\nlog = 'a=b=c'\n";
    let (status, out, err) = check(text, &[secret, ("STREAMLINED_PUBLIC_READ", "maybe")]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    let wanted = [
        "c.toml:1: scrub_every must be a time such as",
        "c.toml:3: there is no setting quota; did you mean quota_bytes?",
        "c.toml:4: listen must be a string, a whole number, true or false",
        "c.toml:5: log must be a filter such as",
        "STREAMLINED_PUBLIC_READ: public_read must be true or false, not \"maybe\"",
        "STREAMLINED_SERVICE_TOKEN: service_token must be 16 to 512",
    ];
    assert_eq!(err.lines().count(), wanted.len(), "{err}");
    for (line, wanted) in err.lines().zip(wanted) {
        assert!(line.starts_with("streamlined: ") && line.contains(wanted), "{line}");
    }
    assert!(!err.contains("far too"));
    // A JWT with the header `{"alg":"RS256"}` and the claims `{}`. If a JWT could also be an opaque
    // token, its kind would depend on which tokens are registered.
    let jwt = ("STREAMLINED_SERVICE_TOKEN", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln");
    let (status, _, err) = check("", &[jwt]);
    assert_eq!(status, Some(1));
    assert!(
        err.contains("STREAMLINED_SERVICE_TOKEN: service_token must be") && err.contains("JWT")
    );
    let text = "meta_cache_bytes = 255\njournal_bytes = '15KiB'\naudit_file_bytes = 1\n\
                scrub_bytes_per_second = 1\nlog = ''\npublic_url = 'http://'\n";
    let (status, _, err) = check(text, &[]);
    assert_eq!(status, Some(1));
    for wanted in [
        "c.toml:1: meta_cache_bytes must be at least 1024KiB",
        "c.toml:2: journal_bytes must be at least 16KiB",
        "c.toml:3: audit_file_bytes must be at least 64KiB",
        "c.toml:4: scrub_bytes_per_second must be at least 64KiB",
        "c.toml:5: log must not be empty",
        "c.toml:6: public_url must be an http(s) URL with a host",
    ] {
        assert!(err.contains(wanted), "{wanted}: {err}");
    }
    let (status, _, err) = check("a = 1\nb = = 2\n\nc = 'open\n", &[]);
    assert_eq!(status, Some(1));
    assert!(err.contains("c.toml:2: ") && err.contains("c.toml:4: "), "{err}");
    let (status, out, err) = check("listen = 'a:1'", &[]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.contains("No faults"), "{out}");
    let (status, _, err) = check("tls_certificate = '/no/c.pem'\ntls_key = '/no/k.pem'", &[]);
    assert_eq!(status, Some(1));
    assert!(err.contains("TLS: ") && err.contains("/no/c.pem"), "{err}");
}

#[test]
fn what_is_in_force_is_shown_with_its_source_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, "\nlisten = 'a:1'\nrequests_max = 7\n").unwrap();
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("service_token"), "a-very-secret-token").unwrap();
    let variables = [
        ("STREAMLINED_REQUESTS_MAX", "8"),
        ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap()),
    ];
    let file = file.to_str().unwrap();
    let arguments = ["config", "show", "--config", file, "--data-dir", "/d"];
    let (status, out, _) = ran(&arguments, &variables);
    assert_eq!(status, Some(0));
    for line in [
        "data_dir = \"/d\"  # --data-dir",
        &format!("listen = \"a:1\"  # {file}:2"),
        "requests_max = 8  # STREAMLINED_REQUESTS_MAX",
        "quota_bytes = \"500GiB\"  # default",
        "# public_url is not set",
        &format!("# service_token is hidden  # {}/service_token", credentials.display()),
    ] {
        assert!(out.lines().any(|shown| shown == line), "{line} in {out}");
    }
    assert!(!out.contains("very-secret"));
}

/// The program itself writes the manual pages and completions of the package, so they describe this
/// program.
#[test]
fn manual_pages_and_completions_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let (_, help, _) = ran(&["--help"], &[]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"import") && commands.len() > 15, "{commands:?}");
    assert_eq!(ran(&["man", dir.path().to_str().unwrap()], &[]).0, Some(0));
    let page = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
    assert!(page("streamlined-token-create").contains("allow\\-ip"));
    for shell in ["bash", "zsh", "fish"] {
        let (_, completions, _) = ran(&["completions", shell], &[]);
        for command in &commands {
            assert!(completions.contains(command), "{shell}: {command}");
            assert!(page(&format!("streamlined-{command}")).contains(".SH SYNOPSIS"), "{command}");
        }
    }
    let (_, example, _) = ran(&["config", "example"], &[]);
    let file = dir.path().join("example.toml");
    fs::write(&file, &example).unwrap();
    assert_eq!(ran(&["config", "check", "--config", file.to_str().unwrap()], &[]).0, Some(0));
}

/// The address of a Unix socket holds only 107 bytes of path; commands must work where the path is
/// longer.
#[test]
fn commands_find_the_daemon_of_a_directory_whose_path_is_long() {
    let dir = tempfile::Builder::new().prefix(&"long".repeat(40)).tempdir().unwrap();
    let daemon = Daemon::within(dir);
    let made = run(&daemon.dir(), &["token", "create", "made"]);
    let client = daemon.anyone().header("x-service-token", made["token"].as_str().unwrap());
    client.get("/v1/files/all?user_id=u").ok();
    assert!(command::command(&daemon.dir(), &["fsck"]).status.success());
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
    assert!(refused(&arguments, &[]).contains("use a newer version"));
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

#[test]
fn what_a_command_makes_is_private_and_what_its_user_gets_is_not() {
    let place = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 022; exec \"$0\" \"$@\"", BINARY]).args(arguments).env_clear();
        assert!(shell.current_dir(place.path()).output().unwrap().status.success());
    };
    run(&["token", "create", "x", "--data-dir", "data"]);
    run(&["gc", "--data-dir", "data"]);
    run(&["man", "man"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut dirs = vec![place.path().join("data")];
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    assert_eq!(mode(&place.path().join("man/streamlined.1")), 0o644);
}

#[test]
fn what_is_in_the_way_of_a_start_is_named() {
    for name in ["keys", "audit", "blobs", "meta"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let make = ran(&["token", "generate", "x", "--data-dir", data.to_str().unwrap()], &[]);
        assert_eq!(make.0, Some(0), "{}", make.2);
        let _ = fs::remove_dir_all(data.join(name));
        fs::write(data.join(name), "in the way").unwrap();
        let said = refused(
            &["--data-dir", data.to_str().unwrap()],
            &[("STREAMLINED_LISTEN", "127.0.0.1:0")],
        );
        let last = said.lines().last().unwrap();
        assert!(last.contains(data.to_str().unwrap()), "{name}: {last}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let data = file.path().join("data");
    for command in [&["serve"][..], &["fsck"], &["token", "generate", "x"]] {
        let said = command::refused(&data, 1, command);
        assert!(said.contains(data.to_str().unwrap()), "{command:?}: {said}");
    }
}

#[test]
fn wrong_usage_is_told_in_one_line() {
    for (arguments, wanted) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["token", "create"], "the following required arguments were not provided: <NAME>"),
        (&["token", "generate", "x", "--days", "0"], "a whole number from 1 to 3650"),
        (&["gc", "--data"], "unexpected argument '--data'"),
    ] {
        let (status, out, said) = ran(arguments, &[]);
        assert_eq!((status, out.as_str(), said.lines().count()), (Some(2), "", 1), "{said}");
        assert!(said.starts_with("streamlined: ") && said.contains(wanted), "{said}");
        assert!(said.ends_with("; see --help\n"), "{said}");
    }
    for (arguments, status, on_stdout) in
        [(&["--help"][..], 0, true), (&["token", "create", "--help"], 0, true), (&[], 2, false)]
    {
        let (ended, out, said) = ran(arguments, &[]);
        assert_eq!(ended, Some(status));
        let shown = if on_stdout { out } else { said };
        assert!(shown.contains("Usage: streamlined"), "{shown}");
    }
    let (status, out, _) = ran(&["--version"], &[]);
    assert_eq!((status, out.as_str()), (Some(0), "streamlined 0.1.0\n"));
}
