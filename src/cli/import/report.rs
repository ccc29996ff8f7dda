//! The report of an import: a line for each file that was left out, and the sums.

use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::json;

use super::tree::{Found, Tree};
use crate::cli::{Failures, ask::members, client::progress::Progress, failure, print};

pub struct Report {
    json: bool,
    state: Mutex<State>,
}

struct State {
    sums: Sums,
    progress: Progress,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Sums {
    taken_over: u64,
    taken_over_bytes: u64,
    listed_already: u64,
    left_out: u64,
    /// Of all files above; their metadata was taken from their paths and times.
    without_side_file: u64,
    /// Files whose side file said more than a file's own `meta` may hold.
    without_meta: u64,
}

impl Report {
    /// Adds up the size of the tree beforehand if somebody watches the progress.
    pub fn begin(tree: &Tree, json: bool) -> Self {
        let mut bytes = 0;
        if io::stderr().is_terminal() {
            tree.walk(|found| {
                if let Found::File(file) = found {
                    bytes += file.size;
                }
                ControlFlow::Continue(())
            });
        }
        let state = State { sums: Sums::default(), progress: Progress::of(bytes, 0) };
        Self { json, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn taken(&self, size: u64) {
        let mut state = self.state();
        state.sums.taken_over += 1;
        state.sums.taken_over_bytes += size;
        state.progress.took(size);
    }

    pub fn known(&self, size: u64) {
        let mut state = self.state();
        state.sums.listed_already += 1;
        state.progress.took(size);
    }

    pub fn without_side_file(&self) {
        self.state().sums.without_side_file += 1;
    }

    pub fn without_meta(&self) {
        self.state().sums.without_meta += 1;
    }

    pub fn skipped(&self, path: &str, size: u64, why: &str) {
        let mut state = self.state();
        state.sums.left_out += 1;
        let line = if self.json {
            json!({"left_out": path, "why": why}).to_string()
        } else {
            // A name may hold control sequences, which a terminal would obey.
            format!("left out {}: {why}", path.escape_debug())
        };
        state.progress.clear();
        // If nobody reads the report, there is still the exit status.
        let _ = writeln!(io::stdout(), "{line}");
        state.progress.took(size);
    }

    /// Prints the sums; it is a failure if anything was left out.
    pub fn end(&self) -> Result<(), Failures> {
        let sums = self.state().sums;
        let document = json!(sums);
        let text = if self.json { format!("{document}\n") } else { members(&document) };
        print(text)?;
        match sums.left_out {
            0 => Ok(()),
            left_out => Err(failure(format!("import: {left_out} entries left out, see above"))),
        }
    }
}
