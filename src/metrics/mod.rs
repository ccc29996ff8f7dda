//! Metrics of the running program, in which any layer may count: no lock, no allocation, and no
//! label that a client can choose. [`text`] prints them for Prometheus.
//!
//! There is one daemon in a process, so metrics are statics, beside the code that counts or in
//! [`stores`]. Code that counts does not need to know which code prints.

pub mod stores;
pub mod text;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The present number of something.
#[derive(Default)]
pub struct Gauge(AtomicI64);

/// Raises a [`Gauge`] by one for as long as it lives.
pub struct Counted(&'static Gauge);

impl Gauge {
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    /// Sets the gauge to a number, which it keeps until the next call.
    pub fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn count(&'static self) -> Counted {
        self.add(1);
        Counted(self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// The most bounds of a histogram; one more bucket holds everything past the last bound.
const BOUNDS_MAX: usize = 15;

/// How many observed values are above one bound and not above the next. Values are whole units,
/// which `scale` converts to the unit that is shown.
pub struct Histogram {
    bounds: &'static [u64],
    scale: f64,
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

impl Histogram {
    const fn new(bounds: &'static [u64], scale: f64) -> Self {
        assert!(bounds.len() <= BOUNDS_MAX);
        let counts = [const { AtomicU64::new(0) }; BOUNDS_MAX + 1];
        Self { bounds, scale, counts, sum: AtomicU64::new(0) }
    }

    /// A histogram of durations, from a tenth of a millisecond to a minute.
    pub const fn seconds() -> Self {
        const MICROS: &[u64] = &[
            100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
            1_000_000, 5_000_000, 15_000_000, 60_000_000,
        ];
        Self::new(MICROS, 1e6)
    }

    /// A histogram of how many things are handled together.
    pub const fn sizes() -> Self {
        Self::new(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512], 1.0)
    }

    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Runs `step` and observes how long it takes.
    pub fn time<T>(&self, step: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let outcome = step();
        self.took(began.elapsed());
        outcome
    }
}

/// A metric for each of at most `N` names. The program knows all names, so their number is bounded
/// whatever clients do. More than `N` names are a bug; the further ones share a place.
pub struct Family<K, T, const N: usize>([Place<K, T>; N]);

struct Place<K, T> {
    name: OnceLock<K>,
    number: T,
}

impl<K: Copy + Eq + Hash, const N: usize> Family<K, Counter, N> {
    pub const fn counters() -> Self {
        Self([const { Place { name: OnceLock::new(), number: Counter::new() } }; N])
    }
}

impl<K: Copy + Eq + Hash, const N: usize> Family<K, Histogram, N> {
    pub const fn seconds() -> Self {
        Self([const { Place { name: OnceLock::new(), number: Histogram::seconds() } }; N])
    }
}

impl<K: Copy + Eq + Hash, T, const N: usize> Family<K, T, N> {
    /// The metric of a name. A name takes the first free place from the one that its hash selects,
    /// and keeps it.
    pub fn of(&self, name: K) -> &T {
        let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(name);
        let first = usize::try_from(hash % N as u64).unwrap_or(0);
        let (before, behind) = self.0.split_at(first);
        let is_mine = |place: &&Place<K, T>| *place.name.get_or_init(|| name) == name;
        let place = behind.iter().chain(before).find(is_mine);
        &place.unwrap_or(&self.0[first]).number
    }

    /// The names that were used so far, with their metrics.
    pub fn all(&self) -> impl Iterator<Item = (K, &T)> {
        self.0.iter().filter_map(|place| Some((*place.name.get()?, &place.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_gives_each_name_its_own_number_and_no_more_than_it_has_room_for() {
        static FAMILY: Family<&str, Counter, 3> = Family::counters();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in ["a", "b", "a"] {
                        FAMILY.of(name).add(1);
                    }
                });
            }
        });
        let counted = |name: &str| FAMILY.all().find(|(n, _)| *n == name).unwrap().1.get();
        assert_eq!((counted("a"), counted("b")), (8, 4));
        FAMILY.of("c").add(1);
        FAMILY.of("d").add(1);
        let all: Vec<_> = FAMILY.all().map(|(name, counter)| (name, counter.get())).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 14);
    }

    #[test]
    fn a_value_on_a_bound_is_within_it() {
        let sizes = Histogram::sizes();
        for value in [0, 1, 2, 3, 512, 513] {
            sizes.observe(value);
        }
        let counts: Vec<u64> = sizes.counts.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        assert_eq!(counts[..4], [2, 1, 1, 0]);
        assert_eq!((counts[9], counts[10]), (1, 1));
        assert_eq!(sizes.sum.load(Ordering::Relaxed), 1031);
    }

    #[test]
    fn what_is_counted_ends_with_its_holder() {
        static GAUGE: Gauge = Gauge::new();
        let held = [GAUGE.count(), GAUGE.count()];
        assert_eq!(GAUGE.get(), 2);
        drop(held);
        assert_eq!(GAUGE.get(), 0);
    }
}
