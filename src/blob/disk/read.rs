//! Bytes on their way out: positioned reads on the blocking pool, one buffer ahead.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Inner,
    layout::Place,
    stage::{HASH_INLINE_BYTES_MAX, joined},
};
use crate::{
    blob::{Address, Error, Reader, Result},
    model::{digest::ContentHash, limits::TRANSFER_BUFFER_BYTES, range::Slice},
};

pub async fn open(store: &Arc<Inner>, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
    let place = Place::parse(&blob.locator)?;
    // A small blob that is in memory anyway is not worth the way to another thread.
    if let Some(packed) = place.packed()
        && blob.size <= HASH_INLINE_BYTES_MAX as u64
        && let Some(content) = store.packs.read_without_waiting(packed, blob.size)
    {
        check(&content, blob)?;
        return Ok(Box::new(PackedReader(Some(cut(&content, slice)))));
    }
    let (store, blob) = (Arc::clone(store), blob.clone());
    let open = move || -> Result<Box<dyn Reader>> {
        if let Some(packed) = place.packed() {
            // Small enough to be read and checked as a whole, whatever slice is asked for.
            let content = store.packs.read(packed, blob.size)?;
            check(&content, &blob)?;
            return Ok(Box::new(PackedReader(Some(cut(&content, slice)))));
        }
        let file = File::open(store.file(&place)?)?;
        if file.metadata()?.len() != blob.size {
            return Err(Error::Corrupt(format!("{} has another size on disk", blob.blake3)));
        }
        let whole = slice == Slice::whole(blob.size);
        let cursor = Cursor {
            file,
            at: slice.start,
            end: slice.end,
            check: whole.then(|| (blake3::Hasher::new(), blob.blake3)),
        };
        Ok(Box::new(FileReader { next: Some(spawn_blocking(move || cursor.read())) }))
    };
    joined(spawn_blocking(open).await)
}

/// # Errors
/// [`Error::Corrupt`] when `content` is not what was stored.
pub fn check(content: &[u8], blob: &Address) -> Result<()> {
    if ContentHash(*blake3::hash(content).as_bytes()) == blob.blake3 {
        Ok(())
    } else {
        Err(Error::Corrupt(blob.blake3.to_string()))
    }
}

fn cut(content: &Bytes, slice: Slice) -> Bytes {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
    content.slice(at(slice.start)..at(slice.end))
}

struct PackedReader(Option<Bytes>);

#[async_trait]
impl Reader for PackedReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

struct FileReader {
    next: Option<JoinHandle<Result<Read>>>,
}

type Read = Option<(Bytes, Cursor)>;

struct Cursor {
    file: File,
    at: u64,
    end: u64,
    /// Hash so far and the one to meet, when the whole blob is read.
    check: Option<(blake3::Hasher, ContentHash)>,
}

impl Cursor {
    /// Reads one buffer. The last one is given out only when the whole blob met its hash.
    fn read(mut self) -> Result<Read> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(TRANSFER_BUFFER_BYTES)];
        if chunk.is_empty() {
            return Ok(None);
        }
        self.file.read_exact_at(&mut chunk, self.at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Corrupt("the file ends early".into()),
            _ => error.into(),
        })?;
        self.at += chunk.len() as u64;
        if let Some((hasher, expected)) = &mut self.check {
            hasher.update(&chunk);
            if self.at == self.end && hasher.finalize() != expected.0 {
                return Err(Error::Corrupt(expected.to_string()));
            }
        }
        Ok(Some((chunk.into(), self)))
    }
}

#[async_trait]
impl Reader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(reading) = self.next.take() else { return Ok(None) };
        let Some((chunk, cursor)) = joined(reading.await)? else { return Ok(None) };
        if cursor.at < cursor.end {
            self.next = Some(spawn_blocking(move || cursor.read()));
        }
        Ok(Some(chunk))
    }
}
