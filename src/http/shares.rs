//! Nobody takes all requests in work for itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::principal::Principal;

/// Principals remembered; past it, those without a request in work are forgotten.
const PRINCIPALS_MAX: usize = 8_192;

/// Requests in work by principal.
pub struct Shares {
    max: usize,
    shares: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    pub fn new(max: usize) -> Self {
        Self { max, shares: Mutex::default() }
    }

    /// One request more for a principal, as long as the permit lives; `None` past its share.
    pub fn take(&self, principal: &Principal) -> Option<OwnedSemaphorePermit> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= PRINCIPALS_MAX {
            shares.retain(|_, share| share.available_permits() < self.max);
        }
        let share = shares.entry(principal.to_string());
        let share = share.or_insert_with(|| Arc::new(Semaphore::new(self.max)));
        Arc::clone(share).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{name::UserId, principal::Role};

    fn user(id: &str) -> Principal {
        Principal::User { id: UserId::parse(id).unwrap(), role: Role::Viewer }
    }

    #[test]
    fn each_has_its_share_and_memory_is_bounded() {
        let shares = Shares::new(2);
        let held = [shares.take(&user("a")).unwrap(), shares.take(&user("a")).unwrap()];
        assert!(shares.take(&user("a")).is_none());
        for n in 0..3 * PRINCIPALS_MAX {
            assert!(shares.take(&user(&format!("u{n}"))).is_some());
        }
        assert!(shares.shares.lock().unwrap().len() <= PRINCIPALS_MAX);
        assert!(shares.take(&user("a")).is_none(), "who has requests in work is not forgotten");
        drop(held);
        assert!(shares.take(&user("a")).is_some());
    }
}
