//! Digests of an upload that advance with every part.
//!
//! A chain over the hashes of the parts identifies the sequence of parts that the digests cover.
//! Digests of any other sequence are never used for the whole, whatever happened meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

use super::{Inner, content::read_checked};
use crate::blob::{Address, Hasher, Result};

/// Identifies a sequence of parts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain([u8; 32]);

impl Chain {
    pub fn of(parts: &[Address]) -> Self {
        parts.iter().fold(Self::default(), Self::then)
    }

    pub fn then(self, part: &Address) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(&part.blake3.0).update(&part.size.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }
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

    /// The parts that are still to be hashed, if these are digests of the first ones of `parts`.
    pub fn rest<'a>(&self, parts: &'a [Address]) -> Option<&'a [Address]> {
        let (known, rest) = parts.split_at_checked(self.parts)?;
        (Chain::of(known) == self.chain).then_some(rest)
    }

    /// Records that all bytes of `part` went through the hasher.
    pub fn took(&mut self, part: &Address) {
        self.parts += 1;
        self.chain = self.chain.then(part);
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
        for part in rest {
            let mut hasher = self.hasher.clone();
            read_checked(store, part, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            self.hasher = hasher;
            self.took(part);
        }
        Ok(())
    }
}
