//! TLS as curl, Python's requests, openssl and our client see it; certificates that are replaced.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;

use crate::support::{
    Daemon, bytes, connect,
    daemon::{BINARY, TOKEN},
    eventually,
    tls::Authority,
};

/// A daemon whose certificate is `server.pem` in the directory.
fn serving(dir: &Path, more: &[(&str, &str)]) -> Daemon {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let mut settings = vec![("tls_certificate", certificate.as_str()), ("tls_key", key.as_str())];
    settings.extend(more);
    Daemon::with(&settings)
}

fn curl(daemon: &Daemon, dir: &Path, arguments: &[&str], path: &str) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--cacert"]).arg(dir.join("ca.pem")).args(arguments);
    let output = command.arg(format!("https://{}{path}", daemon.address())).output();
    output.expect("curl is there: .ci/test sees to it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn s_client(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command.arg("s_client").args(arguments).args(["-connect", daemon.address()]);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The subject of the certificate that the daemon shows.
fn shown(daemon: &Daemon, dir: &Path) -> String {
    let ca = dir.join("ca.pem");
    let output = s_client(daemon, &["-verify_return_error", "-CAfile", ca.to_str().unwrap()]);
    let told = text(&output.stdout);
    let subject = told.lines().find(|line| line.starts_with("subject="));
    subject.unwrap_or_else(|| panic!("{told}{}", text(&output.stderr))).to_owned()
}

#[test]
fn both_versions_of_http_are_spoken_over_tls_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path(), "server");
    let daemon = serving(dir.path(), &[]);
    for (version, flag) in [("2", "--http2"), ("1.1", "--http1.1")] {
        let wanted = format!("{version} 200");
        let arguments = [flag, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
        let output = curl(&daemon, dir.path(), &arguments, "/healthz");
        assert_eq!(text(&output.stdout), wanted, "{}", text(&output.stderr));
    }
    // A client that does not know the authority does not trust the daemon. A client that does not
    // speak TLS is not understood.
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path(), "server");
    let distrustful = curl(&daemon, other.path(), &[], "/healthz");
    assert!(text(&distrustful.stderr).contains("certificate"), "{distrustful:?}");
    let plain = Command::new("curl").args(["-sS", daemon.url()]).output().unwrap();
    assert!(!plain.status.success());
    // The lowest security level lets openssl offer TLS 1.1, so the alert that refuses it is the
    // daemon's.
    let old = s_client(&daemon, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(text(&old.stderr).contains("SSL alert number"), "{old:?}");
    // A signed link names the daemon's own scheme and address.
    let file = "/v1/files/content?user_id=u&filename=f";
    let token = format!("x-service-token: {TOKEN}");
    let stored = curl(&daemon, dir.path(), &["-T", "-", "-H", &token], file);
    let stored: serde_json::Value = serde_json::from_slice(&stored.stdout).unwrap();
    let sign = format!("/v1/files/signed-url?key={}", stored["key"].as_str().unwrap());
    let signed = curl(&daemon, dir.path(), &["-H", &token], &sign);
    let signed: serde_json::Value = serde_json::from_slice(&signed.stdout).unwrap();
    let link = signed["url"].as_str().unwrap();
    assert!(link.starts_with(&format!("https://{}/get/", daemon.address())), "{link}");
}

#[test]
fn requests_of_python_takes_our_certificate_and_its_chain_only() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path(), "server");
    let daemon = serving(dir.path(), &[]);
    let script = "import requests, sys\n\
        session = requests.Session()\n\
        for _ in range(3):\n    \
            assert session.get(sys.argv[1], verify=sys.argv[2]).json()['status'] == 'healthy'\n\
        try:\n    requests.get(sys.argv[1])\n\
        except requests.exceptions.SSLError:\n    print('all held')\n";
    let output = Command::new(crate::clients::python())
        .args(["-c", script, &format!("https://{}/healthz", daemon.address())])
        .arg(dir.path().join("ca.pem"))
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout).trim(), "all held", "{}", text(&output.stderr));
}

#[test]
fn h2c_is_spoken_by_prior_knowledge_on_a_plain_port() {
    let daemon = Daemon::start();
    let output = Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w"])
        .args(["%{http_version} %{http_code}", &format!("{}/healthz", daemon.url())])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "2 200", "{}", text(&output.stderr));
}

