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
        if bytes.len() >= KEPT_BYTES_MIN {
            self.close_tail();
            self.held_bytes += bytes.len().max(KEPT_BUFFER_BYTES);
            self.pieces.push(bytes);
            return;
        }
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.close_tail();
            self.tail = BytesMut::with_capacity(TRANSFER_BUFFER_BYTES);
        }
        self.held_bytes += bytes.len();
        self.tail.extend_from_slice(&bytes);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    /// Whether it has what goes on at once.
    pub fn is_full(&self) -> bool {
        self.held_bytes >= TRANSFER_BUFFER_BYTES
    }

    /// Whether more may gather although it is full.
    pub fn goes_ahead(&mut self, batches: &Arc<Semaphore>) -> bool {
        if self.ahead.is_none() {
            self.ahead = Arc::clone(batches).try_acquire_owned().ok();
        }
        self.ahead.is_some() && self.held_bytes < AHEAD_BYTES_MAX
    }

    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &**piece).chain([&*self.tail])
    }
}
