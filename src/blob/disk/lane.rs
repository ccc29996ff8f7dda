//! Processes the bytes of a transfer in the order of their arrival, on the blocking pool.
//!
//! A lane occupies a thread only as long as there is something to do. So a stalled transfer holds
//! no thread and leaves no work undone, and a transfer that is faster than the work does not wake a
//! thread for each buffer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{blocking::joined, buffers::Full};
use crate::blob::Result;

/// See the module. `T` is the result of the work on all bytes so far.
pub struct Lane<T> {
    queue: Arc<Queue>,
    work: fn(T, &[u8]) -> Result<T>,
    job: JoinHandle<Result<T>>,
}

#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    full: VecDeque<Full>,
    /// Whether a job is running, which takes the waiting buffers and those that are added
    /// meanwhile.
    is_worked_on: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Full> {
        let mut waiting = self.lock();
        let next = waiting.full.pop_front();
        waiting.is_worked_on = next.is_some();
        next
    }
}

/// Drops all waiting buffers when it is dropped, unless the work on the current buffer succeeded.
struct Unfinished<'a>(&'a Queue);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Waiting::default();
    }
}

impl<T: Send + 'static> Lane<T> {
    pub fn begin(
        first: impl FnOnce() -> Result<T> + Send + 'static,
        work: fn(T, &[u8]) -> Result<T>,
    ) -> Self {
        Self { queue: Arc::default(), work, job: spawn_blocking(first) }
    }

    /// Adds a buffer to the queue.
    ///
    /// # Errors
    /// The error of the work on an earlier buffer. After an error, or if this call was cancelled,
    /// the lane is of no use any more.
    pub async fn push(&mut self, full: Full) -> Result<()> {
        let was_worked_on = {
            let mut waiting = self.queue.lock();
            waiting.full.push_back(full);
            std::mem::replace(&mut waiting.is_worked_on, true)
        };
        if !was_worked_on {
            let mut made = joined((&mut self.job).await)?;
            let (queue, work) = (Arc::clone(&self.queue), self.work);
            self.job = spawn_blocking(move || {
                while let Some(bytes) = queue.next() {
                    let unfinished = Unfinished(&queue);
                    made = work(made, &bytes)?;
                    std::mem::forget(unfinished);
                }
                Ok(made)
            });
        }
        Ok(())
    }

    /// Waits for all work and answers its result.
    pub async fn finish(mut self) -> Result<T> {
        joined((&mut self.job).await)
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.queue.lock().full.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use bytes::Bytes;

    use super::*;
    use crate::blob::{
        Error,
        disk::buffers::{Gatherer, SHARED_MAX},
    };

    /// A transfer, and its content one byte at a time.
    fn transfer() -> (Gatherer, impl Iterator<Item = Bytes>) {
        (Gatherer::new(&Arc::default()), (0..=255).map(|n| Bytes::from(vec![n])))
    }

    async fn next(from: &mut (Gatherer, impl Iterator<Item = Bytes>)) -> Full {
        from.0.fill(&mut from.1.next().unwrap());
        from.0.full().await.unwrap()
    }

    #[tokio::test]
    async fn bytes_are_worked_on_in_order() {
        let append = |mut all: Vec<u8>, bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(all)
        };
        let (mut lane, mut transfer) = (Lane::begin(|| Ok(vec![]), append), transfer());
        for _ in 0..=255 {
            lane.push(next(&mut transfer).await).await.unwrap();
        }
        assert_eq!(lane.finish().await, Ok((0..=255).collect()));
    }

    /// Work that signals when it begins and ends when it is told to.
    type Told = (Sender<()>, Receiver<()>);

    fn told_work((begun, end): Told, bytes: &[u8]) -> Result<Told> {
        begun.send(()).map_err(|error| Error::Io(error.to_string()))?;
        end.recv().map_err(|error| Error::Io(format!("{error} at {bytes:?}")))?;
        Ok((begun, end))
    }

    fn told_lane() -> (Lane<Told>, Receiver<()>, Sender<()>) {
        let ((begun, has_begun), (to_end, end)) = (channel(), channel());
        (Lane::begin(|| Ok((begun, end)), told_work), has_begun, to_end)
    }

    #[tokio::test]
    async fn a_failure_is_told_and_frees_what_waits() {
        let (mut lane, _has_begun, to_end) = told_lane();
        let mut transfer = transfer();
        for _ in 0..=SHARED_MAX {
            lane.push(next(&mut transfer).await).await.unwrap();
        }
        drop(to_end);
        // There is no place for this buffer until the others are dropped.
        let after = next(&mut transfer).await;
        let failed = lane.push(after).await.unwrap_err();
        assert!(failed.to_string().ends_with("at [0]"), "{failed}");
    }

    #[tokio::test]
    async fn nothing_more_is_done_for_a_lane_that_is_gone() {
        let (mut lane, has_begun, to_end) = told_lane();
        let mut transfer = transfer();
        for _ in 0..2 {
            lane.push(next(&mut transfer).await).await.unwrap();
        }
        has_begun.recv().unwrap();
        drop(lane);
        to_end.send(()).unwrap();
        assert!(has_begun.recv().is_err(), "the second was worked on");
    }
}
