//! A digest that a client announced for the bytes of one request.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{Error, Result};

/// Bytes that are hashed where they are; more leave the reactor.
const INLINE_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Finds transfer errors, which is all that it is asked for here.
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

/// What the bytes should be and what came so far.
pub struct Checksum {
    expected: Vec<u8>,
    came: Context,
}

impl Checksum {
    /// `None` when `expected` is not as long as the algorithm's digests are.
    pub fn new(algorithm: Algorithm, expected: Vec<u8>) -> Option<Self> {
        let function = algorithm.function();
        let fits = expected.len() == function.output_len();
        fits.then(|| Self { expected, came: Context::new(function) })
    }

    pub(super) async fn update(&mut self, bytes: &Bytes) -> Result<()> {
        if bytes.len() <= INLINE_BYTES_MAX {
            self.came.update(bytes);
            return Ok(());
        }
        let (mut came, bytes) = (self.came.clone(), bytes.clone());
        let hashing = spawn_blocking(move || {
            came.update(&bytes);
            came
        });
        self.came = hashing.await.map_err(|error| Error::Internal(error.to_string()))?;
        Ok(())
    }

    pub(super) fn holds(self) -> bool {
        self.came.finish().as_ref() == self.expected
    }
}
