//! The time that tokens are dated to, and the second from which on those of a holder are good.
//!
//! Tokens count whole seconds. When all that a holder has are ended, it is the next second whose
//! tokens are good; one that is made within the second that still goes on is dated to that one.

use std::sync::atomic::Ordering;

use super::{App, Error, Result};
use crate::{
    meta::accounts::Holder,
    model::{limits::CLOCK_LEEWAY_SECONDS, time::UnixMillis},
};

impl App {
    /// The first Unix second of which tokens of a holder are good: of a service its own, or that
    /// of all services.
    pub(super) async fn first_good_second(&self, holder: Holder<'_>) -> Result<u64> {
        let own = self.meta.tokens_valid_from(holder).await?;
        Ok(match holder {
            Holder::Service(_) => own.max(self.meta.tokens_valid_from(Holder::Services).await?),
            Holder::User(_) | Holder::Services => own,
        })
    }

    /// `now`, or the first time that counts when the tokens of the holder were just ended.
    pub(super) async fn issue_time(
        &self,
        holder: Holder<'_>,
        now: UnixMillis,
    ) -> Result<UnixMillis> {
        let first = self.first_good_second(holder).await?;
        Ok(now.max(UnixMillis(first.saturating_mul(1000))))
    }

    /// The first second in which no token of a holder can have been issued yet: the next one, or
    /// behind the one that tokens are dated to since they were ended within this second.
    ///
    /// # Errors
    /// [`Error::Busy`] when that is so far ahead that no token dated to it would be let in.
    pub(super) async fn next_second(&self, holder: Holder<'_>) -> Result<u64> {
        let next = self.seconds_ahead(holder, 1).await?;
        if !matches!(holder, Holder::User(_)) {
            self.last_end.fetch_max(next, Ordering::Relaxed);
        }
        Ok(next)
    }

    /// As [`App::next_second`], for who will ask for several one behind the other; takes none.
    pub(super) async fn seconds_ahead(&self, holder: Holder<'_>, several: u64) -> Result<u64> {
        let now = self.clock.now().seconds();
        let dated = match holder {
            Holder::Services => self.last_end.load(Ordering::Relaxed),
            holder => self.first_good_second(holder).await?,
        };
        let next = dated.max(now) + 1;
        // What was dated by a clock that was further ahead lets nobody in as it is.
        let latest = now + CLOCK_LEEWAY_SECONDS;
        let last = dated.max(now) + several;
        if last > latest && dated <= latest { Err(Error::Busy) } else { Ok(next) }
    }
}
