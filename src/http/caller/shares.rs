//! The share of one principal: how many requests it may have in work at a time, and how many it may
//! send in a second. So no principal takes all there are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    http::{
        connection::gate::{Gate, Pass},
        telemetry::metrics,
    },
    model::principal::Principal,
};

/// Most principals that are remembered. Past it, a principal is forgotten if it has no request in
/// work and its `due` is past.
const PRINCIPALS_MAX: usize = 8_192;
/// How unevenly requests may come: as many at once as are allowed in this time.
const BURST: Duration = Duration::from_secs(1);

/// Requests by principal.
#[derive(Default)]
pub struct Shares(Mutex<HashMap<String, Share>>);

struct Share {
    in_work: Arc<Gate>,
    /// When the next request would come if all came at the highest rate (GCRA, ITU-T I.371).
    due: Instant,
}

impl Shares {
    /// Counts one more request of a principal, in work for as long as the pass lives. `None` past
    /// the principal's share of requests in work or of requests in a second.
    pub fn take(
        &self,
        principal: &Principal,
        now: Instant,
        in_work_max: usize,
        per_second_max: Option<u32>,
    ) -> Option<Pass> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= PRINCIPALS_MAX {
            shares.retain(|_, share| share.due > now || !share.in_work.is_empty());
        }
        let share = shares
            .entry(principal.to_string())
            .or_insert_with(|| Share { in_work: Arc::default(), due: now });
        if let Some(max) = per_second_max {
            // The second term is the time between two requests at the highest rate.
            let due = share.due.max(now) + BURST / max.max(1);
            if due > now + BURST {
                metrics::LIMITS.of("requests_per_second").add(1);
                return None;
            }
            share.due = due;
        }
        let pass = share.in_work.enter(in_work_max);
        if pass.is_none() {
            metrics::LIMITS.of("requests_per_principal").add(1);
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        name::UserId,
        principal::{Role, TokenStamp},
    };

    fn user(id: &str) -> Principal {
        Principal::User {
            id: UserId::parse(id).unwrap(),
            role: Role::Viewer,
            token: TokenStamp::default(),
        }
    }

    #[test]
    fn each_has_its_share_and_memory_is_bounded() {
        let (shares, now) = (Shares::default(), Instant::now());
        let take = |id: &str| shares.take(&user(id), now, 2, None);
        let held = [take("a").unwrap(), take("a").unwrap()];
        assert!(take("a").is_none());
        for n in 0..3 * PRINCIPALS_MAX {
            assert!(take(&format!("u{n}")).is_some());
        }
        assert!(shares.0.lock().unwrap().len() <= PRINCIPALS_MAX);
        assert!(take("a").is_none(), "who has requests in work is not forgotten");
        drop(held);
        assert!(take("a").is_some());
    }

    #[test]
    fn a_second_has_so_many_requests_and_no_more() {
        let (shares, now) = (Shares::default(), Instant::now());
        let taken = |id: &str, at: u64| {
            let at = now + Duration::from_millis(at);
            (0..10).filter(|_| shares.take(&user(id), at, 9, Some(4)).is_some()).count()
        };
        assert_eq!((taken("a", 0), taken("b", 0)), (4, 4));
        assert_eq!([taken("a", 249), taken("a", 250), taken("a", 251)], [0, 1, 0]);
        assert_eq!(taken("a", 10_000), 4);
    }
}
