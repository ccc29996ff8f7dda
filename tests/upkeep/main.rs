//! Garbage collection, compaction, scrub and quarantine, on the disk's blob store.

mod faulty;
mod gc;
mod racing;
mod scrub;
mod world;
