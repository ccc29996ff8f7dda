use proptest::prelude::*;

use super::*;

fn content(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

fn hashed(content: &[u8], piece: usize) -> (ContentHash, Tree) {
    let mut hasher = TreeHasher::default();
    content.chunks(piece).for_each(|piece| hasher.update(piece));
    hasher.finish()
}

fn group_hash(content: &[u8], index: usize) -> ChainingValue {
    let group = usize::try_from(group_bytes(content.len() as u64)).unwrap();
    let bytes = content.chunks(group).nth(index).unwrap();
    Hasher::new().set_input_offset((index * group) as u64).update(bytes).finalize_non_root()
}

#[test]
fn the_root_is_the_hash_and_the_tree_proves_every_group() {
    let group = usize::try_from(GROUP_BYTES_MIN).unwrap();
    for size in [0, 1, 1024, group, group + 1, 2 * group, 3 * group - 5, 5 * group, 11 * group + 7]
    {
        let content = content(size);
        let (root, tree) = hashed(&content, 10_007);
        assert_eq!(root.0, *blake3::hash(&content).as_bytes(), "{size}");
        let bytes = tree.to_bytes();
        assert_eq!(bytes.len() as u64, tree_bytes(size as u64));
        assert_eq!(Tree::from_bytes(&bytes, size as u64).unwrap(), tree);
        assert!(Tree::from_bytes(&[&bytes[..], &[0]].concat(), size as u64).is_err());
        let groups = if size > group { size.div_ceil(group) } else { 0 };
        for index in 0..groups {
            let mut node = group_hash(&content, index);
            assert!(tree.proves(&root, index, &node), "{size} {index}");
            assert!(!tree.proves(&root, index ^ 1, &node), "{size} {index}");
            node[0] ^= 1;
            assert!(!tree.proves(&root, index, &node), "{size} {index}");
        }
    }
}

#[test]
fn a_large_blob_has_larger_groups_and_no_larger_tree() {
    let size = 2 * GROUPS_MAX * usize::try_from(GROUP_BYTES_MIN).unwrap() + 100;
    assert_eq!(group_bytes(size as u64), 4 * GROUP_BYTES_MIN);
    let content = content(size);
    let (root, tree) = hashed(&content, 128 << 10);
    assert_eq!(root.0, *blake3::hash(&content).as_bytes());
    assert_eq!(tree.to_bytes().len() as u64, tree_bytes(size as u64));
    for index in [0, 1, 511, 512, 1023, 1024] {
        assert!(tree.proves(&root, index, &group_hash(&content, index)), "{index}");
    }
    assert!(tree_bytes(u64::MAX >> 1) <= 128 << 10);
}

proptest! {
    /// Whatever the sizes of the pieces and whatever a disk does to the tree, only what was hashed
    /// is proven.
    #[test]
    fn a_damaged_tree_proves_no_damaged_group(
        size in 65_537usize..600_000, piece in 1usize..70_000,
        node in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(),
    ) {
        let mut content = content(size);
        let (root, tree) = hashed(&content, piece);
        prop_assert_eq!(root.0, *blake3::hash(&content).as_bytes());
        let (at, size) = (byte.index(size), size as u64);
        content[at] ^= 1;
        let index = at / usize::try_from(GROUP_BYTES_MIN).unwrap();
        let damaged = group_hash(&content, index);
        prop_assert!(!tree.proves(&root, index, &damaged));
        let mut bytes = tree.to_bytes();
        let flipped = node.index(bytes.len());
        bytes[flipped] ^= 1;
        prop_assert!(!Tree::from_bytes(&bytes, size).unwrap().proves(&root, index, &damaged));
        // A node that matches the damaged group does not help either.
        bytes[index * NODE_BYTES..][..NODE_BYTES].copy_from_slice(&damaged);
        prop_assert!(!Tree::from_bytes(&bytes, size).unwrap().proves(&root, index, &damaged));
    }
}
