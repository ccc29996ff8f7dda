//! The test plays the service manager: what the daemon tells it, the watchdog, and the sockets that
//! it hands over.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Daemon, PATIENCE,
    daemon::{BINARY, TOKEN, signal},
    eventually,
    tls::Authority,
};

/// The socket that `$NOTIFY_SOCKET` names, and its reader.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path: path.to_str().unwrap().into(), _dir: dir }
    }

    /// The next message; `None` when none comes in time.
    fn next(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// Discards the messages that were sent before now.
    fn drain(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.next().is_some() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// The next message with this line.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("{line} was not told"));
            if message.lines().any(|told| told == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_manager_is_told_of_every_step() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", &*manager.path), ("WATCHDOG_USEC", "900000")];
    let mut daemon = Daemon::under(&[], &environment);
    let opening = manager.next().unwrap();
    assert!(opening.starts_with("STATUS="), "{opening}");
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("STATUS=serving"), "{ready}");
    daemon.anyone().get("/healthz").ok();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    // For each `WATCHDOG=1`, a commit of the self-check is on the disk.
    let commits = "streamlined_commit_batch_size_count{store=\"index\"} ";
    let count = || {
        let page = daemon.operator("GET", "/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(commits)).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    manager.drain();
    let before = count();
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    assert!(count() >= before + 2);
    daemon.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(micros.unwrap().parse::<u64>().unwrap() > 0);
    manager.wait_for("READY=1");
    daemon.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn a_daemon_whose_commits_hang_gives_no_word_of_life() {
    let manager = Manager::new();
    let place = tempfile::tempdir().unwrap();
    let armed = place.path().join("armed");
    let environment = [
        ("NOTIFY_SOCKET", &*manager.path),
        ("WATCHDOG_USEC", "1000000"),
        ("SLT_HANG_POINT", "commit: journal durable 1"),
        ("SLT_FAULT_AFTER", armed.to_str().unwrap()),
    ];
    let mut daemon = Daemon::under(&[], &environment);
    daemon.expect_trouble("the self-check did not finish in time");
    manager.wait_for("WATCHDOG=1");
    std::fs::write(&armed, "").unwrap();
    manager.socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let began = Instant::now();
    while manager.next().is_some() {
        assert!(began.elapsed() < PATIENCE, "it says that it lives");
    }
    // No other thread hangs: this request is answered.
    assert_eq!(daemon.anyone().get("/.well-known/jwks.json").status, 200);
    eventually(|| daemon.log().contains("the self-check did not finish in time"));
}

/// Starts the daemon with a listening socket as descriptor 3, as `sd_listen_fds(3)` says.
fn activated(listener: &TcpListener, data: &Path) -> Child {
    let socket = OwnedFd::from(listener.try_clone().unwrap());
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 0</dev/null";
    Command::new("bash")
        .args(["-c", script, BINARY, "serve", "--data-dir"])
        .arg(data)
        .env("STREAMLINED_SERVICE_TOKEN", TOKEN)
        // Not used, because a socket was handed over.
        .env("STREAMLINED_LISTEN", "127.0.0.1:1")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_socket_that_is_handed_over_drops_no_connection_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ask = || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        socket
    };
    let answered = |mut socket: TcpStream| {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    // Connections are made before the first daemon, between the two, and while each of them runs.
    let early = ask();
    let first = activated(&listener, &data);
    answered(early);
    answered(ask());
    stop(first);
    let between = ask();
    let mut second = activated(&listener, &data);
    answered(between);
    answered(ask());
    second.kill().unwrap();
    second.wait().unwrap();
}

/// Starts the daemon with these sockets as descriptors 3 to 5, and with its stderr in [`log_of`].
fn activated_by(sockets: [OwnedFd; 3], names: &str, data: &Path, more: &[(&str, &str)]) -> Child {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=3
        exec \"$0\" \"$@\" 3<&0 4<&1 5<&2 0</dev/null 1>/dev/null 2>\"$LOG\"";
    let [first, second, third] = sockets.map(Stdio::from);
    Command::new("bash")
        .args(["-c", script, BINARY, "serve", "--data-dir"])
        .arg(data)
        .env("STREAMLINED_SERVICE_TOKEN", TOKEN)
        .env("LISTEN_FDNAMES", names)
        .env("LOG", log_of(data))
        .envs(more.iter().copied())
        .stdin(first)
        .stdout(second)
        .stderr(third)
        .spawn()
        .unwrap()
}

fn log_of(data: &Path) -> std::path::PathBuf {
    data.with_extension("log")
}

/// Sends one request and returns the answer.
fn asked(mut socket: impl Read + Write, line: &str, headers: &str) -> String {
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A daemon that expects TLS answers in TLS and closes.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn stop(mut daemon: Child) {
    signal(&daemon, Signal::TERM);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn every_socket_that_is_handed_over_is_served_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("data"), dir.path().join("socket"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = UnixListener::bind(&path).unwrap();
    let watching = TcpListener::bind("127.0.0.1:0").unwrap();
    let [address, watched] = [&port, &watching].map(|socket| socket.local_addr().unwrap());
    let sockets = || -> [OwnedFd; 3] {
        let (port, watching) = (port.try_clone().unwrap(), watching.try_clone().unwrap());
        [port.into(), local.try_clone().unwrap().into(), watching.into()]
    };
    let by_port = || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let by_path = || {
        let socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let by_watched = || {
        let socket = TcpStream::connect(watched).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let names = "streamlined.socket:proxy:metrics";
    let token = format!("x-service-token: {TOKEN}\r\n");
    let list = "GET /v1/files/all?user_id=u";
    let more = [("STREAMLINED_TRUSTED_PROXIES", "127.0.0.1/32")];
    let first = activated_by(sockets(), names, &data, &more);
    assert!(asked(by_port(), list, &token).starts_with("HTTP/1.1 200"));
    assert!(asked(by_port(), "GET /metrics", &token).starts_with("HTTP/1.1 404"));
    // On the Unix socket, a proxy names the client for which it asks.
    let from = format!("{token}x-forwarded-for: 203.0.113.9\r\n");
    assert!(asked(by_path(), list, &from).starts_with("HTTP/1.1 200"));
    let told = || std::fs::read_to_string(log_of(&data)).unwrap();
    eventually(|| told().contains("\"client\":\"203.0.113.9\""));
    assert!(asked(by_path(), list, "").starts_with("HTTP/1.1 401"));
    let page = asked(by_watched(), "GET /metrics", "");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("streamlined_build_info"), "{page}");
    assert!(asked(by_watched(), "GET /readyz", "").starts_with("HTTP/1.1 200"));
    for line in [list, "GET /openapi.json", "GET /.well-known/jwks.json"] {
        assert!(asked(by_watched(), line, &token).starts_with("HTTP/1.1 404"), "{line}");
    }
    assert_eq!(std::fs::read_to_string(data.join("listen")).unwrap().trim(), address.to_string());
    stop(first);
    // The second daemon serves the connections that were made to each socket meanwhile. TLS is
    // spoken on the network only, not on the Unix socket.
    Authority::new().write(dir.path(), "server");
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let more = [("STREAMLINED_TLS_CERTIFICATE", &*certificate), ("STREAMLINED_TLS_KEY", &*key)];
    let (local_early, port_early, watching_early) = (by_path(), by_port(), by_watched());
    let second = activated_by(sockets(), names, &data, &more);
    assert!(asked(local_early, list, &token).starts_with("HTTP/1.1 200"));
    for early in [port_early, watching_early] {
        let answer = asked(early, "GET /healthz", "");
        assert!(!answer.contains("HTTP/1.1"), "{answer}");
    }
    stop(second);
}

#[test]
fn sockets_by_which_no_client_could_come_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    for (sockets, names, why) in [
        ([tcp(), tcp(), udp], "a:b:c", "fd 5 is not a valid tcp socket"),
        ([tcp(), tcp(), tcp()], "metrics:metrics:metrics", "only serve metrics"),
    ] {
        let mut daemon = activated_by(sockets, names, &data, &[]);
        eventually(|| daemon.try_wait().unwrap().is_some());
        assert_eq!(daemon.wait().unwrap().code(), Some(1));
        let log = std::fs::read_to_string(log_of(&data)).unwrap();
        assert!(log.contains("socket activation: ") && log.contains(why), "{log}");
    }
}

/// A reader of the file `listen` must not be sent to an address where nobody listens.
#[test]
fn where_no_network_leads_to_nothing_is_announced_and_links_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("data"), dir.path().join("socket"));
    let local = UnixListener::bind(&path).unwrap();
    let tcp = |address: &str| TcpListener::bind(address).unwrap();
    let local = || OwnedFd::from(local.try_clone().unwrap());
    let watching = || OwnedFd::from(tcp("127.0.0.1:0"));
    let public = ("STREAMLINED_PUBLIC_URL", "https://files.example.com");
    let everywhere = tcp("0.0.0.0:0");
    let names = "proxy:port:metrics";
    for (port, more, is_announced, why) in [
        (None, &[][..], false, Some("no network address")),
        (None, &[public], false, None),
        (Some(&everywhere), &[], true, Some("every address")),
        (Some(&everywhere), &[public], true, None),
    ] {
        let port = port.map_or_else(local, |port| port.try_clone().unwrap().into());
        let daemon = activated_by([local(), port, watching()], names, &data, more);
        let token = format!("x-service-token: {TOKEN}\r\n");
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let answer = asked(&mut socket, "GET /v1/files/all?user_id=u", &token);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let log = || std::fs::read_to_string(log_of(&data)).unwrap();
        eventually(|| log().contains("\"message\":\"ready\""));
        assert_eq!(data.join("listen").exists(), is_announced);
        let warned = log().lines().find(|line| line.contains("set public_url")).map(String::from);
        assert_eq!(warned.is_some(), why.is_some(), "{warned:?}");
        assert!(warned.is_none_or(|line| line.contains(why.unwrap())));
        assert!(!log().contains("127.0.0.1:8000"), "nobody listens there");
        stop(daemon);
        std::fs::remove_file(log_of(&data)).unwrap();
    }
}
