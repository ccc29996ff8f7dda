//! What the stores count.

use super::{Counter, Family, Gauge, Histogram};

/// Steps that became durable as one commit of the index.
pub static COMMIT_STEPS: Histogram = Histogram::sizes();
/// Blobs that became durable as one append to a pack.
pub static PACK_BLOBS: Histogram = Histogram::sizes();
/// From a write to the end of its sync, by what was written: `index`, `pack`, `file`.
pub static SYNC_SECONDS: Family<&str, Histogram, 3> = Family::seconds();
/// Steps that wait for a commit.
pub static COMMITS_WAITING: Gauge = Gauge::new();
/// Blobs that wait for a pack.
pub static PACKS_WAITING: Gauge = Gauge::new();
/// Contents found to be not what was stored, by who found it: `read`, `scrub`, `complete`,
/// `compact`.
pub static DAMAGE_FOUND: Family<&str, Counter, 4> = Family::counters();
/// Lines that the audit log lost.
pub static AUDIT_LINES_LOST: Counter = Counter::new();