#[test]
fn a_replaced_certificate_is_shown_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "server");
    let mut daemon = serving(dir.path(), &[]);
    daemon.expect_trouble("the new certificate is faulty");
    daemon.expect_trouble("the configuration is faulty");
    let write = |name: &str| {
        let (certificate, key) = authority.sign(name);
        fs::write(dir.path().join("server.pem"), certificate).unwrap();
        fs::write(dir.path().join("server.key"), key).unwrap();
    };
    assert!(shown(&daemon, dir.path()).contains("server"));
    write("second");
    // Without a signal.
    eventually(|| shown(&daemon, dir.path()).contains("second"));
    // A certificate that does not belong to the key.
    fs::write(dir.path().join("server.pem"), authority.sign("third").0).unwrap();
    daemon.signal(Signal::HUP);
    eventually(|| daemon.log().contains("the configuration is faulty"));
    assert!(shown(&daemon, dir.path()).contains("second"));
    fs::write(dir.path().join("server.pem"), "no certificate").unwrap();
    eventually(|| daemon.log().contains("the new certificate is faulty"));
    assert!(shown(&daemon, dir.path()).contains("second"));
    write("fourth");
    daemon.signal(Signal::HUP);
    eventually(|| shown(&daemon, dir.path()).contains("fourth"));
    let log = daemon.log();
    assert!(!log.contains("PRIVATE KEY"));
    let page = daemon.operator("GET", "/metrics");
    assert_eq!(page.matches("\nstreamlined_tls_certificate_expiry").count(), 1);
    assert!(page.contains("streamlined_reloads_total{what=\"certificate\",outcome=\"taken\"}"));
}

/// As when a key was unreadable and the daemon is then given permission to read it: the time at
/// which the file was modified stays the same.
#[test]
fn a_certificate_that_was_not_good_is_looked_at_until_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "server");
    let mut daemon = serving(dir.path(), &[]);
    daemon.expect_trouble("the new certificate is faulty");
    let (certificate, key) = authority.sign("second");
    let path = dir.path().join("server.key");
    fs::write(&path, key.replace("BEGIN", "began")).unwrap();
    let changed = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(dir.path().join("server.pem"), certificate).unwrap();
    let faults = || {
        let log = daemon.log();
        let lines = log.lines().filter(|line| line.contains("the new certificate is faulty"));
        lines.map(|line| line.split("\"fault\":").nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually(|| !faults().is_empty());
    // Long enough for the daemon to look once or twice more.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let told = faults();
    assert!((1..told.len()).all(|n| !told[..n].contains(&told[n])), "{told:?}");
    fs::write(&path, key).unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_modified(changed).unwrap();
    eventually(|| shown(&daemon, dir.path()).contains("second"));
}

#[test]
fn receipts_are_checked_with_keys_that_come_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path(), "server");
    let daemon = serving(dir.path(), &[]);
    fs::write(dir.path().join("receipt"), "none").unwrap();
    let verify = |url: &str, more: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.args(["receipt", "verify", "receipt", "--jwks", url]).args(more);
        command.current_dir(dir.path()).env_clear().envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr)
    };
    let url = format!("https://localhost:{}/.well-known/jwks.json", daemon.port());
    // A complaint about the receipt shows that the keys were received.
    for (more, variables) in
        [(&["--ca", "ca.pem"][..], &[][..]), (&[], &[("SSL_CERT_FILE", "ca.pem")])]
    {
        let told = verify(&url, more, variables);
        assert!(told.contains("not a receipt"), "{told}");
    }
    Authority::new().write(dir.path(), "other");
    let told = verify(&url, &["--ca", "ca.pem"], &[]);
    assert!(
        told.starts_with("streamlined: https://localhost") && !told.contains("receipt"),
        "{told}"
    );
    // Only the server that was named is asked: redirects are not followed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://{}/keys", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        let answer = b"HTTP/1.1 302 Found\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(answer).unwrap();
    });
    let told = verify(&elsewhere, &[], &[]);
    assert!(told.contains("302"), "{told}");
    answering.join().unwrap();
}

