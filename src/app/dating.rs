//! The time that tokens are dated to, and the second from which a holder's tokens are good.
//!
//! Token times are whole seconds. When all tokens of a holder are revoked, only tokens dated to the
//! next second or later are good. A token that is made before that second begins is dated to it.

use std::sync::atomic::Ordering;

use super::{App, Error, Result};
use crate::{
    meta::accounts::Holder,
    model::{limits::CLOCK_LEEWAY_SECONDS, time::UnixMillis},
};

impl App {
    /// The first Unix second from which on a holder's tokens are good. For a service this is its
    /// own second or that of all services, whichever is later.
    pub(super) async fn first_good_second(&self, holder: Holder<'_>) -> Result<u64> {
        let own = self.meta.tokens_valid_from(holder).await?;
        Ok(match holder {
            Holder::Service(_) => own.max(self.meta.tokens_valid_from(Holder::Services).await?),
            Holder::User(_) | Holder::Services => own,
        })
    }

    /// `now`, or the first good second when the tokens of the holder were just revoked.
    pub(super) async fn issue_time(
        &self,
        holder: Holder<'_>,
        now: UnixMillis,
    ) -> Result<UnixMillis> {
        let first = self.first_good_second(holder).await?;
        Ok(now.max(UnixMillis(first.saturating_mul(1000))))
    }

    /// The first second in which no token of a holder can have been issued yet. This is the next
    /// second. If tokens of the holder were revoked within this second, new tokens are dated to a
    /// later one; then it is the second after that one.
    ///
    /// # Errors
    /// [`Error::Busy`] when that is so far ahead that a token dated to it would be refused.
    pub(super) async fn next_second(&self, holder: Holder<'_>) -> Result<u64> {
        let next = self.seconds_ahead(holder, 1).await?;
        if !matches!(holder, Holder::User(_)) {
            self.last_end.fetch_max(next, Ordering::Relaxed);
        }
        Ok(next)
    }

    /// As [`App::next_second`], for a caller that will ask for `several` in a row; reserves none.
    pub(super) async fn seconds_ahead(&self, holder: Holder<'_>, several: u64) -> Result<u64> {
        let now = self.clock.now().seconds();
        let dated = match holder {
            Holder::Services => self.last_end.load(Ordering::Relaxed),
            holder => self.first_good_second(holder).await?,
        };
        let next = dated.max(now) + 1;
        // A first good second further ahead comes from a clock that was wrong. Its tokens let
        // nobody in anyway, so there is nothing to refuse.
        let latest = now + CLOCK_LEEWAY_SECONDS;
        let last = dated.max(now) + several;
        if last > latest && dated <= latest { Err(Error::Busy) } else { Ok(next) }
    }
}
