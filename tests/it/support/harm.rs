//! Harm to the files of a store.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The file of a content that has one of its own.
pub fn blob(data: &Path, file: &Value) -> PathBuf {
    let hash = file["blake3"].as_str().unwrap();
    let found = fs::read_dir(data.join("blobs").join(&hash[..2])).unwrap();
    let found = found.map(|entry| entry.unwrap().path());
    let mut found = found.filter(|path| path.to_str().unwrap().contains(hash));
    let blob = found.next().unwrap();
    assert!(found.next().is_none(), "{hash} is there twice");
    blob
}

/// Changes the byte at `at` of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Changes a byte of `content` in the file in `dir` that holds it.
pub fn damage(dir: &Path, content: &[u8]) {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.is_file()) {
        if let Some(at) = memchr::memmem::find(&fs::read(&path).unwrap(), content) {
            return flip(&path, at + content.len() / 2);
        }
    }
    panic!("it is not there");
}

/// Makes a file whose reading fails with EIO: no process has its first page mapped.
pub fn unreadable(path: &Path) {
    symlink("/proc/self/mem", path).unwrap();
}
