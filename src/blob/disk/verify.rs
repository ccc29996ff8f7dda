//! Reads stored bytes again, from the disk and not from the page cache, and checks them.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    num::NonZeroU64,
    sync::Arc,
};

use rustix::fs::{Advice, fadvise};

use super::{Inner, blocking::blocking, layout::Place, trailer};
use crate::{
    blob::{Error, Result, tree::TreeHasher, upkeep::Pace},
    model::{digest::ContentHash, limits::TRANSFER_BUFFER_BYTES, locator::Locator},
};

/// How many buffers are read in a row before the caller may pause.
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
        let bytes = blocking(check).await?;
        pace.took(bytes).await;
        return Ok(bytes);
    }
    let open = move || {
        let file = File::open(inner.file(&place)?)?;
        forget_cached(&file, 0, None)?;
        let kept = place.bytes_before_trailer();
        let left = match place {
            Place::Assembled { size, .. } => size,
            _ => kept.map_or_else(|| file.metadata().map(|file| file.len()), Ok)?,
        };
        (&file).seek(SeekFrom::Start(place.start()))?;
        Ok(Reread {
            file,
            hasher: TreeHasher::default(),
            crc32: crc32fast::Hasher::new(),
            left,
            has_trailer: kept.is_some(),
        })
    };
    let mut reread = blocking(open).await?;
    let mut bytes = 0;
    loop {
        let before = reread.left;
        reread = blocking(move || reread.piece()).await?;
        let took = before - reread.left;
        bytes += took;
        pace.took(took).await;
        // If nothing was read, the file ends before its content does.
        if reread.left == 0 || took == 0 {
            break;
        }
    }
    blocking(move || reread.check(&wanted)).await?;
    Ok(bytes)
}

/// Drops clean pages from the page cache, so that the next read shows what the disk holds.
pub fn forget_cached(file: &File, from: u64, length: Option<NonZeroU64>) -> Result<()> {
    Ok(fadvise(file, from, length, Advice::DontNeed).map_err(std::io::Error::from)?)
}

struct Reread {
    file: File,
    hasher: TreeHasher,
    crc32: crc32fast::Hasher,
    /// Bytes of the content still to read.
    left: u64,
    has_trailer: bool,
}

impl Reread {
    fn piece(mut self) -> Result<Self> {
        let mut buffer = vec![0; TRANSFER_BUFFER_BYTES];
        for _ in 0..PIECE_BUFFERS {
            let read = match (&mut self.file).take(self.left).read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            self.hasher.update(&buffer[..read]);
            self.crc32.update(&buffer[..read]);
            self.left -= read as u64;
        }
        Ok(self)
    }

    /// Checks the hash of what was read, and the trailer behind it.
    fn check(self, wanted: &ContentHash) -> Result<()> {
        let (hash, tree) = self.hasher.finish();
        let trailer_is_good = !self.has_trailer || {
            let wanted = trailer::encode(&tree, self.crc32.finalize());
            let mut kept = Vec::new();
            // One byte more than expected, to notice when anything follows the trailer.
            self.file.take(wanted.len() as u64 + 1).read_to_end(&mut kept)?;
            kept == wanted
        };
        if hash == *wanted && trailer_is_good {
            Ok(())
        } else {
            Err(Error::Corrupt(wanted.to_string()))
        }
    }
}
