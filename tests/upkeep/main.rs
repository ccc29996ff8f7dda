//! Garbage collection, compaction, scrub, quarantine and parts, on the disk's blob store.

mod faulty;
mod gc;
mod meanwhile;
mod parts;
mod racing;
mod scrub;
mod world;
