//! Steps in progress, so that a caller can wait for those that have begun, and for no others.

use std::sync::{Mutex, PoisonError};

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// The current epoch, and earlier ones whose end nobody has waited for yet.
#[derive(Default)]
pub struct Epochs(Mutex<Vec<TaskTracker>>);

impl Epochs {
    /// Begins a step, which lasts as long as the token.
    pub fn enter(&self) -> TaskTrackerToken {
        let mut epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if epochs.is_empty() {
            epochs.push(TaskTracker::new());
        }
        epochs[epochs.len() - 1].token()
    }

    /// Waits until every step that has begun has ended. A caller that stops waiting leaves the
    /// steps that still run to the next caller.
    pub async fn wait(&self) {
        let begun = {
            let mut epochs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = epochs.clone();
            epochs.push(TaskTracker::new());
            begun
        };
        for epoch in &begun {
            epoch.close();
            epoch.wait().await;
        }
        let is_over = |epoch: &TaskTracker| epoch.is_closed() && epoch.is_empty();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|epoch| !is_over(epoch));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::{future::poll_immediate, pin_mut, poll};

    use super::*;

    #[tokio::test]
    async fn one_waits_for_what_has_begun_and_for_nothing_else() {
        let epochs = Epochs::default();
        epochs.wait().await;
        let first = epochs.enter();
        let wait = epochs.wait();
        pin_mut!(wait);
        assert_eq!(poll!(&mut wait), Poll::Pending);
        let second = epochs.enter();
        assert_eq!(poll!(&mut wait), Poll::Pending);
        drop(first);
        wait.await;
        assert_eq!(poll_immediate(epochs.wait()).await, None, "the second goes on");
        // That caller stopped waiting; the step that it waited for is not forgotten.
        assert_eq!(poll_immediate(epochs.wait()).await, None);
        drop(second);
        epochs.wait().await;
        assert!(epochs.0.lock().unwrap().len() <= 1);
    }
}
