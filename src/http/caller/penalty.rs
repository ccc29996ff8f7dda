//! A client that keeps sending invalid credentials or links waits for the answers. A valid one from
//! the same address never waits, so others behind the same proxy notice nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, time::sleep};

/// Failures of an address that cost nothing: a script may have a wrong token.
const FREE_FAILURES: u32 = 20;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Failures are forgotten after this time without another.
const MEMORY: Duration = Duration::from_mins(1);
/// Most addresses that are remembered.
const ADDRESSES_MAX: usize = 8_192;
/// Most answers that are held back at a time; further ones are sent at once.
const WAITING_MAX: usize = 256;

/// Failures by address; for IPv6, by the 64-bit prefix that one client has.
pub struct Penalties {
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    waiting: Semaphore,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { failures: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) }
    }
}

impl Penalties {
    /// Counts a failure, and waits for as long as it costs.
    pub async fn pay(&self, from: IpAddr) {
        let wait = self.count(from, Instant::now());
        if wait.is_zero() {
            return;
        }
        if let Ok(_permit) = self.waiting.try_acquire() {
            sleep(wait).await;
        }
    }

    fn count(&self, from: IpAddr, now: Instant) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |last: Instant| now.saturating_duration_since(last) < MEMORY;
        if failures.len() >= ADDRESSES_MAX {
            failures.retain(|_, (_, last)| is_recent(*last));
        }
        if failures.len() >= ADDRESSES_MAX {
            failures.clear();
        }
        let (count, last) = failures.entry(network(from)).or_insert((0, now));
        *count = if is_recent(*last) { count.saturating_add(1) } else { 1 };
        *last = now;
        let Some(paid) = count.checked_sub(FREE_FAILURES + 1) else { return Duration::ZERO };
        FIRST_WAIT.saturating_mul(1 << paid.min(10)).min(LONGEST_WAIT)
    }
}

/// What one client has: an IPv4 address, or an IPv6 prefix of 64 bits.
pub fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_forgotten() {
        let penalties = Penalties::default();
        let now = Instant::now();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..FREE_FAILURES {
            assert_eq!(penalties.count(one, now), Duration::ZERO);
        }
        assert_eq!(penalties.count(neighbour, now), FIRST_WAIT);
        assert_eq!(penalties.count(one, now), FIRST_WAIT * 2);
        assert_eq!(penalties.count(other, now), Duration::ZERO);
        for _ in 0..100 {
            penalties.count(one, now);
        }
        assert_eq!(penalties.count(one, now), LONGEST_WAIT);
        assert_eq!(penalties.count(one, now + MEMORY), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let penalties = Penalties::default();
        for n in 0..100_000_u32 {
            penalties.count(std::net::Ipv4Addr::from(n).into(), Instant::now());
        }
        assert!(penalties.failures.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
