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

use std::{fs::File, os::unix::fs::FileExt, path::Path};

/// Changes a bit of a file in place.
fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (mut byte, at) = ([0], at as u64);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}
