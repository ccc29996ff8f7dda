//! The tasks that run by themselves, and when: sweep, garbage collection, compaction.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::MutexGuard;

use super::{App, Result, gc::Collected};
use crate::{
    model::time::UnixMillis,
    sys::clock::{Trust, Watch},
};

/// Litter is looked for at start and then this often.
const LITTER_EVERY: Duration = Duration::from_hours(1);
/// All packs are looked at this often, whatever was discarded. Not at start, which belongs to
/// clients.
const COMPACT_EVERY: Duration = Duration::from_hours(24);
/// After this many discarded bytes, packs are looked at earlier.
const COMPACT_DISCARDED_BYTES: u64 = 256 << 20;

/// When each task was last done, by a clock that may step.
#[derive(Default)]
pub struct Schedule {
    last: Mutex<Last>,
    watch: Watch,
    alone: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Last {
    litter: Option<UnixMillis>,
    compaction: Option<UnixMillis>,
    /// The store's count of discarded bytes at that compaction.
    discarded: u64,
}

/// Whether `every` has passed since `last`, or the clock stepped back.
fn is_due(last: UnixMillis, now: UnixMillis, every: Duration) -> bool {
    now < last || now >= last.after(every)
}

impl Schedule {
    /// Only one collection runs at a time.
    pub(super) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    fn litter_is_due(&self, now: UnixMillis) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.litter.is_none_or(|last| is_due(last, now, LITTER_EVERY));
        if due {
            last.litter = Some(now);
        }
        due
    }

    fn compaction_is_due(&self, now: UnixMillis, discarded: u64) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let by_time = is_due(*last.compaction.get_or_insert(now), now, COMPACT_EVERY);
        let due = by_time || discarded.saturating_sub(last.discarded) >= COMPACT_DISCARDED_BYTES;
        if due {
            last.compaction = Some(now);
            last.discarded = discarded;
        }
        due
    }
}

impl App {
    /// Whether what has expired by the clock may be removed for good.
    pub(super) fn trusts_clock(&self) -> bool {
        let trust = self.upkeep.watch.look(&*self.clock);
        if trust == Trust::Leapt {
            let now = self.clock.now();
            tracing::warn!(
                %now,
                "the clock leapt ahead by more than a day: for 24 hours, nothing that has expired \
                 by it is removed for good"
            );
        }
        trust == Trust::Good
    }

    /// Does what is due. One caller must call this every minute or so. A task that fails is tried
    /// again the next time it is due.
    pub async fn upkeep(self: &Arc<Self>) {
        // First, because collecting may take hours.
        if let Err(error) = self.tend_keys().await {
            tracing::warn!(%error, "the upkeep of the signing keys failed");
        }
        if let Err(error) = self.record_uses().await {
            tracing::warn!(%error, "the last uses of tokens were not recorded");
        }
        let mut collected = Collected::default();
        let outcome = self.collect_due(&mut collected).await;
        if collected != Collected::default() {
            let Collected { sessions, tokens, blobs, files, packs, .. } = collected;
            let Collected { moved_bytes, freed_bytes, .. } = collected;
            tracing::info!(
                sessions,
                tokens,
                blobs,
                files,
                packs,
                moved_bytes,
                freed_bytes,
                "collected"
            );
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "upkeep failed; the next round tries again");
        }
    }

    async fn collect_due(self: &Arc<Self>, collected: &mut Collected) -> Result<()> {
        let now = self.clock.now();
        // On a full disk one task may find no room, and another may make some.
        let swept = self.sweep(collected).await;
        // A backup may hold removals back for hours, and other tasks must go on meanwhile. Whatever
        // is due stays due.
        if self.removals.try_begin().is_none() {
            return swept;
        }
        let (mut cleared, mut compacted) = (Ok(()), Ok(()));
        if self.upkeep.litter_is_due(now) {
            cleared = self.collect_litter(collected).await;
        }
        if self.upkeep.compaction_is_due(now, self.blobs.discarded_bytes()) {
            compacted = self.compact(collected).await;
        }
        swept.and(cleared).and(compacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_due_when_their_time_has_passed_or_the_clock_stepped_back() {
        let schedule = Schedule::default();
        let at = |hours: u64| UnixMillis(1_700_000_000_000).after(Duration::from_hours(hours));
        assert!(schedule.litter_is_due(at(0)), "at start");
        assert!(!schedule.litter_is_due(at(0)));
        assert!(schedule.litter_is_due(at(1)));
        assert!(schedule.litter_is_due(at(0)), "a clock that stepped back delays nothing");
        assert!(!schedule.compaction_is_due(at(0), 0), "not at start");
        assert!(!schedule.compaction_is_due(at(23), COMPACT_DISCARDED_BYTES - 1));
        assert!(schedule.compaction_is_due(at(23), COMPACT_DISCARDED_BYTES));
        assert!(!schedule.compaction_is_due(at(24), COMPACT_DISCARDED_BYTES));
        assert!(schedule.compaction_is_due(at(47), COMPACT_DISCARDED_BYTES));
    }
}
