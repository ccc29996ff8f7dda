//! How long to wait for an answer: sled can wait for ever on a disk that has failed.
//!
//! The time is counted in seconds during which this process ran. When a process that was stopped
//! for an hour (`docker pause`, a debugger) goes on, all its timers have expired before the
//! committer had a chance to answer; that hour counts as one second.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::timeout,
};

/// A commit that has not ended after this many seconds counts as failed.
pub const SECONDS: u32 = 60;

const SECOND: Duration = Duration::from_secs(1);

/// The answer, or `None` when it does not come in time.
pub async fn answer<T>(mut answered: oneshot::Receiver<T>) -> Option<Result<T, RecvError>> {
    for _ in 0..SECONDS {
        if let Ok(answer) = timeout(SECOND, &mut answered).await {
            return Some(answer);
        }
    }
    None
}

/// Whether the other end is dropped within this many seconds. Blocks.
pub fn hangs_up(ended: &Receiver<()>, seconds: u32) -> bool {
    (0..seconds).any(|_| ended.recv_timeout(SECOND) != Err(RecvTimeoutError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_waits_on() {
        let (answers, answered) = oneshot::channel();
        let waiting = tokio::spawn(answer(answered));
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_hours(1)).await;
        tokio::task::yield_now().await;
        answers.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Some(Ok(7)));
        // A process that keeps running gives up.
        let (_answers, answered) = oneshot::channel::<()>();
        assert_eq!(answer(answered).await, None);
    }
}
