//! Garbage collection, compaction, scrub, quarantine and parts, on the disk's blob store.

mod faulty;
mod gc;
mod parts;
mod racing;
mod scrub;
mod world;
