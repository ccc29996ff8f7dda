//! Connections that repeat a request, each on a thread over a bare socket: a client costs as little
//! as it can, and the same for every server.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy)]
pub enum Method {
    Put,
    Base64Part,
    /// A whole file, or 1 KiB out of its middle.
    Get {
        range: bool,
    },
}

impl Method {
    /// Bytes of content that one request moves.
    pub fn bytes_of(self, bytes: u64) -> u64 {
        if matches!(self, Self::Get { range: true }) { 1 << 10 } else { bytes }
    }
}

/// The text before and after the content of the n-th request.
pub type Document = Box<dyn Fn(u64) -> (String, String) + Send + Sync>;

/// One kind of request to one server.
pub struct Job {
    pub address: String,
    /// The n-th request: request line and headers without `Host` and `Content-Length`.
    pub head: Box<dyn Fn(u64) -> String + Send + Sync>,
    /// Set when the content is sent as base64 inside a document.
    pub document: Option<Document>,
    /// Bytes of content to send.
    pub bytes: u64,
}

/// Pieces of this size are repeated to make a content.
const PIECE: usize = 1 << 20;
/// The number of the next request. It makes every content different, also across rows, because
/// servers that know a content are quick.
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn piece(base64: bool) -> Vec<u8> {
    let mut bytes = vec![0; PIECE];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    if base64 {
        for byte in &mut bytes {
            *byte = b'A' + *byte % 26;
        }
    }
    bytes
}

/// Requests a second of `clients` connections. The last request of each is finished and counted.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn run(job: &Job, clients: usize, span: Duration) -> f64 {
    let began = Instant::now();
    let piece = piece(job.document.is_some());
    let count: u64 = thread::scope(|scope| {
        let start = |_| scope.spawn(|| repeat(job, piece.clone(), began + span));
        let clients: Vec<_> = (0..clients).map(start).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    count as f64 / began.elapsed().as_secs_f64()
}

/// Sends one request; answers its number and the body of the answer.
pub fn once(job: &Job) -> (u64, String) {
    let mut stream = TcpStream::connect(&job.address).unwrap();
    let mut piece = piece(job.document.is_some());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    send(&mut stream, job, number, &mut piece);
    let body = receive(&mut stream, &mut vec![0; 256 << 10]);
    (number, String::from_utf8_lossy(&body).into_owned())
}

fn repeat(job: &Job, mut piece: Vec<u8>, until: Instant) -> u64 {
    let mut stream = TcpStream::connect(&job.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut buffer, mut count) = (vec![0; 256 << 10], 0);
    while Instant::now() < until {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        send(&mut stream, job, number, &mut piece);
        receive(&mut stream, &mut buffer);
        count += 1;
    }
    count
}

fn send(stream: &mut TcpStream, job: &Job, number: u64, piece: &mut [u8]) {
    let mut head = (job.head)(number);
    let (before, after) = job.document.as_ref().map(|document| document(number)).unzip();
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let content = if job.document.is_some() { job.bytes.div_ceil(3) * 4 } else { job.bytes };
    let length = content + (before.len() + after.len()) as u64;
    write!(head, "Host: {}\r\nContent-Length: {length}\r\n\r\n{before}", job.address).unwrap();
    // Letters are valid base64, too.
    let stamp = number.to_string().bytes().map(|digit| digit - b'0' + b'a').collect::<Vec<_>>();
    let stamped = stamp.len().min(usize::try_from(content).unwrap());
    piece[..stamped].copy_from_slice(&stamp[..stamped]);
    let (mut head, mut left) = (head.into_bytes(), content);
    if content <= 64 << 10 {
        head.extend_from_slice(&piece[..usize::try_from(content).unwrap()]);
        left = 0;
    }
    stream.write_all(&head).unwrap();
    while left > 0 {
        let bytes = usize::try_from(left.min(PIECE as u64)).unwrap();
        stream.write_all(&piece[..bytes]).unwrap();
        left -= bytes as u64;
    }
    stream.write_all(after.as_bytes()).unwrap();
}

/// Reads one answer; of a long one, only the first buffer is kept.
fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> Vec<u8> {
    let (mut head, mut read) = (Vec::new(), 0);
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let bytes = stream.read(buffer).unwrap();
        assert!(bytes > 0, "the server hung up: {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&buffer[..bytes]);
        read += bytes;
    };
    let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
    let status: u16 = text[9..12].parse().unwrap();
    assert!((200..300).contains(&status), "{}", String::from_utf8_lossy(&head));
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while read < end + length {
        let bytes = stream.read(buffer).unwrap();
        assert!(bytes > 0, "the answer is cut");
        read += bytes;
    }
    head.split_off(end)
}
