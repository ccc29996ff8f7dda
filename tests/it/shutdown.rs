//! SIGTERM: requests in flight finish, and new ones are not accepted.

use std::{io::Write, net::TcpStream};

use rustix::process::Signal;

use crate::support::{Daemon, begin_put, connect, eventually, raw::answer_of};

#[test]
fn requests_in_flight_finish() {
    let mut daemon = Daemon::start();
    let idle = connect(&daemon);
    let mut socket = begin_put(&daemon);
    daemon.signal(Signal::TERM);
    eventually(|| TcpStream::connect(daemon.address()).is_err());
    socket.write_all(b"hello").unwrap();
    let answer = answer_of(socket);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(daemon.wait().success());
    drop(idle);
    assert!(!daemon.dir().join("listen").exists());
    assert!(daemon.log().contains("stopped"));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut daemon = Daemon::start();
    daemon.expect_trouble("told to stop twice");
    let _unfinished = begin_put(&daemon);
    daemon.signal(Signal::TERM);
    eventually(|| TcpStream::connect(daemon.address()).is_err());
    // SIGHUP has no effect any more.
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::INT);
    let began = std::time::Instant::now();
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "it waited to drain");
    daemon.resume();
    assert_eq!(daemon.service().get("/v1/files/all?user_id=u").ok()["total_count"], 0);
}
