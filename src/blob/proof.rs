//! Verified ranges: a part of a blob together with the hashes that lead from the part to the root.
//! Whoever knows the blob's hash can check the part without the rest.
//!
//! The format is a *slice* of [Bao]: the blob's size (u64, little endian), then the tree in
//! pre-order, left before right, without the branches that the part does not touch. A node is 64
//! bytes, the two hashes below it; a leaf is a whole chunk of 1 KiB. Every node is checked against
//! the node above it before it is sent. Only a slice that includes the last chunk proves the size.
//!
//! [Bao]: https://github.com/oconnor663/bao/blob/master/docs/spec.md

use blake3::{
    CHUNK_LEN, Hasher,
    hazmat::{
        ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root,
        merge_subtrees_root,
    },
};

use super::{
    Error, Result,
    tree::{Tree, group_bytes},
};
use crate::model::{digest::ContentHash, range::Slice};

const SIZE_BYTES: u64 = 8;
const NODE_BYTES: u64 = 64;
/// How much of a blob is held in memory at a time.
const HELD_BYTES_MAX: u64 = 64 << 10;

/// Length of the proof of `slice` in a blob of `size` bytes.
pub fn proof_bytes(size: u64, slice: Slice) -> u64 {
    SIZE_BYTES + encoded_bytes(Slice::whole(size), slice)
}

fn encoded_bytes(subtree: Slice, slice: Slice) -> u64 {
    if !subtree.overlaps(slice) {
        return 0;
    }
    let chunks = subtree.len().div_ceil(CHUNK_LEN as u64).max(1);
    let is_inside = slice.start <= subtree.start && subtree.end <= slice.end;
    if is_inside || chunks == 1 {
        return subtree.len() + NODE_BYTES * (chunks - 1);
    }
    let (left, right) = halves(subtree);
    NODE_BYTES + encoded_bytes(left, slice) + encoded_bytes(right, slice)
}

/// The two subtrees below a subtree of more than one chunk.
fn halves(Slice { start, end }: Slice) -> (Slice, Slice) {
    let middle = start + left_subtree_len(end - start);
    (Slice { start, end: middle }, Slice { start: middle, end })
}

/// A subtree and the hash that its bytes must have.
struct Subtree {
    at: Slice,
    hash: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    Root(ContentHash),
    Below(ChainingValue),
}

impl Expected {
    fn is_joined_of(&self, left: &ChainingValue, right: &ChainingValue) -> bool {
        match self {
            Self::Root(root) => merge_subtrees_root(left, right, Mode::Hash) == root.0,
            Self::Below(node) => merge_subtrees_non_root(left, right, Mode::Hash) == *node,
        }
    }

    fn is_hash_of(&self, bytes: &[u8], start: u64) -> bool {
        match self {
            Self::Root(root) => blake3::hash(bytes) == root.0,
            Self::Below(node) => hash(bytes, start) == *node,
        }
    }
}

/// The hash of a subtree whose first byte is at `start`.
fn hash(bytes: &[u8], start: u64) -> ChainingValue {
    Hasher::new().set_input_offset(start).update(bytes).finalize_non_root()
}

/// Where the bytes of a blob are read from.
pub trait Source {
    /// Reads exactly these bytes.
    fn read(&self, slice: Slice) -> Result<Vec<u8>>;
}

/// Produces a proof piece by piece.
pub struct Prover<S> {
    source: S,
    root: ContentHash,
    size: u64,
    slice: Slice,
    tree: Tree,
    /// Subtrees that are still to be sent, the next one last.
    waiting: Vec<Subtree>,
    begun: bool,
}

impl<S: Source> Prover<S> {
    pub fn new(source: S, root: ContentHash, size: u64, slice: Slice, tree: Tree) -> Self {
        let whole = Subtree { at: Slice::whole(size), hash: Expected::Root(root) };
        Self { source, root, size, slice, tree, waiting: vec![whole], begun: false }
    }

    /// The next piece of the proof, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for bytes that are not what was stored, and the errors of the source.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            piece.extend_from_slice(&self.size.to_le_bytes());
        }
        while let Some(subtree) = self.waiting.pop() {
            if !subtree.at.overlaps(self.slice) {
                continue;
            }
            if subtree.at.len() <= HELD_BYTES_MAX {
                let bytes = self.source.read(subtree.at)?;
                if !subtree.hash.is_hash_of(&bytes, subtree.at.start) {
                    return Err(self.damage());
                }
                encode(&bytes, subtree.at, self.slice, &mut piece);
                return Ok(Some(piece));
            }
            let (left, right) = self.below(subtree.at)?;
            if !subtree.hash.is_joined_of(&left, &right) {
                return Err(self.damage());
            }
            piece.extend_from_slice(&left);
            piece.extend_from_slice(&right);
            let (first, second) = halves(subtree.at);
            self.waiting.push(Subtree { at: second, hash: Expected::Below(right) });
            self.waiting.push(Subtree { at: first, hash: Expected::Below(left) });
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn damage(&self) -> Error {
        Error::Corrupt(self.root.to_string())
    }

    /// The two hashes below a node: from the tree, or computed if the node lies within a group.
    fn below(&self, at: Slice) -> Result<(ChainingValue, ChainingValue)> {
        let group = group_bytes(self.size);
        if at.len() > group {
            let index = |bytes: u64| usize::try_from(bytes / group).unwrap_or(usize::MAX);
            let groups = index(at.len().next_multiple_of(group));
            return self.tree.below(index(at.start), groups).ok_or_else(|| self.damage());
        }
        let (left, right) = halves(at);
        Ok((self.hash(left)?, self.hash(right)?))
    }

    fn hash(&self, mut at: Slice) -> Result<ChainingValue> {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(at.start);
        while !at.is_empty() {
            let end = at.end.min(at.start + HELD_BYTES_MAX);
            hasher.update(&self.source.read(Slice { start: at.start, end })?);
            at.start = end;
        }
        Ok(hasher.finalize_non_root())
    }
}

