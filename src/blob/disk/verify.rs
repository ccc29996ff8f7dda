//! Reading again what was stored, from the disk and not from memory.

use std::{fs::File, io::Read, num::NonZeroU64, sync::Arc};

use rustix::fs::{Advice, fadvise};
use tokio::task::spawn_blocking;

use super::{Inner, layout::Place, stage::joined};
use crate::{
    blob::{Error, Result, upkeep::Pace},
    model::{digest::ContentHash, limits::TRANSFER_BUFFER_BYTES, locator::Locator},
};

/// Buffers that are read before the caller may take a breath.
const PIECE_BUFFERS: usize = 8;

pub async fn verify(
    store: &Arc<Inner>,
    hash: &ContentHash,
    locator: &Locator,
    pace: &dyn Pace,
) -> Result<u64> {
    let place = Place::parse(locator)?;
    let (inner, wanted) = (Arc::clone(store), *hash);
    if let Some(packed) = place.packed() {
        let check = move || {
            inner.packs.forget_cached(packed)?;
            Ok(inner.packs.read_checked(packed, &wanted)?.len() as u64)
        };
        let bytes = joined(spawn_blocking(check).await)?;
        pace.took(bytes).await;
        return Ok(bytes);
    }
    let open = move || {
        let file = File::open(inner.file(&place)?)?;
        forget_cached(&file, 0, None)?;
        Ok(Reread { file, hasher: blake3::Hasher::new(), bytes: 0 })
    };
    let mut reread = joined(spawn_blocking(open).await)?;
    loop {
        let before = reread.bytes;
        let (next, at_end) = joined(spawn_blocking(move || reread.piece()).await)?;
        reread = next;
        pace.took(reread.bytes - before).await;
        if at_end {
            break;
        }
    }
    if reread.hasher.finalize() != hash.0 {
        return Err(Error::Corrupt(hash.to_string()));
    }
    Ok(reread.bytes)
}

/// Drops clean pages from the page cache, so that a read tells what the disk holds.
pub fn forget_cached(file: &File, from: u64, length: Option<NonZeroU64>) -> Result<()> {
    Ok(fadvise(file, from, length, Advice::DontNeed).map_err(std::io::Error::from)?)
}

struct Reread {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Reread {
    /// Reads on, and says whether the end was reached.
    fn piece(mut self) -> Result<(Self, bool)> {
        let mut buffer = vec![0; TRANSFER_BUFFER_BYTES];
        for _ in 0..PIECE_BUFFERS {
            let read = match self.file.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok((self, true));
            }
            self.hasher.update(&buffer[..read]);
            self.bytes += read as u64;
        }
        Ok((self, false))
    }
}
