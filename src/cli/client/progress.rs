//! The progress of a transfer, for people.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_millis(200);

/// A line on a terminal that shows the progress of a transfer.
pub struct Progress {
    size: u64,
    done: u64,
    told: Option<Instant>,
}

impl Progress {
    pub fn of(size: u64, done: u64) -> Self {
        Self { size, done, told: io::stderr().is_terminal().then(Instant::now) }
    }

    pub fn took(&mut self, bytes: u64) {
        self.done += bytes;
        let Some(told) = &mut self.told else { return };
        if told.elapsed() < EVERY && self.done < self.size {
            return;
        }
        *told = Instant::now();
        let percent = (u128::from(self.done) * 100).checked_div(self.size.into()).unwrap_or(100);
        let end = if self.done >= self.size { "\n" } else { "" };
        // If the terminal is gone, nobody reads the line.
        let _ = write!(io::stderr(), "\r{percent:>3} % of {} MiB{end}", self.size >> 20);
    }

    /// Clears the line for other output; the next step prints it again.
    pub fn clear(&self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
