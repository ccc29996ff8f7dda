//! HTTP/2 floods, frame by frame: each connection is ended or costs no more than its buffers, while
//! a well-behaved client is served and memory stays bounded.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    audit::lines,
    support::{Daemon, connect, daemon::TOKEN, eventually, stored},
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Flags of `HEADERS` and `DATA`.
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal header field without indexing and without Huffman coding (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

fn request(method: &str, path: &str, rest: &[(&str, &str)]) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")];
    fields.iter().chain(rest).flat_map(|(name, value)| field(name, value)).collect()
}

pub fn healthz(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", "/healthz", &[]))
}

/// A service's request for a path.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = request("GET", path, &[("x-service-token", TOKEN)]);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields)
}

/// The settings of a client whose streams begin with a window of so many bytes.
pub fn windows_begin_with(bytes: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat())
}

fn begin_put(stream: u32, length: Option<&str>) -> Vec<u8> {
    let mut rest = vec![("x-service-token", TOKEN)];
    rest.extend(length.map(|length| ("content-length", length)));
    let path = "/v1/files/content?filename=f&user_id=u";
    frame(HEADERS, END_HEADERS, stream, &request("PUT", path, &rest))
}

/// A connection on which the client's preface and `SETTINGS` were sent.
pub fn speak(daemon: &Daemon) -> TcpStream {
    let mut socket = connect(daemon);
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    socket.write_all(&hello).unwrap();
    socket
}

/// Reads frames until one of them is `wanted`; returns false if the connection ends before that.
pub fn await_frame(socket: &mut TcpStream, mut wanted: impl FnMut(u8, u32, &[u8]) -> bool) -> bool {
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).is_err() {
            return false;
        }
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if socket.read_exact(&mut payload).is_err() {
            return false;
        }
        if wanted(kind, u32::from_be_bytes(stream), &payload) {
            return true;
        }
    }
}

/// A name, what is sent first, and what is then sent repeatedly, for streams 3, 5, 7 and so on.
type Flood = (&'static str, Vec<u8>, fn(u32) -> Vec<u8>);

fn floods() -> Vec<Flood> {
    let table_entry = [&[0x40, 1][..], b"x", &[0x7f, 0xa1, 0x1e], &[b'y'; 4000]].concat();
    vec![
        // CVE-2023-44487.
        ("rapid reset", vec![], |stream| {
            [healthz(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        }),
        // CVE-2025-8671: the client makes the daemon reset streams.
        ("windows of nothing", vec![], |stream| {
            [healthz(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        }),
        ("windows too wide", vec![], |stream| {
            let wide = 0x7fff_ffff_u32.to_be_bytes();
            [healthz(stream), frame(WINDOW_UPDATE, 0, stream, &wide)].concat()
        }),
        ("streams that depend on themselves", vec![], |stream| {
            let itself = [&stream.to_be_bytes()[..], &[1]].concat();
            [healthz(stream), frame(PRIORITY, 0, stream, &itself)].concat()
        }),
        ("more data than announced", vec![], |stream| {
            [begin_put(stream, Some("3")), frame(DATA, END_STREAM, stream, b"hello")].concat()
        }),
        ("data behind the end", vec![], |stream| {
            [healthz(stream), frame(DATA, END_STREAM, stream, b"x")].concat()
        }),
        // CVE-2024-27316 and similar ones.
        ("continuations", frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), |_| {
            frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100)))
        }),
        ("empty continuations", frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), |_| {
            frame(CONTINUATION, 0, 1, &[])
        }),
        ("settings", vec![], |stream| {
            let streams = [&[0, 3][..], &stream.to_be_bytes()].concat();
            frame(SETTINGS, 0, 0, &streams)
        }),
        ("settings that change windows", healthz(1), |stream| {
            frame(SETTINGS, 0, 0, &[&[0, 4][..], &stream.to_be_bytes()].concat())
        }),
        ("settings of the header table", vec![], |stream| {
            let size = (stream % 8192).to_be_bytes();
            frame(SETTINGS, 0, 0, &[&[0, 1][..], &size].concat())
        }),
        ("pings", vec![], |_| frame(PING, 0, 0, b"flooding")),
        ("acknowledged pings", vec![], |_| frame(PING, 1, 0, b"flooding")),
        ("windows", vec![], |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("priorities", vec![], |stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1])),
        ("unknown frames", vec![], |_| frame(0x42, 0, 0, &[])),
        ("empty data", begin_put(1, None), |_| frame(DATA, 0, 1, &[])),
        ("padding", begin_put(1, None), |_| frame(DATA, PADDED, 1, &[8; 9])),
        // One table entry of 4 KB, and sixteen thousand fields of one byte that refer to it.
        (
            "a bomb of HPACK",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[request("GET", "/healthz", &[]), table_entry].concat(),
            ),
            |stream| {
                let fields = [request("GET", "/healthz", &[]), vec![0xbe; 16_000]].concat();
                frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields)
            },
        ),
        ("promises", vec![], |_| frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("resets of streams that are not", vec![], |stream| {
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
        }),
        ("a frame that is too large", vec![], |_| vec![0xff; 9]),
        ("streams without end", vec![], |stream| begin_put(stream, None)),
    ]
}

