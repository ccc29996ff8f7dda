//! Counts how many are inside at a time. The limit is given at each entry, so it may change.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[derive(Default)]
pub struct Gate(AtomicUsize);

/// Counts as one inside for as long as it lives.
pub struct Pass(Arc<Gate>);

impl Gate {
    /// `None` when `max` are inside.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Pass> {
        let one_more = |inside| (inside < max).then_some(inside + 1);
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.ok().map(|_| Pass(Arc::clone(self)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_inside_than_may_be() {
        let gate = Arc::new(Gate::default());
        let mut inside = vec![gate.enter(2).unwrap(), gate.enter(2).unwrap()];
        assert!(gate.enter(2).is_none());
        inside.push(gate.enter(3).unwrap());
        inside.truncate(1);
        assert!(gate.enter(1).is_none());
        inside.clear();
        assert!(gate.is_empty() && gate.enter(1).is_some());
    }
}
