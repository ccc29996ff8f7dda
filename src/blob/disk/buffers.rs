//! The buffers in which uploads gather bytes, and the limit on how many may wait to be processed.
//!
//! Buffers are reused: allocating them anew costs a twentieth of an upload's processor time,
//! because the kernel clears the pages.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    blob::{Error, Result},
    model::limits::TRANSFER_BUFFER_BYTES,
};

/// How many buffers all transfers together may have waiting, beside the one that each transfer may
/// always have. As many unused ones are kept for reuse.
pub const SHARED_MAX: usize = 16;

/// The buffers of all transfers.
pub struct Buffers {
    places: Arc<Semaphore>,
    unused: Mutex<Vec<BytesMut>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(SHARED_MAX)), unused: Mutex::default() }
    }
}

impl Buffers {
    fn unused(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self) -> BytesMut {
        let unused = self.unused().pop();
        unused.unwrap_or_else(|| BytesMut::with_capacity(TRANSFER_BUFFER_BYTES))
    }

    fn take_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut unused = self.unused();
        if unused.len() < SHARED_MAX {
            unused.push(buffer);
        }
    }
}

/// Gathers the bytes of one transfer into buffers.
pub struct Gatherer {
    buffers: Arc<Buffers>,
    place: Arc<Semaphore>,
    gathered: BytesMut,
}

impl Gatherer {
    pub fn new(buffers: &Arc<Buffers>) -> Self {
        let (buffers, gathered) = (Arc::clone(buffers), buffers.empty());
        Self { buffers, place: Arc::new(Semaphore::new(1)), gathered }
    }

    /// Takes as many bytes from the beginning of `bytes` as there is room for, and answers whether
    /// the buffer is full.
    pub fn fill(&mut self, bytes: &mut Bytes) -> bool {
        let missing = TRANSFER_BUFFER_BYTES - self.gathered.len();
        self.gathered.extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        self.gathered.len() == TRANSFER_BUFFER_BYTES
    }

    /// The gathered buffer, once there is a place for it to wait in.
    pub async fn full(&mut self) -> Result<Full> {
        let free = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let place = match [&self.place, &self.buffers.places].into_iter().find_map(free) {
            Some(place) => Ok(place),
            None => Arc::clone(&self.place).acquire_owned().await,
        };
        let place = place.map_err(|error| Error::Io(error.to_string()))?;
        let bytes = std::mem::replace(&mut self.gathered, self.buffers.empty());
        Ok(Full(Arc::new(Held { bytes, buffers: Arc::clone(&self.buffers), _place: place })))
    }

    /// The bytes that were gathered since the last full buffer.
    pub fn rest(self) -> BytesMut {
        self.gathered
    }
}

/// A buffer that waits to be processed. Its place is freed when the last clone is dropped.
#[derive(Clone)]
pub struct Full(Arc<Held>);

struct Held {
    bytes: BytesMut,
    buffers: Arc<Buffers>,
    _place: OwnedSemaphorePermit,
}

impl Deref for Full {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffers.take_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn has_place(gatherer: &mut Gatherer) -> Option<Full> {
        timeout(Duration::ZERO, gatherer.full()).await.ok().map(Result::unwrap)
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_every_transfer_may_have_one() {
        let buffers = Arc::default();
        let [mut first, mut second] = [Gatherer::new(&buffers), Gatherer::new(&buffers)];
        let mut waiting = Vec::new();
        while let Some(full) = has_place(&mut first).await {
            waiting.push(full);
        }
        assert_eq!(waiting.len(), 1 + SHARED_MAX);
        let own = has_place(&mut second).await;
        assert!(own.is_some());
        assert!(has_place(&mut second).await.is_none());
        let clone = waiting.pop();
        let last = clone.clone();
        drop(clone);
        assert!(has_place(&mut second).await.is_none(), "another lane still needs it");
        drop(last);
        assert!(has_place(&mut second).await.is_some());
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_and_holds_nothing_of_before() {
        let buffers = Arc::default();
        let mut gatherer = Gatherer::new(&buffers);
        let mut bytes = Bytes::from(vec![7; TRANSFER_BUFFER_BYTES + 1]);
        assert!(gatherer.fill(&mut bytes));
        let full = gatherer.full().await.unwrap();
        assert_eq!((full.len(), bytes.len()), (TRANSFER_BUFFER_BYTES, 1));
        let at = full.as_ptr();
        drop(full);
        assert!(gatherer.full().await.unwrap().is_empty());
        assert!(!gatherer.fill(&mut Bytes::from_static(b"new")));
        let again = gatherer.rest();
        assert_eq!((&*again, again.as_ptr()), (&b"new"[..], at));
    }
}
