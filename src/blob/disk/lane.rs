//! Work on the bytes of a transfer in the order in which they come, on the blocking pool.
//!
//! A lane has a thread for as long as there is something to do and none else. So a transfer that
//! stands still holds no thread and leaves nothing undone, and one that is faster than the
//! work wakes nobody for each of its buffers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
};

use super::stage::joined;
use crate::blob::{Error, Result};

/// Buffers that all transfers together may have waiting beside the one that each may.
pub const SHARED_BUFFERS_MAX: usize = 16;

/// Where buffers of one transfer wait to be worked on.
pub struct Room {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

impl Room {
    pub fn new(shared: &Arc<Semaphore>) -> Self {
        Self { own: Arc::new(Semaphore::new(1)), shared: Arc::clone(shared) }
    }

    /// Waits until there is room for a buffer, which it holds until no lane needs it any more.
    pub async fn take(&self, bytes: Bytes) -> Result<Piece> {
        let free = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_owned().ok();
        let taken = match [&self.own, &self.shared].into_iter().find_map(free) {
            Some(taken) => Ok(taken),
            None => Arc::clone(&self.own).acquire_owned().await,
        };
        let taken = taken.map_err(|error| Error::Io(error.to_string()))?;
        Ok(Piece { bytes, _taken: Arc::new(taken) })
    }
}

/// Bytes and the room that they take.
#[derive(Clone)]
pub struct Piece {
    bytes: Bytes,
    _taken: Arc<OwnedSemaphorePermit>,
}

/// See the module. `T` is what the work makes of all pieces so far.
pub struct Lane<T> {
    queue: Arc<Queue>,
    work: fn(T, &[u8]) -> Result<T>,
    job: JoinHandle<Result<T>>,
}

#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    /// A job takes what waits, and what comes while it does.
    is_worked_on: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Piece> {
        let mut waiting = self.lock();
        let next = waiting.pieces.pop_front();
        waiting.is_worked_on = next.is_some();
        next
    }
}

/// Lets everything go that waits, unless the work on a piece came to its end.
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

    /// Adds a piece to what waits.
    ///
    /// # Errors
    /// What the work on an earlier piece failed with. The lane is of no use then, nor when this was
    /// not waited for.
    pub async fn push(&mut self, piece: Piece) -> Result<()> {
        let was_worked_on = {
            let mut waiting = self.queue.lock();
            waiting.pieces.push_back(piece);
            std::mem::replace(&mut waiting.is_worked_on, true)
        };
        if !was_worked_on {
            let mut made = joined((&mut self.job).await)?;
            let (queue, work) = (Arc::clone(&self.queue), self.work);
            self.job = spawn_blocking(move || {
                while let Some(piece) = queue.next() {
                    let unfinished = Unfinished(&queue);
                    made = work(made, &piece.bytes)?;
                    std::mem::forget(unfinished);
                }
                Ok(made)
            });
        }
        Ok(())
    }

    /// What became of all pieces.
    pub async fn finish(mut self) -> Result<T> {
        joined((&mut self.job).await)
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.queue.lock().pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, channel},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    fn room(shared: usize) -> Room {
        Room::new(&Arc::new(Semaphore::new(shared)))
    }

    async fn has_room(room: &Room) -> bool {
        timeout(Duration::ZERO, room.take(Bytes::new())).await.is_ok()
    }

    #[tokio::test]
    async fn pieces_are_worked_on_in_order() {
        let room = room(3);
        let append = |mut all: Vec<u8>, bytes: &[u8]| {
            all.extend_from_slice(bytes);
            Ok(all)
        };
        let mut lane = Lane::begin(|| Ok(vec![]), append);
        for n in 0..=255 {
            lane.push(room.take(Bytes::from(vec![n])).await.unwrap()).await.unwrap();
        }
        assert_eq!(lane.finish().await, Ok((0..=255).collect()));
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (go_on, told) = channel();
        let room = room(2);
        let wait = |told: Receiver<()>, _: &[u8]| {
            told.recv().map_err(|error| Error::Io(error.to_string()))?;
            Ok(told)
        };
        let mut lane = Lane::begin(|| Ok(told), wait);
        for _ in 0..3 {
            let piece = timeout(Duration::ZERO, room.take(Bytes::new())).await.unwrap().unwrap();
            lane.push(piece).await.unwrap();
        }
        assert!(!has_room(&room).await);
        go_on.send(()).unwrap();
        lane.push(room.take(Bytes::new()).await.unwrap()).await.unwrap();
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        lane.finish().await.unwrap();
        for _ in 0..3 {
            assert!(has_room(&room).await);
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_and_frees_what_waits() {
        let (go_on, told) = channel::<()>();
        let room = room(0);
        let fail = |told: Receiver<()>, _: &[u8]| {
            let _ = told.recv();
            Err(Error::Io("full".into()))
        };
        let mut lane = Lane::begin(|| Ok(told), fail);
        lane.push(room.take(Bytes::new()).await.unwrap()).await.unwrap();
        drop(go_on);
        let after = room.take(Bytes::new()).await.unwrap();
        assert_eq!(lane.push(after).await, Err(Error::Io("full".into())));
    }

    #[tokio::test]
    async fn nothing_more_is_done_for_a_lane_that_is_gone() {
        let (done, told) = channel();
        let (go_on, wait) = channel::<()>();
        let room = room(1);
        let work = |(done, wait): (std::sync::mpsc::Sender<()>, Receiver<()>), _: &[u8]| {
            done.send(()).map_err(|error| Error::Io(error.to_string()))?;
            let _ = wait.recv();
            Ok((done, wait))
        };
        let mut lane = Lane::begin(|| Ok((done, wait)), work);
        for _ in 0..2 {
            lane.push(room.take(Bytes::new()).await.unwrap()).await.unwrap();
        }
        told.recv().unwrap();
        drop(lane);
        drop(go_on);
        assert!(told.recv().is_err(), "the second piece was worked on");
    }
}
