//! Contents in files, at whatever offset they begin.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use super::{Inner, layout::Place, read::read_cached, trailer};
use crate::{
    blob::{Address, Error, Result, proof::Source},
    model::{limits::TRANSFER_BUFFER_BYTES, range::Slice},
};

/// A content in a file that is open for reading.
pub struct Content {
    pub file: File,
    start: u64,
}

impl Content {
    /// Opens the file of a content. The file must be as long as the content and its trailer.
    /// Blocks.
    pub fn open(store: &Inner, place: &Place, blob: &Address) -> Result<Self> {
        Self::of(File::open(store.file(place)?)?, place, blob)
    }

    /// As [`Content::open`], for a file that is open already.
    pub fn of(file: File, place: &Place, blob: &Address) -> Result<Self> {
        let start = place.start();
        let length = file.metadata()?.len();
        let end = blob.size.saturating_add(start);
        let fits = match (place, place.bytes_before_trailer()) {
            // Other parts may lie behind it.
            (Place::Assembled { size, .. }, _) => *size == blob.size && length >= end,
            (_, behind) => length == end.saturating_add(behind.map_or(0, trailer::bytes)),
        };
        if fits {
            Ok(Self { file, start })
        } else {
            Err(Error::Corrupt(format!("{} has another size on disk", blob.blake3)))
        }
    }

    pub fn read_exact(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        read_exact(&self.file, buffer, self.start.saturating_add(at))
    }

    /// As [`read_cached`].
    pub fn read_cached(&self, buffer: &mut [u8], at: u64) -> bool {
        read_cached(&self.file, buffer, self.start.saturating_add(at))
    }
}

impl Source for Content {
    fn read(&self, slice: Slice) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(slice.len()).unwrap_or(usize::MAX)];
        self.read_exact(&mut bytes, slice.start)?;
        Ok(bytes)
    }
}

pub fn read_exact(file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Corrupt("the file ends early".into()),
        _ => error.into(),
    })
}

/// Passes a content to `take` in file order, a buffer at a time, and checks it against its hash.
/// Blocks.
///
/// # Errors
/// [`Error::Corrupt`] after the last bytes of a damaged content.
pub fn read_checked(
    store: &Inner,
    part: &Address,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let place = Place::parse(&part.locator)?;
    if let Some(packed) = place.packed() {
        let content = store.packs.read(packed, part.size)?;
        super::read::check(&content, part)?;
        return take(&content);
    }
    let content = Content::open(store, &place, part)?;
    let mut own = blake3::Hasher::new();
    let mut buffer = vec![0; TRANSFER_BUFFER_BYTES];
    let mut at = 0;
    while at < part.size {
        let left = usize::try_from(part.size - at).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..left.min(TRANSFER_BUFFER_BYTES)];
        content.read_exact(chunk, at)?;
        own.update(chunk);
        take(chunk)?;
        at += chunk.len() as u64;
    }
    if own.finalize() != part.blake3.0 {
        return Err(Error::Corrupt(format!("part {} on disk", part.blake3)));
    }
    Ok(())
}

/// Copies bytes from file to file in the kernel, which shares their blocks if the file system can
/// (the standard library uses `copy_file_range(2)` here). Blocks.
pub fn copy_range(from: &File, start: u64, to: &File, at: u64, bytes: u64) -> Result<()> {
    use std::io::Read;
    let (mut from, mut to) = (from, to);
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(at))?;
    let copied = io::copy(&mut from.take(bytes), &mut to)?;
    if copied == bytes { Ok(()) } else { Err(Error::Corrupt("the file ends early".into())) }
}
