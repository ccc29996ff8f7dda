//! Proofs of parts of a blob, from its file and the tree in the trailer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Inner, blocking::blocking, content::Content, layout::Place, trailer};
use crate::{
    blob::{
        Address, Digests, Hasher, Reader, Result,
        proof::{Prover, Source},
        tree::{Tree, TreeHasher},
    },
    model::{limits::TRANSFER_BUFFER_BYTES, range::Slice},
};

pub async fn open(store: &Arc<Inner>, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
    let place = Place::parse(&blob.locator)?;
    let (store, blob) = (Arc::clone(store), blob.clone());
    let open = move || -> Result<Box<dyn Reader>> {
        if let Some(packed) = place.packed() {
            let content = store.packs.read(packed, blob.size)?;
            let mut hasher = TreeHasher::default();
            hasher.update(&content);
            let (_, tree) = hasher.finish();
            return reader(content, &blob, slice, tree);
        }
        let content = Content::open(&store, &place, &blob)?;
        let tree = match place.bytes_before_trailer() {
            Some(size) => trailer::tree(&content.file, size)?,
            None => hash_bare(&content, blob.size)?.tree,
        };
        reader(content, &blob, slice, tree)
    };
    blocking(open).await
}

/// Reads the first piece at once: damage at the beginning of a proof is reported before anything is
/// given out.
fn reader<S: Source + Send + 'static>(
    source: S,
    blob: &Address,
    slice: Slice,
    tree: Tree,
) -> Result<Box<dyn Reader>> {
    let mut prover = Prover::new(source, blob.blake3, blob.size, slice, tree);
    let first = prover.next_piece()?;
    Ok(Box::new(ProofReader { first: first.map(Bytes::from), prover: Some(prover) }))
}

/// Computes what the trailer of a content without one would hold.
pub fn hash_bare(content: &Content, size: u64) -> Result<Digests> {
    let mut hasher = Hasher::default();
    let mut at = 0;
    while at < size {
        let end = size.min(at + TRANSFER_BUFFER_BYTES as u64);
        hasher.update(&content.read(Slice { start: at, end })?);
        at = end;
    }
    Ok(hasher.finish())
}

struct ProofReader<S> {
    first: Option<Bytes>,
    prover: Option<Prover<S>>,
}

#[async_trait]
impl<S: Source + Send + 'static> Reader for ProofReader<S> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(mut prover) = self.prover.take() else { return Ok(None) };
        let step = move || prover.next_piece().map(|piece| (piece, prover));
        let (piece, prover) = blocking(step).await?;
        self.prover = piece.is_some().then_some(prover);
        Ok(piece.map(Bytes::from))
    }
}
