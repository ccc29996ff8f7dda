//! Sessions whose bytes are on their way. A session lives for so long without progress, and bytes
//! that come are progress: it does not expire before they are recorded or given up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::id::UploadId;

/// Requests that send bytes, by session.
#[derive(Default)]
pub struct Arrivals {
    requests: Mutex<HashMap<UploadId, usize>>,
}

/// The session counts as alive as long as this lives.
pub struct Arriving {
    arrivals: Arc<Arrivals>,
    id: UploadId,
}

impl Arrivals {
    pub fn begin(self: &Arc<Self>, id: UploadId) -> Arriving {
        *self.lock().entry(id).or_default() += 1;
        Arriving { arrivals: Arc::clone(self), id }
    }

    pub fn has(&self, id: UploadId) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, usize>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut requests = self.arrivals.lock();
        if let Some(count) = requests.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                requests.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_until_its_last_request_is_over() {
        let (arrivals, id) = (Arc::new(Arrivals::default()), UploadId([1; 16]));
        let (one, other) = (arrivals.begin(id), arrivals.begin(id));
        drop(one);
        assert!(arrivals.has(id) && !arrivals.has(UploadId([2; 16])));
        drop(other);
        assert!(!arrivals.has(id) && arrivals.lock().is_empty());
    }
}
