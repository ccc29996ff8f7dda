//! A digest that a client announced for the bytes of one request.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::Result;
use crate::model::digest::Sha256;

/// Up to this many bytes are hashed inline; more are hashed off the reactor.
const INLINE_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Detects transfer errors; nothing more is asked of it here.
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha1, Algorithm::Sha256];

    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
        }
    }

    fn function(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Algorithm::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => &SHA256,
        }
    }
}

/// A digest as a client sends it.
pub struct Digest {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl Digest {
    /// `None` when `bytes` is not as long as the algorithm's digests are.
    pub fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Option<Self> {
        let fits = bytes.len() == algorithm.function().output_len();
        fits.then_some(Self { algorithm, bytes })
    }

    pub fn of_sha256(digest: Sha256) -> Self {
        Self { algorithm: Algorithm::Sha256, bytes: digest.0.to_vec() }
    }
}

/// The digest that the bytes should have, once it is known, and the digests of what arrived so far.
pub struct Checksum {
    expected: Option<Digest>,
    came: Vec<(Algorithm, Context)>,
}

impl Checksum {
    pub fn new(expected: Digest) -> Self {
        let came = vec![(expected.algorithm, Context::new(expected.algorithm.function()))];
        Self { expected: Some(expected), came }
    }

    /// A checksum whose expected digest follows the bytes.
    pub fn announced() -> Self {
        let context = |algorithm: Algorithm| (algorithm, Context::new(algorithm.function()));
        Self { expected: None, came: Algorithm::ALL.map(context).into() }
    }

    pub(super) fn expect(&mut self, digest: Digest) {
        self.expected = Some(digest);
    }

    pub(super) async fn update(&mut self, bytes: &Bytes) -> Result<()> {
        if bytes.len() <= INLINE_BYTES_MAX {
            hash(&mut self.came, bytes);
            return Ok(());
        }
        let (mut came, bytes) = (self.came.clone(), bytes.clone());
        let hashing = spawn_blocking(move || {
            hash(&mut came, &bytes);
            came
        });
        self.came = hashing.await?;
        Ok(())
    }

    pub(super) fn holds(self) -> bool {
        let Some(Digest { algorithm, bytes }) = self.expected else { return false };
        let mut came = self.came.into_iter();
        let came = came.find_map(|(of, context)| (of == algorithm).then(|| context.finish()));
        came.is_some_and(|came| came.as_ref() == bytes)
    }
}

fn hash(came: &mut [(Algorithm, Context)], bytes: &[u8]) {
    for (_, context) in came {
        context.update(bytes);
    }
}
