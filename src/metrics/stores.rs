//! The metrics of the stores.

use super::{Counter, Family, Gauge, Histogram};

/// The number of steps that became durable in one commit of the index.
pub static COMMIT_STEPS: Histogram = Histogram::sizes();
/// The number of blobs that became durable in one append to a pack.
pub static PACK_BLOBS: Histogram = Histogram::sizes();
/// The time from a write to the end of its sync, by what was written: `index`, `pack`, `file`.
pub static SYNC_SECONDS: Family<&str, Histogram, 3> = Family::seconds();
/// Steps that wait for a commit.
pub static COMMITS_WAITING: Gauge = Gauge::new();
/// Blobs that wait for a pack.
pub static PACKS_WAITING: Gauge = Gauge::new();
/// Contents that were found damaged, by what found them: `read`, `scrub`, `complete`, `compact`.
pub static DAMAGE_FOUND: Family<&str, Counter, 4> = Family::counters();
/// Lines that the audit log lost.
pub static AUDIT_LINES_LOST: Counter = Counter::new();
