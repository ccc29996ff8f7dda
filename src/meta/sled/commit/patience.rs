//! How long an answer is waited for: sled can wait for ever behind a disk that failed it.
//!
//! The time is counted in seconds that this process saw. One that was stopped for an hour (`docker
//! pause`, a debugger) and goes on finds all its timers over, before the committer had a chance to
//! answer: that hour counts as a second.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::timeout,
};

/// A commit that is not at its end after so many seconds never will be.
pub const SECONDS: u32 = 60;

const SECOND: Duration = Duration::from_secs(1);

/// The answer, or `None` when it does not come.
pub async fn answer<T>(mut answered: oneshot::Receiver<T>) -> Option<Result<T, RecvError>> {
    for _ in 0..SECONDS {
        if let Ok(answer) = timeout(SECOND, &mut answered).await {
            return Some(answer);
        }
    }
    None
}

/// Whether what holds the other end lets go of it in so many seconds. Blocks.
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
        // One that runs does not.
        let (_answers, answered) = oneshot::channel::<()>();
        assert_eq!(answer(answered).await, None);
    }
}
