//! Answers that a client takes slowly and steadily: they are sent to their end, whatever timeouts
//! run in the daemon meanwhile. The client sets the pace at its socket: what it does not read fills
//! the buffers of the network.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::{
    floods::{
        DATA, END_STREAM, PING, WINDOW_UPDATE, await_frame, frame, get, healthz, speak,
        windows_begin_with,
    },
    support::{Daemon, PATIENCE, daemon::TOKEN, eventually, stored},
};

/// A flag of `PING`.
const ACK: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Http1,
    /// With this many streams, all of the same request.
    Http2(usize),
}

/// How fast a client reads, and for how long. Afterwards it reads as fast as it can.
#[derive(Clone, Copy)]
struct Pace {
    bytes_per_second: u32,
    lasts: Duration,
}

/// A connection of a client whose system buffers little beyond what the client reads.
fn narrow(daemon: &Daemon) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: SocketAddr = daemon.address().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends the request, calls `asked` when the answer begins, and takes the answer. Returns how many
/// bytes of content came.
fn take(mut socket: TcpStream, path: &str, over: Over, pace: Pace, asked: impl FnOnce()) -> usize {
    let mut incoming = Incoming::of(over);
    socket.write_all(&ask(path, over)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut began, mut read) = (None, 0_u32);
    let mut asked = Some(asked);
    loop {
        let elapsed = began.map_or(Duration::ZERO, |began: Instant| began.elapsed());
        let most = if elapsed < pace.lasts { 4096 } else { buffer.len() };
        // The connection may end with a reset.
        let Ok(more @ 1..) = socket.read(&mut buffer[..most]) else { return incoming.content };
        if let Some(asked) = asked.take() {
            asked();
        }
        began.get_or_insert_with(Instant::now);
        if incoming.take(&buffer[..more], &mut socket) {
            return incoming.content;
        }
        if elapsed < pace.lasts {
            read += u32::try_from(more).unwrap();
            let due = Duration::from_secs(1) * read / pace.bytes_per_second;
            thread::sleep(due.saturating_sub(elapsed));
        }
    }
}

fn ask(path: &str, over: Over) -> Vec<u8> {
    let Over::Http2(streams) = over else {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-service-token: {TOKEN}\r\n\r\n");
        return request.into_bytes();
    };
    let wide = 1_u32 << 30;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(windows_begin_with(wide));
    hello.extend(frame(WINDOW_UPDATE, 0, 0, &wide.to_be_bytes()));
    hello.extend((1..).step_by(2).take(streams).flat_map(|stream| get(stream, path)));
    hello
}

/// What was received, parsed as far as it is complete.
struct Incoming {
    over: Over,
    unread: Vec<u8>,
    /// On HTTP/1.1, the bytes of content still to come, once the head is there. On HTTP/2, the
    /// streams that have not ended.
    left: Option<usize>,
    content: usize,
}

impl Incoming {
    fn of(over: Over) -> Self {
        let left = if let Over::Http2(streams) = over { Some(streams) } else { None };
        Self { over, unread: Vec::new(), left, content: 0 }
    }

    /// Takes received bytes. Returns whether the answer is complete.
    fn take(&mut self, bytes: &[u8], socket: &mut TcpStream) -> bool {
        self.unread.extend(bytes);
        match self.over {
            Over::Http1 => self.take_http_1(),
            Over::Http2(_) => self.take_frames(socket),
        }
        self.left == Some(0)
    }

    fn take_http_1(&mut self) {
        if self.left.is_none()
            && let Some(end) = self.unread.windows(4).position(|it| it == b"\r\n\r\n")
        {
            let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap();
            self.left = Some(length.lines().next().unwrap().parse().unwrap());
        }
        if let Some(left) = &mut self.left {
            *left -= self.unread.len();
            self.content += self.unread.len();
            self.unread.clear();
        }
    }

