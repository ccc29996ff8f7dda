//! Digests of an upload that advance with every part.
//!
//! A chain over the hashes of the parts identifies the sequence of parts that the digests cover.
//! Digests of any other sequence are never used for the whole, whatever happened meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::{Inner, content::read_checked};
use crate::blob::{Address, Hasher, Result};

/// Identifies a sequence of parts: a hash over their hashes and sizes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chain(blake3::Hash);

impl Default for Chain {
    /// That of no parts.
    fn default() -> Self {
        Links::default().chain()
    }
}

/// A chain to which parts can be added.
#[derive(Clone, Default)]
pub struct Links(blake3::Hasher);

impl Links {
    pub fn of(parts: &[Address]) -> Self {
        // Each part asks for the chain of all parts before it, and BLAKE3 takes many links at once
        // far faster than one by one.
        let mut links = Vec::with_capacity(parts.len() * LINK_BYTES);
        for part in parts {
            links.extend_from_slice(&link(part));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&links);
        Self(hasher)
    }

    pub fn then(mut self, part: &Address) -> Self {
        self.0.update(&link(part));
        self
    }

    pub fn chain(&self) -> Chain {
        Chain(self.0.finalize())
    }
}

const LINK_BYTES: usize = 40;

fn link(part: &Address) -> [u8; LINK_BYTES] {
    let mut link = [0; LINK_BYTES];
    link[..32].copy_from_slice(&part.blake3.0);
    link[32..].copy_from_slice(&part.size.to_le_bytes());
    link
}

/// See the module.
#[derive(Clone, Default)]
pub struct Running {
    pub hasher: Hasher,
    parts: usize,
    chain: Chain,
}

impl Running {
    /// Digests of the first `parts` parts of an upload, which `chain` identifies.
    pub fn new(hasher: Hasher, parts: usize, chain: Chain) -> Self {
        Self { hasher, parts, chain }
    }

    /// Whether these are digests of just the parts that `chain` identifies, `parts` of them.
    pub fn are_of(&self, parts: usize, chain: Chain) -> bool {
        self.parts == parts && self.chain == chain
    }

    /// The parts that are still to be hashed, if these are digests of the first ones of `parts`.
    pub fn rest<'a>(&self, parts: &'a [Address]) -> Option<&'a [Address]> {
        let (known, rest) = parts.split_at_checked(self.parts)?;
        (Links::of(known).chain() == self.chain).then_some(rest)
    }

    pub fn bytes(&self) -> u64 {
        self.hasher.size
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.hasher.blake3.memory_bytes()
    }
}

/// Advances digests over the parts that arrived meanwhile, on the blocking pool. Damage only ends
/// this job: whoever completes the upload reads the remaining parts and reports it.
pub fn catch_up(store: Arc<Inner>, running: Arc<Mutex<Running>>, parts: Vec<Address>) {
    spawn_blocking(move || {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = running.go_on(&store, &parts) {
            tracing::debug!(%error, "the digests of an upload were not brought up to date");
        }
    });
}

impl Running {
    /// Hashes those of `parts` that are not covered yet, each checked against its own hash. Blocks.
    ///
    /// # Errors
    /// Errors of reading a part. The digests then cover the parts before the one that failed.
    pub fn go_on(&mut self, store: &Inner, parts: &[Address]) -> Result<()> {
        let Some(rest) = self.rest(parts) else { return Ok(()) };
        let mut links = Links::of(&parts[..self.parts]);
        for part in rest {
            let mut hasher = self.hasher.clone();
            read_checked(store, part, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            links = links.then(part);
            (self.hasher, self.chain) = (hasher, links.chain());
            self.parts += 1;
        }
        Ok(())
    }
}
