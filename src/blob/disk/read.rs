//! Bytes on their way out. Bytes in the page cache are opened, read and hashed on the caller's
//! thread, a buffer at a time; that takes some 40 us, as much as switching to another thread and
//! back. All other bytes are read on the blocking pool, one buffer ahead.

use std::{fs::File, io::IoSliceMut, mem, path::Path, sync::Arc, task::Poll};

use async_trait::async_trait;
use blake3::hazmat::HasherExt;
use bytes::{Bytes, BytesMut};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::{ReadWriteFlags, preadv2},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Inner,
    blocking::{blocking, joined},
    content::Content,
    layout::Place,
    stage::HASH_INLINE_BYTES_MAX,
    trailer,
};
use crate::{
    blob::{
        Address, Error, Reader, Result, held,
        tree::{Tree, group_bytes},
    },
    model::{digest::ContentHash, limits::TRANSFER_BUFFER_BYTES, range::Slice},
};

pub async fn open(store: &Arc<Inner>, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>> {
    let place = Place::parse(&blob.locator)?;
    // For a small blob that is in memory anyway, switching to another thread is not worth while.
    if let Some(packed) = place.packed()
        && blob.size <= HASH_INLINE_BYTES_MAX as u64
        && let Some(content) = store.packs.read_without_waiting(packed, blob.size)
    {
        check(&content, blob)?;
        return Ok(held(&content, slice));
    }
    if place.packed().is_none()
        && let Some(reader) = FileReader::without_waiting(store, &place, blob, slice)
    {
        return Ok(Box::new(reader));
    }
    let (store, blob) = (Arc::clone(store), blob.clone());
    let open = move || -> Result<Box<dyn Reader>> {
        if let Some(packed) = place.packed() {
            // A packed blob is small enough to be read and checked whole, whatever slice is asked
            // for.
            let content = store.packs.read(packed, blob.size)?;
            check(&content, &blob)?;
            return Ok(held(&content, slice));
        }
        // The first bytes are read in the same job, which saves a second thread switch.
        let content = Content::open(&store, &place, &blob)?;
        let tree = Cursor::needs_tree(&place, &blob, slice)
            .then(|| trailer::tree(&content.file, blob.size))
            .transpose()?;
        let (first, cursor) =
            Box::new(Cursor::begin(content, tree, &blob, slice)).read_waiting()?;
        Ok(Box::new(FileReader(Next::First(first, cursor))))
    };
    blocking(open).await
}

/// # Errors
/// [`Error::Corrupt`] when `content` is not what was stored.
pub fn check(content: &[u8], blob: &Address) -> Result<()> {
    if blake3::hash(content) == blob.blake3.0 {
        Ok(())
    } else {
        Err(Error::Corrupt(blob.blake3.to_string()))
    }
}

/// Reads a blob from its file.
struct FileReader(Next);

enum Next {
    /// The first buffer, which was read when the file was opened.
    First(Option<Bytes>, Box<Cursor>),
    /// The next buffer is read when the caller asks for it.
    Idle(Box<Cursor>),
    /// The next buffer is being read while the one before is sent, because that one had to wait for
    /// the disk.
    Ahead(JoinHandle<Result<Read>>),
    Failed,
}

type Read = (Option<Bytes>, Box<Cursor>);

impl FileReader {
    /// Opens the file and reads its first buffer if all of that is in memory. `None` says nothing
    /// about the blob.
    fn without_waiting(store: &Inner, place: &Place, blob: &Address, slice: Slice) -> Option<Self> {
        let file = open_cached(&store.file(place).ok()?)?;
        let content = Content::of(file, place, blob).ok()?;
        let tree = if Cursor::needs_tree(place, blob, slice) {
            Some(trailer::cached_tree(&content.file, blob.size)?)
        } else {
            None
        };
        let mut cursor = Box::new(Cursor::begin(content, tree, blob, slice));
        match cursor.read(false) {
            Poll::Ready(first) => Some(Self(Next::First(first.ok()?, cursor))),
            Poll::Pending => None,
        }
    }
}

/// Reads a blob's file and checks what it reads.
struct Cursor {
    content: Content,
    /// The bytes to give out.
    slice: Slice,
    /// The offset to read next, and where reading ends: at the end of the slice or of its last
    /// group.
    at: u64,
    end: u64,
    check: Check,
    /// The last bytes to give out. They are held until everything that is read has been checked.
    held: Option<Bytes>,
    /// The buffer that was filled last. It is reused once nobody else holds it.
    spare: Bytes,
}

enum Check {
    /// A whole blob, checked against its own hash.
    Whole { hasher: blake3::Hasher, root: ContentHash },
    /// A part of a blob, checked group by group against the tree.
    Groups(Groups),
    /// A part of a content without a trailer, which cannot be checked.
    Unknown,
}

/// The most buffers to read in one go where waiting is not allowed; a group can be larger.
const BUFFERS_WITHOUT_WAITING: usize = 2;

impl Cursor {
    /// Whether the blob is checked as a whole, as every blob of one group is.
    fn is_whole(blob: &Address, slice: Slice) -> bool {
        slice == Slice::whole(blob.size) || blob.size <= group_bytes(blob.size)
    }

    fn needs_tree(place: &Place, blob: &Address, slice: Slice) -> bool {
        !Self::is_whole(blob, slice) && place.bytes_before_trailer().is_some()
    }

    /// Begins to read `slice`; `tree` must be given if [`Cursor::needs_tree`].
    fn begin(content: Content, tree: Option<Tree>, blob: &Address, slice: Slice) -> Self {
        let (at, end, check) = match tree {
            _ if Self::is_whole(blob, slice) => {
                let check = Check::Whole { hasher: blake3::Hasher::new(), root: blob.blake3 };
                (0, blob.size, check)
            }
            None => (slice.start, slice.end, Check::Unknown),
            Some(tree) => {
                let groups = Groups::begin(blob, tree, slice.start);
                let group = groups.bytes;
                let end = slice.end.next_multiple_of(group).min(blob.size);
                (slice.start - slice.start % group, end, Check::Groups(groups))
            }
        };
        Self { content, slice, at, end, check, held: None, spare: Bytes::new() }
    }

    /// The next bytes to give out, `None` at the end. The last bytes are given out only when
    /// everything that was read has been checked. Pending: the read would have to wait for the
    /// disk.
    fn read(&mut self, may_wait: bool) -> Poll<Result<Option<Bytes>>> {
        let mut left = if may_wait { usize::MAX } else { BUFFERS_WITHOUT_WAITING };
        while self.at < self.end {
            if left == 0 {
                return Poll::Pending;
            }
            left -= 1;
            let from = self.at;
            let chunk = match self.read_checked(may_wait) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            };
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
                return Poll::Ready(Ok(Some(chunk)));
            }
            self.held = Some(chunk);
        }
        Poll::Ready(Ok(self.held.take()))
    }

    /// As [`Cursor::read`] where waiting is allowed. Blocks.
    fn read_waiting(mut self: Box<Self>) -> Result<Read> {
        match self.read(true) {
            Poll::Ready(chunk) => Ok((chunk?, self)),
            Poll::Pending => Err(Error::Io("a read that may wait did not".into())),
        }
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.end && self.held.is_none()
    }

    /// Reads and checks the next buffer; `None`, with nothing changed, if that would have to wait
    /// and may not.
    fn read_checked(&mut self, may_wait: bool) -> Result<Option<Bytes>> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut chunk = self.buffer(left.min(TRANSFER_BUFFER_BYTES));
        if may_wait {
            self.content.read_exact(&mut chunk, self.at)?;
        } else if !self.content.read_cached(&mut chunk, self.at) {
            self.spare = chunk.freeze();
            return Ok(None);
        }
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
        let chunk = chunk.freeze();
        self.spare = chunk.clone();
        Ok(Some(chunk))
    }

    /// A buffer to read into, reused if possible: a new one must be cleared, which costs as much as
    /// reading into it.
    fn buffer(&mut self, length: usize) -> BytesMut {
        match mem::take(&mut self.spare).try_into_mut() {
            Ok(mut spare) if spare.len() >= length => {
                spare.truncate(length);
                spare
            }
            _ => BytesMut::zeroed(length),
        }
    }
}

