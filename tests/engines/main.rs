//! Both seams: one contract for every engine, and the engines compared step by step.

mod accounts;
mod assembly;
mod blobs;
mod known;
mod metadata;
mod records;
mod recovery;
mod stored;
mod upkeep;
