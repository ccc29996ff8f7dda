//! SIGTERM: requests in flight finish, new ones do not come.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::Signal;

use crate::support::{Daemon, connect, daemon::TOKEN};

#[test]
fn requests_in_flight_finish() {
    let mut daemon = Daemon::start();
    let idle = connect(&daemon);
    let mut socket = connect(&daemon);
    let head = format!(
        "PUT /v1/files/content?filename=f&user_id=u HTTP/1.1\r\nhost: x\r\n\
         x-service-token: {TOKEN}\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
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
