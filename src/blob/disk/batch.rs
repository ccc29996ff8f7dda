//! Bytes that go on to the disk and to the hash together.
//!
//! Large pieces stay in the buffers they came in: to copy them cost a seventh of an upload's
//! processor time. While the bytes before them are at work, more may gather than a buffer has
//! room for, so that few threads have to be woken; so many batches at a time may, of all transfers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::limits::TRANSFER_BUFFER_BYTES;

/// A piece from this size on stays in the buffer that it came in.
const KEPT_BYTES_MIN: usize = 32 << 10;
/// What such a piece counts for at least: the buffer of a connection may be larger than it.
const KEPT_BUFFER_BYTES: usize = TRANSFER_BUFFER_BYTES;
/// What gathers at most while the bytes before are at work.
const AHEAD_BYTES_MAX: usize = 1 << 20;

/// How many batches of all transfers may be larger than [`TRANSFER_BUFFER_BYTES`].
pub const AHEAD_BATCHES_MAX: usize = 8;

#[derive(Default)]
pub struct Batch {
    pieces: Vec<Bytes>,
    /// Small pieces, one behind the other, that come after `pieces`.
    tail: BytesMut,
    held_bytes: usize,
    ahead: Option<OwnedSemaphorePermit>,
}

impl Batch {
    pub fn push(&mut self, bytes: Bytes) {
        self.held_bytes += held_by(&bytes);
        if bytes.len() >= KEPT_BYTES_MIN {
            self.close_tail();
            self.pieces.push(bytes);
            return;
        }
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.close_tail();
            self.tail = BytesMut::with_capacity(TRANSFER_BUFFER_BYTES);
        }
        self.tail.extend_from_slice(&bytes);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    /// Whether these bytes would hold more memory with it than a buffer.
    pub fn is_full_for(&self, bytes: &Bytes) -> bool {
        self.held_bytes > 0 && self.held_bytes + held_by(bytes) > TRANSFER_BUFFER_BYTES
    }

    /// Whether more may gather although it is full.
    pub fn goes_ahead(&mut self, batches: &Arc<Semaphore>) -> bool {
        if self.ahead.is_none() {
            self.ahead = Arc::clone(batches).try_acquire_owned().ok();
        }
        self.ahead.is_some() && self.held_bytes < AHEAD_BYTES_MAX
    }

    pub fn is_large(&self) -> bool {
        self.held_bytes >= TRANSFER_BUFFER_BYTES
    }

    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &**piece).chain([&*self.tail])
    }
}

/// Memory that a piece takes until it is at work.
fn held_by(bytes: &Bytes) -> usize {
    let least = if bytes.len() >= KEPT_BYTES_MIN { KEPT_BUFFER_BYTES } else { 0 };
    bytes.len().max(least)
}