/// Checks groups in order against the tree.
struct Groups {
    root: ContentHash,
    size: u64,
    tree: Tree,
    /// Size of a group, and the index of the group that is being read.
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

/// Opens a file if its path is in the kernel's cache (`RESOLVE_CACHED`, openat2(2)). `None` says
/// nothing about the file; kernels before 5.12 always give `None`.
fn open_cached(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok().map(File::from)
}

/// Whether the buffer could be filled from the page cache alone (`RWF_NOWAIT`, preadv2(2)).
pub fn read_cached(file: &File, buffer: &mut [u8], at: u64) -> bool {
    let length = buffer.len();
    let read = preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT);
    read.is_ok_and(|read| read == length)
}

#[async_trait]
impl Reader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let (read, has_waited) = match mem::replace(&mut self.0, Next::Failed) {
            Next::First(first, cursor) => ((first, cursor), false),
            Next::Idle(mut cursor) => match cursor.read(false) {
                Poll::Ready(chunk) => ((chunk?, cursor), false),
                Poll::Pending => (blocking(move || cursor.read_waiting()).await?, true),
            },
            Next::Ahead(reading) => (joined(reading.await)?, true),
            Next::Failed => return Err(Error::Io("the read failed before".into())),
        };
        let (chunk, cursor) = read;
        self.0 = if has_waited && !cursor.is_at_end() {
            Next::Ahead(spawn_blocking(move || cursor.read_waiting()))
        } else {
            Next::Idle(cursor)
        };
        Ok(chunk)
    }
}
