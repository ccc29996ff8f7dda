//! Counts the holders of each key. A key without holders takes no memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The number of holders by key.
pub struct Counts<K>(Mutex<HashMap<K, usize>>);

/// A holder of a key, counted as long as it lives.
pub struct Held<K: Copy + Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// Adds a holder of `key`; `None` if there are `max` already.
    pub fn enter(self: &Arc<Self>, key: K, max: usize) -> Option<Held<K>> {
        let mut counts = self.lock();
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= max {
            return None;
        }
        counts.insert(key, count + 1);
        Some(Held { counts: Arc::clone(self), key })
    }

    /// Whether anybody holds `key`.
    pub fn has(&self, key: K) -> bool {
        self.lock().contains_key(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_by_itself_and_is_forgotten_with_the_last() {
        let counts = Arc::new(Counts::default());
        let (one, other) = (counts.enter("a", 2).unwrap(), counts.enter("a", 2).unwrap());
        assert!(counts.enter("a", 2).is_none());
        assert!(counts.has("a") && !counts.has("b"));
        drop(one);
        assert!(counts.has("a") && counts.enter("b", 1).is_some());
        assert_eq!(counts.lock().len(), 1);
        drop(other);
        assert!(counts.lock().is_empty());
    }

    #[test]
    fn who_is_turned_away_leaves_nothing_behind() {
        let counts = Arc::new(Counts::default());
        assert!(counts.enter("a", 0).is_none());
        assert!(!counts.has("a") && counts.lock().is_empty());
    }
}