/// Sends a flood until the daemon ends the connection, which must come before `BYTES_MAX` are sent.
fn flood(daemon: &Daemon, (name, begin, piece): Flood) {
    const BYTES_MAX: usize = 32 << 20;
    let mut socket = speak(daemon);
    let mut reader = socket.try_clone().unwrap();
    // The answers are read, so that the daemon never waits for the client to take them.
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let mut sent = 0;
    let mut stream = 3;
    let mut ended = socket.write_all(&begin).is_err();
    while !ended && sent < BYTES_MAX {
        let pieces: Vec<u8> = (0..500).flat_map(|at| piece(stream + 2 * at)).collect();
        stream += 1000;
        sent += pieces.len();
        ended = socket.write_all(&pieces).is_err();
    }
    assert!(ended, "{name}: {sent} bytes and the daemon still listens");
    drop(socket);
    let _ = reading.join().unwrap();
}

#[test]
fn floods_are_ended_while_others_are_served() {
    let daemon = Daemon::start();
    let user = daemon.user("good");
    let key = user.store("f", "", b"hello")["key"].as_str().unwrap().to_owned();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let (mut served, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(user.content(&key).body, b"hello");
                longest = longest.max(began.elapsed());
                served += 1;
            }
            (served, longest)
        });
        for flood_of in floods() {
            flood(&daemon, flood_of);
        }
        over.store(true, Ordering::Relaxed);
        let (served, longest) = good.join().unwrap();
        eprintln!("{served} served, the slowest in {longest:?}");
        assert!(served > 0);
    });
    let peak = daemon.peak_memory_kib();
    eprintln!("{peak} KiB at most");
    assert!(peak < 64 << 10, "{peak} KiB");
}

/// Many answers, none of which can be sent, because the client's streams have no window.
#[test]
fn answers_that_nobody_takes_cost_their_buffers_alone() {
    const CONNECTIONS: usize = 8;
    const STREAMS: u32 = 64;
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let path = stored(&daemon, 4 << 20);
    let before = daemon.peak_memory_kib();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut socket = speak(&daemon);
        socket.write_all(&windows_begin_with(0)).unwrap();
        for stream in 0..STREAMS {
            socket.write_all(&get(2 * stream + 1, &path)).unwrap();
        }
        let last = 2 * STREAMS - 1;
        assert!(await_frame(&mut socket, |kind, stream, _| kind == HEADERS && stream == last));
        // One stream more than may be open at a time is refused.
        socket.write_all(&get(last + 2, &path)).unwrap();
        assert!(await_frame(&mut socket, |kind, stream, why| {
            kind == RST_STREAM && stream == last + 2 && why == 7_u32.to_be_bytes()
        }));
        held.push(socket);
    }
    user.get(&path);
    let peak = daemon.peak_memory_kib();
    let transfers = CONNECTIONS as u64 * u64::from(STREAMS);
    eprintln!("{before} KiB before, {peak} KiB with {transfers} answers");
    assert!(peak < (64 << 10) + transfers * 256, "{peak} KiB");
    drop(held);
    eventually(|| user.get(&path).status == 200);
}

/// The client takes no more of one stream than its first window. That stream is reset; the
/// connection stays.
#[test]
fn a_stream_that_nobody_takes_is_let_go_and_others_on_its_connection_are_not() {
    const SIZE: usize = 1 << 20;
    let daemon = Daemon::with(&[("body_idle_timeout", "2s"), ("requests_max", "1")]);
    let path = stored(&daemon, SIZE);
    let has_permit = || daemon.anyone().get("/healthz").status == 200;
    for window in [0, 1000] {
        let mut socket = speak(&daemon);
        socket.write_all(&[windows_begin_with(window), get(1, &path)].concat()).unwrap();
        assert!(await_frame(&mut socket, |kind, stream, _| kind == HEADERS && stream == 1));
        // The request holds the only permit until the daemon gives up on it.
        daemon.anyone().get("/healthz").refused(503, "busy");
        let mut taken = 0;
        assert!(await_frame(&mut socket, |kind, stream, payload| {
            taken += if kind == DATA { payload.len() } else { 0 };
            // CANCEL, which h2 sends when an answer ends early.
            kind == RST_STREAM && stream == 1 && payload == 8_u32.to_be_bytes()
        }));
        assert_eq!(taken, window as usize);
        eventually(has_permit);
        // The connection is still open.
        let widen = |stream: u32| frame(WINDOW_UPDATE, 0, stream, &(2_u32 << 20).to_be_bytes());
        socket.write_all(&[widen(0), get(3, &path), widen(3)].concat()).unwrap();
        let mut received = 0;
        assert!(await_frame(&mut socket, |kind, stream, payload| {
            assert!(kind != RST_STREAM);
            received += if kind == DATA && stream == 3 { payload.len() } else { 0 };
            received == SIZE
        }));
        eventually(has_permit);
    }
    assert!(daemon.has_hit("answer_not_taken"));
    // The log says which answers were cut.
    assert!(daemon.log().lines().any(|line| line.contains("\"cut\":true")));
}

