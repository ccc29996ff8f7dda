//! How long to wait for a client. Waiting uses patience up and bytes earn it back, so that a client
//! can hold nothing for ever, neither by silence nor by a byte now and then.

use std::time::Duration;

/// The patience with one request body, with the answer of one stream, or with all answers of one
/// connection.
#[derive(Clone)]
pub struct Patience {
    /// The most patience there can be: how long a client may be silent.
    whole: Duration,
    /// A client as fast as this never uses patience up; 0 allows any speed.
    bytes_per_second_min: u64,
    left: Duration,
}

impl Patience {
    pub fn new(whole: Duration, bytes_per_second_min: u64) -> Self {
        Self { whole, bytes_per_second_min, left: whole }
    }

    /// The longest wait from now on.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Takes account of a wait for the client's next bytes, and of how many came.
    pub fn waited(&mut self, time: Duration, bytes: u64) {
        let earned = match u128::from(bytes) * 1_000_000_000 {
            _ if self.bytes_per_second_min == 0 => self.whole,
            bytes => {
                let nanos = bytes / u128::from(self.bytes_per_second_min);
                u64::try_from(nanos).map_or(self.whole, Duration::from_nanos)
            }
        };
        self.left = self.left.saturating_sub(time).saturating_add(earned).min(self.whole);
    }

    /// The limit that a request body has met when no patience is left.
    pub fn body_limit(&self) -> &'static str {
        if self.was_tried() { "body_rate" } else { "body_idle" }
    }

    /// The limit that an answer has met when no patience is left.
    pub fn answer_limit(&self) -> &'static str {
        if self.was_tried() { "answer_rate" } else { "answer_not_taken" }
    }

    /// Whether slowness used up more than half of the patience, and silence only the rest.
    fn was_tried(&self) -> bool {
        self.left < self.whole / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_now_and_then_is_not_enough() {
        let mut patience = Patience::new(30 * SECOND, 1 << 10);
        assert_eq!(
            (patience.body_limit(), patience.answer_limit()),
            ("body_idle", "answer_not_taken")
        );
        for _ in 0..29 {
            patience.waited(SECOND, 1);
        }
        assert!(patience.left() > SECOND && patience.body_limit() == "body_rate");
        patience.waited(2 * SECOND, 1);
        assert!(patience.left() < SECOND);
    }

    #[test]
    fn who_is_fast_enough_goes_on_for_ever_and_saves_nothing_up() {
        let mut patience = Patience::new(30 * SECOND, 1 << 10);
        for _ in 0..1000 {
            patience.waited(20 * SECOND, 20 << 10);
        }
        assert_eq!(patience.left(), 30 * SECOND);
        patience.waited(SECOND, u64::MAX);
        assert_eq!(patience.left(), 30 * SECOND);
        patience.waited(60 * SECOND, 0);
        assert_eq!(patience.left(), Duration::ZERO);
    }

    #[test]
    fn without_a_least_speed_any_byte_will_do() {
        let mut patience = Patience::new(30 * SECOND, 0);
        for _ in 0..1000 {
            patience.waited(29 * SECOND, 1);
            assert_eq!(patience.left(), 30 * SECOND);
        }
    }
}
