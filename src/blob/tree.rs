//! The BLAKE3 tree of a blob: the nodes that are kept, so that a part can be checked without the
//! rest.
//!
//! BLAKE3 hashes chunks of 1 KiB and joins neighbours pair by pair up to the root, which is the
//! blob's hash (BLAKE3 paper, section 2.1). The tree keeps the hashes of *groups* of chunks and of
//! all nodes above them except the root, level by level. The last node of a level goes to the next
//! level unchanged if it has no neighbour. Nodes below a group are computed from its bytes when
//! they are needed.
//!
//! A group has 64 KiB; for a blob of more than 2048 such groups, it has two, four, … times as much.
//! So the tree of any blob takes at most 128 KiB, also while it is built.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::{Error, Result};
use crate::model::digest::ContentHash;

/// Size of the smallest group.
const GROUP_BYTES_MIN: u64 = 64 << 10;
/// The most groups of one blob; when there would be more, neighbouring groups are joined.
const GROUPS_MAX: usize = 2048;
const NODE_BYTES: usize = 32;

/// Size of a group in a blob of `size` bytes.
pub fn group_bytes(size: u64) -> u64 {
    let mut bytes = GROUP_BYTES_MIN;
    while size.div_ceil(bytes) > GROUPS_MAX as u64 {
        bytes *= 2;
    }
    bytes
}

/// The number of nodes of each level, from the groups up to the two nodes below the root; empty for
/// a blob of one group.
fn level_nodes(size: u64) -> impl Iterator<Item = usize> {
    let groups = usize::try_from(size.div_ceil(group_bytes(size))).unwrap_or(GROUPS_MAX);
    let first = (groups > 1).then_some(groups);
    std::iter::successors(first, |nodes| (*nodes > 2).then(|| nodes.div_ceil(2)))
}

/// Size of the kept tree of a blob of `size` bytes.
pub fn tree_bytes(size: u64) -> u64 {
    (level_nodes(size).sum::<usize>() * NODE_BYTES) as u64
}

/// The level above `nodes`.
fn join(nodes: &[ChainingValue]) -> Vec<ChainingValue> {
    let parent = |pair: &[ChainingValue]| match pair {
        [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
        pair => pair[0],
    };
    nodes.chunks(2).map(parent).collect()
}

/// Hashes bytes as they arrive and keeps the tree over them.
#[derive(Clone)]
pub struct TreeHasher {
    group_bytes: u64,
    group: Hasher,
    /// Bytes in `group`.
    filled: u64,
    /// The groups before `group`.
    groups: Vec<ChainingValue>,
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self { group_bytes: GROUP_BYTES_MIN, group: Hasher::new(), filled: 0, groups: Vec::new() }
    }
}

impl TreeHasher {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full group is closed only when more bytes come: a blob's only group is its root.
            if self.filled == self.group_bytes {
                self.begin_group();
            }
            let room = self.group_bytes - self.filled;
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.group.update(now);
            self.filled += now.len() as u64;
            bytes = later;
        }
    }

    /// Memory that the tree takes, without the hasher itself.
    pub fn memory_bytes(&self) -> usize {
        self.groups.capacity() * NODE_BYTES
    }

    fn begin_group(&mut self) {
        self.groups.push(self.group.finalize_non_root());
        if self.groups.len() == GROUPS_MAX {
            self.groups = join(&self.groups);
            self.group_bytes *= 2;
        }
        self.group = Hasher::new();
        self.group.set_input_offset(self.groups.len() as u64 * self.group_bytes);
        self.filled = 0;
    }

    /// The blob's hash and its kept tree.
    pub fn finish(mut self) -> (ContentHash, Tree) {
        if self.groups.is_empty() {
            return (ContentHash(*self.group.finalize().as_bytes()), Tree::default());
        }
        self.groups.push(self.group.finalize_non_root());
        let mut levels = vec![self.groups];
        while let Some(last) = levels.last().filter(|last| last.len() > 2) {
            levels.push(join(last));
        }
        let top = &levels[levels.len() - 1];
        let root = merge_subtrees_root(&top[0], &top[1], Mode::Hash);
        (ContentHash(*root.as_bytes()), Tree { levels })
    }
}

/// The nodes that are kept of a tree, level by level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    levels: Vec<Vec<ChainingValue>>,
}

impl Tree {
    pub fn to_bytes(&self) -> Vec<u8> {
        self.levels.concat().concat()
    }

    /// Reads the tree of a blob of `size` bytes. Its nodes are not checked here.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the number of bytes is not that of such a tree.
    pub fn from_bytes(bytes: &[u8], size: u64) -> Result<Self> {
        let (nodes, rest) = bytes.as_chunks::<NODE_BYTES>();
        let mut levels = Vec::new();
        let mut at = 0;
        for count in level_nodes(size) {
            levels.extend(nodes.get(at..at + count).map(<[_]>::to_vec));
            at += count;
        }
        if rest.is_empty() && at == nodes.len() {
            Ok(Self { levels })
        } else {
            Err(Error::Corrupt("a tree of another size".into()))
        }
    }

    /// Whether `group` is the hash of the group at `index` in the blob with this hash.
    pub fn proves(&self, root: &ContentHash, index: usize, group: &ChainingValue) -> bool {
        let (mut node, mut index) = (*group, index);
        for level in &self.levels {
            let sibling = level.get(index ^ 1);
            let (left, right) = match sibling {
                None => (node, None),
                Some(left) if index % 2 == 1 => (*left, Some(node)),
                Some(right) => (node, Some(*right)),
            };
            match right {
                Some(right) if level.len() == 2 => {
                    return merge_subtrees_root(&left, &right, Mode::Hash) == root.0;
                }
                Some(right) => node = merge_subtrees_non_root(&left, &right, Mode::Hash),
                None => node = left,
            }
            index /= 2;
        }
        false
    }

    /// The two nodes below the node that covers `groups` groups from `first` on; `None` when the
    /// tree does not have them.
    pub fn below(&self, first: usize, groups: usize) -> Option<(ChainingValue, ChainingValue)> {
        let height = groups.next_power_of_two().trailing_zeros() as usize;
        let level = self.levels.get(height.checked_sub(1)?)?;
        let left = first >> (height - 1);
        Some((*level.get(left)?, *level.get(left + 1)?))
    }
}

#[cfg(test)]
mod tests;
