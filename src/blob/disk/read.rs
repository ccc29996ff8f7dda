//! Bytes on their way out: positioned reads on the blocking pool, one buffer ahead.

use std::sync::Arc;

use async_trait::async_trait;
use blake3::hazmat::HasherExt;
use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Inner,
    content::Content,
    layout::Place,
    stage::{HASH_INLINE_BYTES_MAX, joined},
    trailer,
};
use crate::{
    blob::{
        Address, Error, Reader, Result,
        tree::{Tree, group_bytes},
    },
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
        // The first bytes come on the same way to another thread.
        let first = Box::new(Cursor::open(&store, &place, &blob, slice)?).read()?;
        Ok(Box::new(FileReader(Next::Read(first))))
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

/// Reads one buffer ahead of who takes them.
struct FileReader(Next);

enum Next {
    Read(Read),
    Reading(JoinHandle<Result<Read>>),
    Failed,
}

type Read = Option<(Bytes, Box<Cursor>)>;

/// Reads a blob's file and checks what it reads.
struct Cursor {
    content: Content,
    /// What is to be given out.
    slice: Slice,
    /// What is read next, and the end of what is read: of the slice, or of its last group.
    at: u64,
    end: u64,
    check: Check,
}

enum Check {
    /// A whole blob, by its own hash.
    Whole { hasher: blake3::Hasher, root: ContentHash },
    /// A part, group by group.
    Groups(Groups),
    /// A part of a content without a trailer.
    Unknown,
}

impl Cursor {
    fn open(store: &Inner, place: &Place, blob: &Address, slice: Slice) -> Result<Self> {
        let content = Content::open(store, place, blob)?;
        let root = blob.blake3;
        // A blob of one group is checked as a whole.
        if slice == Slice::whole(blob.size) || blob.size <= group_bytes(blob.size) {
            let check = Check::Whole { hasher: blake3::Hasher::new(), root };
            return Ok(Self { content, slice, at: 0, end: blob.size, check });
        }
        if place.bytes_before_trailer().is_none() {
            let (at, end) = (slice.start, slice.end);
            return Ok(Self { content, slice, at, end, check: Check::Unknown });
        }
        let groups = Groups::begin(blob, trailer::tree(&content.file, blob.size)?, slice.start);
        let group = groups.bytes;
        let end = slice.end.next_multiple_of(group).min(blob.size);
        let at = slice.start - slice.start % group;
        Ok(Self { content, slice, at, end, check: Check::Groups(groups) })
    }

    /// Reads the next bytes to give out. The last ones are given out only when all that was read
    /// was found to be good.
    fn read(mut self: Box<Self>) -> Result<Read> {
        let mut last = None;
        while self.at < self.end {
            let from = self.at;
            let chunk = self.read_checked()?;
            let given = Slice {
                start: self.slice.start.clamp(from, self.at),
                end: self.slice.end.clamp(from, self.at),
            };
            if given.is_empty() {
                continue;
            }
            let within = |position: u64| usize::try_from(position - from).unwrap_or(usize::MAX);
            let chunk = chunk.slice(within(given.start)..within(given.end));
            if given.end < self.slice.end {
                return Ok(Some((chunk, self)));
            }
            last = Some(chunk);
        }
        Ok(last.map(|chunk| (chunk, self)))
    }

    fn read_checked(&mut self) -> Result<Bytes> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(TRANSFER_BUFFER_BYTES)];
        self.content.read_exact(&mut chunk, self.at)?;
        self.at += chunk.len() as u64;
        match &mut self.check {
            Check::Whole { hasher, root } => {
                hasher.update(&chunk);
                if self.at == self.end && hasher.finalize() != root.0 {
                    return Err(Error::Corrupt(root.to_string()));
                }
            }
            Check::Groups(groups) => groups.take(&chunk)?,
            Check::Unknown => {}
        }
        Ok(chunk.into())
    }
}

/// Checks groups one after the other against the tree.
struct Groups {
    root: ContentHash,
    size: u64,
    tree: Tree,
    /// Bytes of a group, and the one that is being read.
    bytes: u64,
    index: usize,
    hasher: blake3::Hasher,
    filled: u64,
}

impl Groups {
    /// Begins with the group that holds `position`.
    fn begin(blob: &Address, tree: Tree, position: u64) -> Self {
        let bytes = group_bytes(blob.size);
        let index = usize::try_from(position / bytes).unwrap_or(usize::MAX);
        let (root, size, hasher) = (blob.blake3, blob.size, blake3::Hasher::new());
        let mut groups = Self { root, size, tree, bytes, index, hasher, filled: 0 };
        groups.hasher.set_input_offset(groups.start());
        groups
    }

    fn start(&self) -> u64 {
        self.index as u64 * self.bytes
    }

    fn take(&mut self, mut chunk: &[u8]) -> Result<()> {
        while !chunk.is_empty() {
            let room = self.bytes.min(self.size - self.start()) - self.filled;
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            let (now, later) = chunk.split_at(room);
            self.hasher.update(now);
            self.filled += now.len() as u64;
            if self.filled == self.bytes || self.start() + self.filled == self.size {
                self.close()?;
            }
            chunk = later;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let group = self.hasher.finalize_non_root();
        if !self.tree.proves(&self.root, self.index, &group) {
            return Err(Error::Corrupt(self.root.to_string()));
        }
        self.index += 1;
        self.filled = 0;
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset(self.start());
        Ok(())
    }
}

#[async_trait]
impl Reader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let read = match std::mem::replace(&mut self.0, Next::Failed) {
            Next::Read(read) => read,
            Next::Reading(reading) => joined(reading.await)?,
            Next::Failed => return Err(Error::Io("the read failed before".into())),
        };
        let Some((chunk, cursor)) = read else {
            self.0 = Next::Read(None);
            return Ok(None);
        };
        self.0 = if cursor.at < cursor.end {
            Next::Reading(spawn_blocking(move || cursor.read()))
        } else {
            Next::Read(None)
        };
        Ok(Some(chunk))
    }
}
