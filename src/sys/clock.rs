//! The only source of wall time, and how far it can be trusted.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use crate::model::time::UnixMillis;

/// Wall time. It is injected everywhere, so that tests move it instead of sleeping.
pub trait Clock: Send + Sync {
    fn now(&self) -> UnixMillis;

    /// Time that passes independently of whoever sets the clock, also while the machine sleeps. Its
    /// origin means nothing. A clock that nobody sets can use its wall time.
    fn passed(&self) -> Duration {
        Duration::from_millis(self.now().0)
    }
}

/// The machine's clock. Times before 1970 are read as 1970.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn passed(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
    }
}

/// How far a clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Good,
    /// The clock has leapt ahead since the last look; each leap is reported once.
    Leapt,
    /// The clock leapt less than `LEAP` ago and has not been corrected since.
    Waits,
}

/// A clock that advances by more than this between two looks, beyond the time that passed, has
/// leapt. It is believed only once nobody has corrected it for as long again.
const LEAP: Duration = Duration::from_hours(24);

/// Watches a clock for leaps. By a clock that is far ahead, things seem to have expired that have
/// not, and what is deleted for good does not come back when the clock is corrected.
#[derive(Default)]
pub struct Watch(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// How far wall time was ahead of passed time, in ms, when the clock was last trusted.
    believed: Option<i128>,
    /// When the clock leapt, in passed time.
    leapt: Option<Duration>,
}

impl Watch {
    pub fn look(&self, clock: &dyn Clock) -> Trust {
        let passed = clock.passed();
        let millis = |span: Duration| i128::try_from(span.as_millis()).unwrap_or(i128::MAX);
        let ahead = i128::from(clock.now().0) - millis(passed);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trust = match (seen.believed, seen.leapt) {
            (Some(believed), leapt) if ahead - believed > millis(LEAP) => match leapt {
                None => Trust::Leapt,
                Some(leapt) if passed.saturating_sub(leapt) < LEAP => Trust::Waits,
                // Nobody has corrected the clock: it is right now, and was behind before.
                Some(_) => Trust::Good,
            },
            _ => Trust::Good,
        };
        match trust {
            Trust::Good => *seen = Seen { believed: Some(ahead), leapt: None },
            Trust::Leapt => seen.leapt = Some(passed),
            Trust::Waits => {}
        }
        trust
    }
}

/// A clock that stands still until it is set: either time has passed then, or it has leapt.
pub struct ManualClock {
    now: AtomicU64,
    leapt: AtomicU64,
}

impl ManualClock {
    pub fn new(now: UnixMillis) -> Self {
        Self { now: AtomicU64::new(now.0), leapt: AtomicU64::new(0) }
    }

    pub fn set(&self, now: UnixMillis) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Sets the clock ahead, or back to where it was, without time passing.
    pub fn leap(&self, now: UnixMillis) {
        let before = self.now.swap(now.0, Ordering::SeqCst);
        self.leapt.fetch_add(now.0.wrapping_sub(before), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now.load(Ordering::SeqCst))
    }

    fn passed(&self) -> Duration {
        let leapt = self.leapt.load(Ordering::SeqCst);
        Duration::from_millis(self.now().0.wrapping_sub(leapt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_told_once_and_waited_on_for_a_day() {
        let at = |hours: u64| UnixMillis(1_700_000_000_000).after(Duration::from_hours(hours));
        let (clock, watch) = (ManualClock::new(at(0)), Watch::default());
        let look = |clock: &ManualClock| watch.look(clock);
        assert_eq!(look(&clock), Trust::Good);
        clock.set(at(1000));
        assert_eq!(look(&clock), Trust::Good, "time passed");
        clock.leap(at(1023));
        assert_eq!(look(&clock), Trust::Good, "a day of another zone is none");
        clock.leap(at(9000));
        assert_eq!([look(&clock), look(&clock)], [Trust::Leapt, Trust::Waits]);
        clock.leap(at(1023));
        assert_eq!(look(&clock), Trust::Good, "it was put right");
        clock.leap(at(9000));
        assert_eq!(look(&clock), Trust::Leapt);
        clock.set(at(9023));
        assert_eq!(look(&clock), Trust::Waits);
        clock.set(at(9024));
        assert_eq!([look(&clock), look(&clock)], [Trust::Good, Trust::Good], "it stays so");
        clock.leap(at(5));
        assert_eq!(look(&clock), Trust::Good, "back is no leap ahead");
    }

    #[test]
    fn time_passes_by_the_machine() {
        let passed = SystemClock.passed();
        assert!(passed > Duration::ZERO && SystemClock.passed() >= passed);
    }
}
