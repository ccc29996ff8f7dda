//! Whether a connection still sends an answer, found out by a check now and then. hyper takes the
//! last bytes of an answer long before the client does: the request has then ended, but its answer
//! has not.

use std::time::{Duration, Instant};

/// A connection that sends fewer bytes in a second sends no answer, only acknowledgements of pings
/// and settings.
const BYTES_PER_SECOND_MIN: u64 = 64;
/// Least time over which that rate is measured. Over less, a single acknowledgement would look like
/// an answer.
const LOOK_MIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct Sending {
    looked: Instant,
    sent: u64,
    /// When bytes of an answer were last sent.
    last: Instant,
}

impl Sending {
    pub fn new(began: Instant) -> Self {
        Self { looked: began, sent: 0, last: began }
    }

    /// When bytes of an answer were last sent. `sent` counts all bytes so far, the last of which
    /// were sent at `at`.
    pub fn look(&mut self, now: Instant, sent: u64, at: Instant) -> Instant {
        let elapsed = now.saturating_duration_since(self.looked);
        let least = BYTES_PER_SECOND_MIN.saturating_mul(elapsed.as_secs().saturating_add(1));
        let goes_on = sent.saturating_sub(self.sent) >= least;
        if goes_on {
            self.last = at;
        }
        if goes_on || elapsed >= LOOK_MIN {
            (self.looked, self.sent) = (now, sent);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_sent_as_long_as_it_is_taken() {
        let began = Instant::now();
        for (pace, bytes) in [(SECOND / 40, 100), (SECOND / 40, 4), (15 * SECOND, 1100)] {
            let mut sending = Sending::new(began);
            let (mut now, mut sent) = (began, 0);
            for _ in 0..1000 {
                now += pace;
                sent += bytes;
                let last = sending.look(now, sent, now);
                assert!(now - last < 2 * SECOND, "{bytes} bytes each {pace:?}");
            }
            let last = sending.look(now + 60 * SECOND, sent, now);
            assert!(now - last < 2 * SECOND);
        }
    }

    #[test]
    fn acknowledgements_are_no_answer() {
        let began = Instant::now();
        for look in [SECOND / 40, 15 * SECOND] {
            let mut sending = Sending::new(began);
            let (mut now, mut sent, mut at) = (began, 0, began);
            while now < began + 600 * SECOND {
                now += look;
                // The acknowledgement of one ping every ten seconds.
                if now - at >= 10 * SECOND {
                    (sent, at) = (sent + 17, now);
                }
                assert_eq!(sending.look(now, sent, at), began);
            }
        }
    }
}
