//! SIGTERM: requests in flight finish, new ones do not come.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::Signal;

use crate::support::{Daemon, begin_put, connect};

#[test]
fn requests_in_flight_finish() {
    let mut daemon = Daemon::start();
    let idle = connect(&daemon);
    let mut socket = begin_put(&daemon);
    daemon.signal(Signal::TERM);
    crate::support::eventually(|| TcpStream::connect(daemon.address()).is_err());
    socket.write_all(b"hello").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(daemon.wait().success());
    drop(idle);
    assert!(!daemon.dir().join("listen").exists());
    assert!(daemon.log().contains("stopped"));
}