/// Writes the part of a subtree that the slice touches; `bytes` are all of the subtree.
fn encode(bytes: &[u8], at: Slice, slice: Slice, piece: &mut Vec<u8>) {
    if !at.overlaps(slice) {
        return;
    }
    if bytes.len() <= CHUNK_LEN {
        piece.extend_from_slice(bytes);
        return;
    }
    let (first, second) = halves(at);
    let middle = usize::try_from(first.len()).unwrap_or(usize::MAX).min(bytes.len());
    let (left, right) = bytes.split_at(middle);
    piece.extend_from_slice(&hash(left, first.start));
    piece.extend_from_slice(&hash(right, second.start));
    encode(left, first, slice, piece);
    encode(right, second, slice, piece);
}

/// Bytes that are held in memory as a whole.
impl Source for bytes::Bytes {
    fn read(&self, slice: Slice) -> Result<Vec<u8>> {
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let bytes = self.get(at(slice.start)..at(slice.end));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::Corrupt("shorter than it was".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use bao::decode::SliceDecoder;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::blob::tree::TreeHasher;

    fn content(size: usize) -> Bytes {
        let mut content = vec![0; size];
        Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut content);
        content.into()
    }

    fn prove(content: &Bytes, slice: Slice) -> Result<(ContentHash, Vec<u8>)> {
        let mut hasher = TreeHasher::default();
        hasher.update(content);
        let (root, tree) = hasher.finish();
        let mut prover = Prover::new(content.clone(), root, content.len() as u64, slice, tree);
        let mut proof = Vec::new();
        while let Some(piece) = prover.next_piece()? {
            proof.extend_from_slice(&piece);
        }
        Ok((root, proof))
    }

    proptest! {
        /// Bao's own decoder accepts every proof; once a bit is changed, it accepts no other
        /// content.
        #[test]
        fn proofs_are_slices_of_bao(
            size in prop_oneof![1usize..5000, 60_000usize..600_000],
            a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let content = content(size);
            let (a, b) = (a.index(size), b.index(size));
            let (start, end) = (a.min(b), a.max(b) + 1);
            let slice = Slice { start: start as u64, end: end as u64 };
            let (root, mut proof) = prove(&content, slice).unwrap();
            prop_assert_eq!(proof.len() as u64, proof_bytes(size as u64, slice));
            let decode = |proof: &[u8]| {
                let mut decoded = Vec::new();
                let hash = blake3::Hash::from(root.0);
                SliceDecoder::new(Cursor::new(proof), &hash, slice.start, slice.len())
                    .read_to_end(&mut decoded)
                    .map(|_| decoded)
            };
            prop_assert_eq!(decode(&proof).unwrap(), &content[start..end]);
            let at = flip.index(proof.len());
            proof[at] ^= 1;
            // Only the last chunk proves the size. Without it, a different size with the same tree
            // shape goes unnoticed, but no changed byte of the content does.
            if let Ok(decoded) = decode(&proof) {
                prop_assert!(at < 8 && end < size);
                prop_assert_eq!(decoded, &content[start..end]);
            }
        }
    }

    #[test]
    fn an_empty_blob_has_a_proof_of_its_size() {
        let (_, proof) = prove(&Bytes::new(), Slice::whole(0)).unwrap();
        assert_eq!(proof, [0; 8]);
        assert_eq!(proof_bytes(0, Slice::whole(0)), 8);
    }

    #[test]
    fn damaged_bytes_prove_nothing() {
        let good = content(300_000);
        let mut hasher = TreeHasher::default();
        hasher.update(&good);
        let (root, tree) = hasher.finish();
        let mut bytes = good.to_vec();
        bytes[200_000] ^= 1;
        let prove = |start: u64| {
            let slice = Slice { start, end: start + 10 };
            let mut prover =
                Prover::new(Bytes::from(bytes.clone()), root, 300_000, slice, tree.clone());
            std::iter::from_fn(|| prover.next_piece().transpose()).all(|piece| piece.is_ok())
        };
        assert!(prove(0) && !prove(199_990) && prove(290_000));
    }
}
