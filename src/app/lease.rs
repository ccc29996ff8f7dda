//! One worker at a time for one session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

use crate::model::id::UploadId;

type Slot = tokio::sync::Mutex<()>;

/// Held or waited-for sessions; others take no memory.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<UploadId, Weak<Slot>>>);

impl Leases {
    /// Waits until nobody else holds `id`; it is held as long as the answer lives.
    pub async fn lock(&self, id: UploadId) -> OwnedMutexGuard<()> {
        self.slot(id).lock_owned().await
    }

    fn slot(&self, id: UploadId) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::default());
        slots.insert(id, Arc::downgrade(&slot));
        slot
    }
}
