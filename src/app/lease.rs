//! One worker at a time for one session.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::model::id::UploadId;

#[derive(Default)]
struct Slot {
    held: Arc<tokio::sync::Mutex<()>>,
    /// Belongs to the last caller of [`Leases::take_over`], which holds the session or waits for
    /// it.
    newest: Mutex<CancellationToken>,
}

/// The sessions that are held or waited for; others take no memory.
#[derive(Default)]
pub struct Leases {
    slots: Mutex<HashMap<UploadId, Weak<Slot>>>,
    ending: CancellationToken,
}

/// Holds a session as long as it lives.
pub struct Lease {
    _held: OwnedMutexGuard<()>,
    _slot: Arc<Slot>,
    asked: CancellationToken,
}

impl Lease {
    /// Returns when another caller wants the session, or when the daemon stops.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }
}

impl Leases {
    /// Waits until nobody else holds `id`.
    pub async fn lock(&self, id: UploadId) -> Lease {
        self.hold(id, CancellationToken::new(), |_, _| {}).await
    }

    /// As [`Leases::lock`], but asks those who hold `id` or wait for it to release it: the newest
    /// caller is the one whose client is there.
    pub async fn take_over(&self, id: UploadId) -> Lease {
        let replace = |slot: &Slot, asked: &CancellationToken| {
            let mut newest = slot.newest.lock().unwrap_or_else(PoisonError::into_inner);
            mem::replace(&mut *newest, asked.clone()).cancel();
        };
        self.hold(id, self.ending.child_token(), replace).await
    }

    /// Asks every holder to release its session, now and from now on.
    pub fn end(&self) {
        self.ending.cancel();
    }

    async fn hold(
        &self,
        id: UploadId,
        asked: CancellationToken,
        announce: impl FnOnce(&Slot, &CancellationToken),
    ) -> Lease {
        let slot = self.slot(id);
        announce(&slot, &asked);
        let held = Arc::clone(&slot.held).lock_owned().await;
        Lease { _held: held, _slot: slot, asked }
    }

    fn slot(&self, id: UploadId) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::default());
        slots.insert(id, Arc::downgrade(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{future::poll_immediate, pin_mut, poll};

    use super::*;

    #[tokio::test]
    async fn the_newest_asks_all_before_it_to_let_go() {
        let (leases, id) = (Leases::default(), UploadId([1; 16]));
        let first = leases.take_over(id).await;
        assert_eq!(poll_immediate(first.asked()).await, None);
        assert!(poll_immediate(leases.take_over(UploadId([2; 16]))).await.is_some());
        let (second, third) = (leases.take_over(id), leases.take_over(id));
        pin_mut!(second, third);
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        first.asked().await;
        drop(first);
        let second = second.await;
        // The second was asked while it waited.
        second.asked().await;
        drop(second);
        let third = third.await;
        assert_eq!(poll_immediate(third.asked()).await, None);
        leases.end();
        third.asked().await;
    }
}
