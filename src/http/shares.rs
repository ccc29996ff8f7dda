//! Nobody takes all requests for itself: neither those in work at a time, nor those of a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::principal::Principal;

/// Principals remembered; past it, those without a request in work or owed time are forgotten.
const PRINCIPALS_MAX: usize = 8_192;
/// Requests may come as unevenly as their number in this time allows.
const BURST: Duration = Duration::from_secs(1);

/// Requests by principal.
pub struct Shares {
    in_work_max: usize,
    /// Time between two requests at the highest rate, where there is one.
    interval: Option<Duration>,
    by_principal: Mutex<HashMap<String, Share>>,
}

struct Share {
    in_work: Arc<Semaphore>,
    /// When the requests so far would have come at the highest rate (GCRA, ITU-T I.371).
    due: Instant,
}

impl Shares {
    /// At most this many requests in work, and this many a second.
    pub fn new(in_work_max: usize, per_second_max: Option<u32>) -> Self {
        let interval = per_second_max.map(|max| BURST / max.max(1));
        Self { in_work_max, interval, by_principal: Mutex::default() }
    }

    /// One request more for a principal, as long as the permit lives; `None` past its share.
    pub fn take(&self, principal: &Principal, now: Instant) -> Option<OwnedSemaphorePermit> {
        let mut shares = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= PRINCIPALS_MAX {
            shares.retain(|_, share| {
                share.due > now || share.in_work.available_permits() < self.in_work_max
            });
        }
        let share = shares.entry(principal.to_string()).or_insert_with(|| Share {
            in_work: Arc::new(Semaphore::new(self.in_work_max)),
            due: now,
        });
        if let Some(interval) = self.interval {
            let due = share.due.max(now) + interval;
            if due > now + BURST {
                return None;
            }
            share.due = due;
        }
        Arc::clone(&share.in_work).try_acquire_owned().ok()
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
        let (shares, now) = (Shares::new(2, None), Instant::now());
        let take = |id: &str| shares.take(&user(id), now);
        let held = [take("a").unwrap(), take("a").unwrap()];
        assert!(take("a").is_none());
        for n in 0..3 * PRINCIPALS_MAX {
            assert!(take(&format!("u{n}")).is_some());
        }
        assert!(shares.by_principal.lock().unwrap().len() <= PRINCIPALS_MAX);
        assert!(take("a").is_none(), "who has requests in work is not forgotten");
        drop(held);
        assert!(take("a").is_some());
    }

    #[test]
    fn a_second_has_so_many_requests_and_no_more() {
        let (shares, now) = (Shares::new(9, Some(4)), Instant::now());
        let taken = |id: &str, at: u64| {
            let at = now + Duration::from_millis(at);
            (0..10).filter(|_| shares.take(&user(id), at).is_some()).count()
        };
        assert_eq!((taken("a", 0), taken("b", 0)), (4, 4));
        assert_eq!([taken("a", 249), taken("a", 250), taken("a", 251)], [0, 1, 0]);
        assert_eq!(taken("a", 10_000), 4);
    }
}
