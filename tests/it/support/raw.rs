//! Requests byte by byte on a socket, and their answers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::{Daemon, PATIENCE, daemon::TOKEN};

/// A connection to the daemon whose reads and writes time out.
pub fn connect(daemon: &Daemon) -> TcpStream {
    let socket = TcpStream::connect(daemon.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends the head of a service's request: its method and path, and header lines besides the host
/// and the token, each with its line break.
pub fn begin(daemon: &Daemon, request: &str, lines: &str) -> TcpStream {
    let mut socket = connect(daemon);
    let fixed = format!("host: x\r\nx-service-token: {TOKEN}\r\n");
    socket.write_all(format!("{request} HTTP/1.1\r\n{fixed}{lines}\r\n").as_bytes()).unwrap();
    socket
}

/// As [`begin`], and waits until the daemon's handler waits for the body.
pub fn begin_awaited(daemon: &Daemon, request: &str, lines: &str) -> TcpStream {
    let mut socket = begin(daemon, request, &format!("{lines}expect: 100-continue\r\n"));
    await_continue(&mut socket);
    socket
}

/// Begins a PUT of five bytes, none of which is sent yet. The daemon's handler waits for them.
pub fn begin_put(daemon: &Daemon) -> TcpStream {
    let put = "PUT /v1/files/content?filename=f&user_id=u";
    begin_awaited(daemon, put, "content-length: 5\r\n")
}

pub fn await_continue(socket: &mut TcpStream) {
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
}

/// Reads the first bytes of an answer and returns its status.
pub fn status(socket: &mut TcpStream) -> String {
    let mut line = [0; 12];
    socket.read_exact(&mut line).unwrap();
    assert!(line.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&line));
    String::from_utf8(line[9..].to_vec()).unwrap()
}

/// Reads until the daemon closes the connection.
pub fn answer_of(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Sends bytes on a new connection and returns everything that comes back.
pub fn exchange(daemon: &Daemon, request: &[u8]) -> Vec<u8> {
    let mut socket = connect(daemon);
    // The daemon may close the connection before it has read everything.
    let _ = socket.write_all(request);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            panic!("it neither answers nor ends")
        }
        _ => answer,
    }
}
