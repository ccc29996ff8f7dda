//! Both seams: one contract for every engine, and random steps that compare the engines.

mod accounts;
mod assembly;
mod blobs;
mod known;
mod metadata;
mod records;
mod recovery;
mod stored;
mod upkeep;