#[test]
fn clients_show_a_certificate_where_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "server");
    authority.write(dir.path(), "client");
    let ca = dir.path().join("ca.pem");
    let daemon = serving(dir.path(), &[("tls_client_ca", ca.to_str().unwrap())]);
    assert!(!curl(&daemon, dir.path(), &[], "/healthz").status.success());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("client.pem"), path("client.key"));
    let shown = ["--cert", &certificate, "--key", &key];
    assert!(curl(&daemon, dir.path(), &shown, "/healthz").status.success());
    // A certificate of another authority is refused.
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path(), "client");
    let (certificate, key) = (other.path().join("client.pem"), other.path().join("client.key"));
    let shown = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert!(!curl(&daemon, dir.path(), &shown, "/healthz").status.success());
    let failed = "streamlined_tls_handshakes_total{outcome=\"failed\"} 2";
    eventually(|| daemon.operator("GET", "/metrics").contains(failed));
}

#[test]
fn a_handshake_that_does_not_come_is_let_go_and_counts_as_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path(), "server");
    // Long enough for the requests below, even on a busy machine.
    let settings = [("header_timeout", "5s"), ("connections_max", "1")];
    let daemon = serving(dir.path(), &settings);
    let mut silent = connect(&daemon);
    let open = "streamlined_connections_open 1";
    eventually(|| daemon.operator("GET", "/metrics").contains(open));
    let busy = curl(&daemon, dir.path(), &["-w", "%{http_code}"], "/healthz");
    assert!(text(&busy.stdout).ends_with("503"), "{busy:?}");
    let closed = silent.read(&mut [0; 1]);
    let gave_up = closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!gave_up, "the daemon waits for ever");
    eventually(|| curl(&daemon, dir.path(), &["-f"], "/healthz").status.success());
}

#[test]
fn a_certificate_that_is_no_good_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().write(dir.path(), "server");
    fs::write(dir.path().join("server.key"), "no key").unwrap();
    let output = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path().join("data"))
        .env("STREAMLINED_SERVICE_TOKEN", TOKEN)
        .env("STREAMLINED_TLS_CERTIFICATE", dir.path().join("server.pem"))
        .env("STREAMLINED_TLS_KEY", dir.path().join("server.key"))
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("streamlined: TLS: tls_key: ") && told.contains("server.key"), "{told}");
}

#[test]
fn our_client_trusts_whom_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(dir.path(), "server");
    authority.write(dir.path(), "client");
    let both = ["client.pem", "client.key"]
        .map(|name| fs::read_to_string(dir.path().join(name)).unwrap())
        .concat();
    fs::write(dir.path().join("both.pem"), both).unwrap();
    let ca = dir.path().join("ca.pem");
    let daemon = serving(dir.path(), &[("tls_client_ca", ca.to_str().unwrap())]);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(dir.path()).env_clear();
        command.env("STREAMLINED_TOKEN", TOKEN);
        command.env("STREAMLINED_SERVER", format!("https://localhost:{}", daemon.port()));
        command.output().unwrap()
    };
    let content = bytes(7, 9 << 20);
    fs::write(dir.path().join("f.bin"), &content).unwrap();
    let as_client = ["--user", "u", "--client-certificate", "both.pem"];
    let put = ["put", "f.bin"];
    let trusted = run(&[&put[..], &as_client, &["--ca", "ca.pem"]].concat());
    assert!(trusted.status.success(), "{}", text(&trusted.stderr));
    let key = text(&trusted.stdout);
    let get = ["get", key.trim(), "-o", "back"];
    assert!(run(&[&get[..], &as_client, &["--ca", "ca.pem"]].concat()).status.success());
    assert!(fs::read(dir.path().join("back")).unwrap() == content);
    // With authorities that did not sign the certificate, and then with none but those of this
    // machine.
    let other = tempfile::tempdir().unwrap();
    Authority::new().write(other.path(), "server");
    let other = other.path().join("ca.pem");
    let refused = run(&[&put[..], &as_client, &["--ca", other.to_str().unwrap()]].concat());
    assert!(!refused.status.success());
    let refused = run(&[&put[..], &as_client].concat());
    assert!(!refused.status.success());
    // Without a certificate of the client's own.
    assert!(!run(&[&put[..], &["--user", "u", "--ca", "ca.pem"]].concat()).status.success());
}