/// Requests that HTTP/1 would carry as other requests, that name two hosts, or that are malformed.
#[test]
fn a_malformed_request_is_refused_or_reset() {
    let daemon = Daemon::start();
    let get = |rest: &[(&str, &str)]| request("GET", "/healthz", rest);
    let fields = |fields: &[(&str, &str)]| -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| field(name, value)).collect()
    };
    let (method, scheme, host) = ((":method", "GET"), (":scheme", "http"), (":authority", "x"));
    let path = (":path", "/healthz");
    for (block, answered) in [
        (get(&[]), Some(200)),
        (get(&[("host", "x")]), Some(200)),
        (fields(&[method, scheme, path, ("host", "x")]), Some(200)),
        (get(&[("host", "y")]), Some(400)),
        (get(&[("host", "x"), ("host", "x")]), Some(400)),
        (fields(&[method, (":scheme", "ftp"), path, host]), Some(400)),
        (fields(&[method, scheme, path, (":authority", "u@x")]), Some(400)),
        (get(&[("transfer-encoding", "chunked")]), None),
        (get(&[("connection", "close")]), None),
        (get(&[("x", "a\r\ny: b")]), None),
        (get(&[("x", "a\nb")]), None),
        (get(&[("x", "a\0b")]), None),
        (get(&[("X", "a")]), None),
        (get(&[("x y", "a")]), None),
        (get(&[("content-length", "1"), ("content-length", "2")]), None),
        (get(&[("content-length", "+1")]), None),
        (fields(&[method, scheme, path, host, host]), None),
        (fields(&[method, scheme, path, host, (":other", "x")]), None),
        (fields(&[method, scheme, ("x", "y"), path, host]), None),
        (fields(&[method, scheme, host]), None),
        (fields(&[(":method", "G T"), scheme, path, host]), None),
        (fields(&[method, scheme, (":path", "/a b"), host]), None),
        (fields(&[method, scheme, (":path", "healthz"), host]), None),
        (fields(&[method, scheme, (":path", "/healthz\r\nx: y"), host]), None),
    ] {
        let mut socket = speak(&daemon);
        socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).unwrap();
        let mut status = None;
        await_frame(&mut socket, |kind, _, payload| {
            // These statuses are in the static table (RFC 7541, appendix A).
            status = match (kind, payload.first()) {
                (HEADERS, Some(0x88)) => Some(200),
                (HEADERS, Some(0x8c)) => Some(400),
                (HEADERS, _) => Some(0),
                _ => None,
            };
            matches!(kind, HEADERS | RST_STREAM | GOAWAY)
        });
        assert_eq!(status, answered, "{:?}", String::from_utf8_lossy(&block));
    }
}

#[test]
fn what_a_reset_request_did_is_told() {
    let daemon = Daemon::start();
    let user = daemon.user("u");
    let mut socket = speak(&daemon);
    let keys: Vec<_> =
        (0..10).map(|n| user.store(&n.to_string(), "", b"x")["key"].clone()).collect();
    for (stream, key) in (1_u32..).step_by(2).zip(&keys) {
        let path = format!("/v1/files/{}", key.as_str().unwrap());
        let delete = request("DELETE", &path, &[("x-service-token", TOKEN)]);
        let delete = frame(HEADERS, END_STREAM | END_HEADERS, stream, &delete);
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        socket.write_all(&[delete, reset].concat()).unwrap();
    }
    let told = || {
        let mut lines = lines(&daemon.dir());
        lines.retain(|line| line["event"] == "delete");
        lines
    };
    eventually(|| told().len() == keys.len());
    assert!(told().iter().any(|line| line["outcome"] == "cut"), "{:?}", told());
    assert!(told().iter().all(|line| keys.contains(&line["target"])));
}