    fn take_frames(&mut self, socket: &mut TcpStream) {
        while let Some((head, rest)) = self.unread.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(payload) = rest.get(..length) else { return };
            // The daemon may be gone; then this write fails.
            if kind == PING && flags & ACK == 0 {
                let _ = socket.write_all(&frame(PING, ACK, 0, payload));
            }
            if kind == DATA {
                self.content += length;
                let taken = u32::try_from(length).unwrap();
                if taken > 0 {
                    let _ = socket.write_all(&frame(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes()));
                }
                self.left = self.left.map(|left| left - usize::from(flags & END_STREAM));
            }
            self.unread.drain(..9 + length);
        }
    }
}

/// Lasts longer than a connection may stay open that was told to close. It is so slow that hyper
/// still holds much of the answer then, and above the 6 KiB/s below which an answer may be cut.
const TAIL: Pace = Pace { bytes_per_second: 7000, lasts: Duration::from_secs(8) };

#[test]
fn an_answer_goes_on_when_its_request_is_over() {
    let ways = [
        (Over::Http1, 320 << 10, false),
        (Over::Http1, 320 << 10, true),
        (Over::Http2(6), 100_000, false),
        (Over::Http2(6), 100_000, true),
    ];
    thread::scope(|scope| {
        for (over, size, is_stopped) in ways {
            scope.spawn(move || {
                let idle = if is_stopped { "8s" } else { "300ms" };
                // On HTTP/1.1 hyper may still hold this much of the answer when the request ends.
                let settings = [("idle_timeout", idle), ("head_bytes_max", "256KiB")];
                let mut daemon = Daemon::with(&settings);
                let path = stored(&daemon, size);
                let told = || {
                    if is_stopped {
                        daemon.signal(Signal::TERM);
                    }
                };
                let taken = take(narrow(&daemon), &path, over, TAIL, told);
                let all = if let Over::Http2(streams) = over { streams * size } else { size };
                assert_eq!(taken, all, "{over:?}, stopped: {is_stopped}");
                if is_stopped {
                    assert!(daemon.wait().success());
                }
            });
        }
    });
}

#[test]
fn a_download_over_http_2_is_not_cut_for_what_waits_behind_it() {
    let daemon = Daemon::with(&[("header_timeout", "500ms")]);
    let path = stored(&daemon, 16 << 20);
    // Lasts six times the limit, with more in flight than the client takes in that time.
    let pace = Pace { bytes_per_second: 50_000, lasts: Duration::from_secs(3) };
    let socket = TcpStream::connect(daemon.address()).unwrap();
    assert_eq!(take(socket, &path, Over::Http2(1), pace, || ()), 16 << 20);
}

#[test]
fn who_takes_little_at_a_time_takes_something() {
    let daemon = Daemon::with(&[("body_idle_timeout", "3s")]);
    let path = stored(&daemon, 16 << 20);
    // Far above the least speed, and far below what makes megabytes of network buffers move on.
    let pace = Pace { bytes_per_second: 100_000, lasts: Duration::from_secs(6) };
    thread::scope(|scope| {
        for (over, all) in [(Over::Http1, 16 << 20), (Over::Http2(2), 32 << 20)] {
            let (daemon, path) = (&daemon, &path);
            scope.spawn(move || {
                let socket = TcpStream::connect(daemon.address()).unwrap();
                assert_eq!(take(socket, path, over, pace, || ()), all, "{over:?}");
            });
        }
    });
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_let_go() {
    let daemon = Daemon::with(&[("idle_timeout", "300ms")]);
    let mut socket = speak(&daemon);
    socket.write_all(&healthz(1)).unwrap();
    assert!(await_frame(&mut socket, |kind, stream, _| kind == DATA && stream == 1));
    // From here on the client neither answers nor closes.
    let open = |count: usize| {
        let sample = format!("streamlined_connections_open {count}\n");
        daemon.operator("GET", "/metrics").contains(&sample)
    };
    assert!(open(1));
    eventually(|| open(0));
    assert!(daemon.has_hit("idle"));
}
