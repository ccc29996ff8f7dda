//! The trailer behind a content in a file of its own: its tree, and its CRC-32 (as in ZIP and IEEE
//! 802.3), which an archive must state before the content.

use std::fs::File;

use super::{content::read_exact, read::read_cached};
use crate::blob::{
    Result,
    tree::{Tree, tree_bytes},
};

const CRC_BYTES: usize = 4;

/// Length of the trailer of a content of `size` bytes.
pub fn bytes(size: u64) -> u64 {
    tree_bytes(size) + CRC_BYTES as u64
}

pub fn encode(tree: &Tree, crc32: u32) -> Vec<u8> {
    let mut bytes = tree.to_bytes();
    bytes.extend_from_slice(&crc32.to_le_bytes());
    bytes
}

/// Reads the tree behind a content of `size` bytes. Its nodes are not checked here. Blocks.
pub fn tree(file: &File, size: u64) -> Result<Tree> {
    let mut tree = vec![0; usize::try_from(tree_bytes(size)).unwrap_or(0)];
    read_exact(file, &mut tree, size)?;
    Tree::from_bytes(&tree, size)
}

/// As [`tree`], but only from the page cache. `None` says nothing about the tree.
pub fn cached_tree(file: &File, size: u64) -> Option<Tree> {
    let mut tree = vec![0; usize::try_from(tree_bytes(size)).ok()?];
    read_cached(file, &mut tree, size).then(|| Tree::from_bytes(&tree, size).ok())?
}

/// As [`tree`], for the CRC-32.
pub fn crc32(file: &File, size: u64) -> Result<u32> {
    let mut crc32 = [0; CRC_BYTES];
    read_exact(file, &mut crc32, size + tree_bytes(size))?;
    Ok(u32::from_le_bytes(crc32))
}
