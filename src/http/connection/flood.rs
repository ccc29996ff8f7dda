//! Bounds the HTTP/2 frames that carry nothing: `SETTINGS`, `PING`, `PRIORITY`, `WINDOW_UPDATE` and
//! unknown ones. h2 answers or skips any number of them, so a client that sends little else keeps a
//! core busy. h2 itself bounds resets, continuations and empty `DATA`.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::telemetry::metrics;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// Bytes of such frames that any connection may send, and what each second adds to them.
const FREE_BYTES: u64 = 1 << 20;
const FREE_BYTES_PER_SECOND: u64 = 1 << 10;

/// A connection's stream, inside TLS. Reading fails when too many of its frames carry nothing.
pub struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, meter: Meter::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if !self.meter.received(&buffer.filled()[filled..]) {
            metrics::LIMITS.of("flood").add(1);
            let why = "flooded with HTTP/2 frames that carry nothing";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Weighs what a connection carries against its overhead.
struct Meter {
    began: Instant,
    place: Place,
    /// Bytes of frames that carry nothing.
    overhead: u64,
    /// Bytes of frames that carry something, and all bytes that we sent.
    carried: u64,
}

enum Place {
    Preface(usize),
    Header([u8; HEADER_BYTES], usize),
    Payload {
        left: usize,
        carries: bool,
    },
    /// HTTP/1, which has no frames: nothing is weighed.
    Elsewhere,
}

impl Meter {
    fn new() -> Self {
        Self { began: Instant::now(), place: Place::Preface(0), overhead: 0, carried: 0 }
    }

    fn sent(&mut self, bytes: usize) {
        self.carried += bytes as u64;
    }

    /// Takes account of received bytes; false when the overhead is now too large.
    fn received(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
        let seconds = self.began.elapsed().as_secs();
        let free = FREE_BYTES + seconds.saturating_mul(FREE_BYTES_PER_SECOND);
        self.overhead <= free + self.carried / 2
    }

    /// Consumes the next bytes, at least one, and returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match &mut self.place {
            Place::Preface(at) => {
                let taken = bytes.len().min(PREFACE.len() - *at);
                if bytes[..taken] != PREFACE[*at..*at + taken] {
                    self.place = Place::Elsewhere;
                    return bytes.len();
                }
                *at += taken;
                if *at == PREFACE.len() {
                    self.place = Place::Header([0; HEADER_BYTES], 0);
                }
                taken
            }
            Place::Header(header, at) => {
                let taken = bytes.len().min(HEADER_BYTES - *at);
                header[*at..*at + taken].copy_from_slice(&bytes[..taken]);
                *at += taken;
                if *at == HEADER_BYTES {
                    let [a, b, c, kind, ..] = *header;
                    self.begin(u32::from_be_bytes([0, a, b, c]) as usize, kind);
                }
                taken
            }
            Place::Payload { left, carries } => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                let weighed = if *carries { &mut self.carried } else { &mut self.overhead };
                *weighed += taken as u64;
                if *left == 0 {
                    self.place = Place::Header([0; HEADER_BYTES], 0);
                }
                taken
            }
            Place::Elsewhere => bytes.len(),
        }
    }

    fn begin(&mut self, length: usize, kind: u8) {
        // DATA, HEADERS and CONTINUATION (RFC 9113 section 6).
        let carries = matches!(kind, 0 | 1 | 9);
        if !carries {
            self.overhead += HEADER_BYTES as u64;
        }
        self.place = match length {
            0 => Place::Header([0; HEADER_BYTES], 0),
            left => Place::Payload { left, carries },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let header = [&length[1..], &[kind, 0, 0, 0, 0, 0]].concat();
        [header, vec![0; payload]].concat()
    }

    fn met(cut: usize, pieces: &[Vec<u8>]) -> Meter {
        let mut meter = Meter::new();
        let stream = [PREFACE.to_vec(), pieces.concat()].concat();
        assert!(stream.chunks(cut).all(|chunk| meter.received(chunk)));
        meter
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        for cut in [1, 2, 7, 1000] {
            let meter = met(cut, &[frame(0, 100), frame(6, 8), frame(4, 0), frame(9, 3)]);
            assert_eq!((meter.carried, meter.overhead), (103, 26), "{cut}");
        }
    }

    #[test]
    fn nothing_but_overhead_ends_and_a_transfer_does_not() {
        let pings = frame(6, 8).repeat(1000);
        let mut meter = met(64, &[]);
        assert!((0..100).any(|_| !meter.received(&pings)));
        // As in a download: a window update for each piece.
        let mut meter = met(64, &[]);
        let windows = [frame(8, 4), frame(8, 4)].concat().repeat(1000);
        assert!((0..100).all(|_| {
            meter.sent(16 << 20);
            meter.received(&windows)
        }));
        // HTTP/1 is not weighed.
        let mut meter = Meter::new();
        assert!(meter.received(b"GET / HTTP/1.1\r\n\r\n") && meter.received(&pings.repeat(200)));
    }
}
