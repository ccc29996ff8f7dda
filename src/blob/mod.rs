//! SEAM 2: bytes, named by their BLAKE3 hash.
//!
//! The store knows no key, user or file name, and not why bytes are wanted. What it hands out is
//! immutable and durable: a [`Sealed`] survives a power cut, and its [`Locator`] finds those
//! bytes, and never others, until they are discarded. [`disk`] is the store of one machine,
//! [`memory`] the reference.

pub mod disk;
pub mod memory;
pub mod proof;
pub mod tree;
pub mod upkeep;

use std::{
    io::{self, Read},
    path::Path,
};

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use self::{
    tree::{Tree, TreeHasher},
    upkeep::{Copied, Found, Pace, Seen, Shelf, Survey},
};
use crate::{
    model::{
        digest::{ContentHash, Sha256},
        id::{PartNumber, UploadId},
        limits::TRANSFER_BUFFER_BYTES,
        locator::Locator,
        range::Slice,
        time::UnixMillis,
    },
    sys::durable::is_full,
};

/// Why bytes were not stored or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no such bytes")]
    NotFound,
    #[error("no space left")]
    NoSpace,
    /// More waits than the queue takes; try again later.
    #[error("the write queue is full")]
    Busy,
    /// The bytes are not those that were stored.
    #[error("damaged blob: {0}")]
    Corrupt(String),
    #[error("{0}")]
    Io(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the bytes are not those that were stored, or are not there.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::NotFound)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            _ if is_full(&error) => Self::NoSpace,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// What sealed bytes are for. Parts that no session knows any more can be told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Part(UploadId, PartNumber),
    Blob,
}

/// Where a part belongs in the content that its upload becomes, and what is there already.
#[derive(Clone, Debug)]
pub struct Site {
    /// The bytes of the whole that it may be.
    pub span: Slice,
    /// Those that it is instead, should a part 0 be on its way as well.
    pub from_zero: Option<Slice>,
    /// Bytes of the whole, once that is known.
    pub whole: Option<u64>,
    /// The parts that are recorded, in order of their numbers, but the very one that this one
    /// continues.
    pub parts: Vec<Address>,
    /// How many of them come before it and lack none between them.
    pub leading: usize,
    /// The part whose bytes come first in this one, which takes its place. It is recorded.
    pub continues: Option<Address>,
}

/// A part that begins.
pub struct Begun {
    pub stage: Box<dyn Stage>,
    /// The lowest number of the upload's parts that are on their way, this one's among them.
    pub lowest: PartNumber,
}

/// Durable bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub locator: Locator,
}

/// What identifies bytes to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub blake3: ContentHash,
    pub size: u64,
    pub locator: Locator,
}

/// Room on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    /// Whether the store takes writes.
    pub writable: bool,
}

#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Begins to take bytes. Dropping the stage forgets them.
    async fn stage(&self) -> Result<Box<dyn Stage>>;
    /// As [`BlobStore::stage`], for a part of an upload that may be told where it belongs. Which
    /// parts there are is read from the records after this, and the stage is dropped when its own
    /// part is recorded: so no two parts ever take the same place.
    async fn stage_part(&self, upload: UploadId, number: PartNumber) -> Result<Begun>;
    /// Begins to make a blob of the parts of an upload. Which parts there are is read from the
    /// records after this: what comes from here on lies where nothing is written.
    async fn join(&self, upload: UploadId) -> Result<Box<dyn Join>>;
    /// Opens bytes for reading. A whole blob is checked against its hash on the way.
    async fn open(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>>;
    /// Opens the proof of a slice that is not empty, see [`proof`], which has
    /// [`proof::proof_bytes`] bytes.
    async fn prove(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>>;
    /// The CRC-32 of a blob, without reading a large one: for an archive, whose reader checks it.
    async fn crc32(&self, blob: &Address) -> Result<u32>;
    /// Whether what lies there may be recorded as a blob: not so a part, whose place goes with its
    /// upload.
    fn holds_blob(&self, locator: &Locator) -> bool;
    /// Lets bytes go that nothing refers to; answers how many of the disk came back at once.
    /// Unknown ones are fine.
    async fn discard(&self, locator: &Locator) -> Result<u64>;
    /// Begins to give back the room of a part that was replaced and lies among others, which
    /// [`BlobStore::discard`] cannot; `None` for what lies elsewhere. Which parts there are is read
    /// from the records after this.
    async fn vacate(&self, part: &Locator) -> Result<Option<Box<dyn Vacate>>>;
    /// Lets go what is left of an upload that is over: no record names a part of it any more.
    /// Answers as [`BlobStore::discard`] does.
    async fn end(&self, upload: UploadId) -> Result<u64>;
    /// What the device has left and whether writes are taken.
    async fn space(&self) -> Result<Space>;

    /// Reads a blob again and checks it, at a pace; answers its length.
    ///
    /// # Errors
    /// One that [`Error::is_damage`] when it is not what was stored; [`Error::Io`] when that cannot
    /// be told.
    async fn verify(&self, hash: &ContentHash, locator: &Locator, pace: &dyn Pace) -> Result<u64>;
    /// Whether the bytes of these blobs are there, as far as that shows without reading them; in
    /// the same order. One that cannot be looked at keeps none of the others.
    async fn look(&self, blobs: Vec<Locator>) -> Result<Vec<Seen>>;
    /// What lies on a shelf under a name of its own: what no record names is litter of a crash.
    async fn list(&self, shelf: Shelf) -> Result<Vec<Found>>;
    /// Copies everything that is sealed to another place, from where a store can be opened. Where
    /// an older file lies there, the new one goes to the same path below `changed`, to be put in
    /// its place: till then, whatever names the older ones finds them.
    async fn copy(&self, to: &Path, changed: &Path) -> Result<Copied>;
    /// Looks at the packs that were written last between the two times; `None` where there are
    /// none, and so nothing could be had back.
    async fn survey(
        &self,
        after: UnixMillis,
        before: UnixMillis,
    ) -> Result<Option<Box<dyn Survey>>>;
    /// Bytes discarded since the start that only a survey can give back.
    fn discarded_bytes(&self) -> u64;
}

/// Bytes on their way in. Memory stays bounded at any size.
#[async_trait]
pub trait Stage: Send {
    /// Says where the bytes belong, before the first of them.
    fn place(&mut self, site: Site);
    /// Takes the next bytes. After an error the stage is good for nothing but to be dropped.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// Makes the bytes durable. The stage takes no more of them then. A blob lies in a place of its
    /// own, whatever the stage was told of another.
    async fn seal(&mut self, purpose: Purpose) -> Result<Sealed>;
}

/// Parts that are to become a blob. They stay until they are discarded, and that never takes the
/// blob's bytes away.
#[async_trait]
pub trait Join: Send {
    /// Makes a blob of all parts. Those that lie where they belong are not copied, and those that
    /// were hashed in order not read again; what is read is checked against its hash. Bytes of
    /// parts that were replaced are written over where `may_overwrite`.
    async fn assemble(self: Box<Self>, parts: Vec<Address>, may_overwrite: bool) -> Result<Sealed>;
    /// Makes a blob of the only part, without copying.
    async fn promote(self: Box<Self>, part: &Address) -> Result<Locator>;
}

/// A place that a part has left.
#[async_trait]
pub trait Vacate: Send {
    /// Gives its room back, unless one of these parts lies there, or one on its way.
    async fn unless_taken(self: Box<Self>, parts: Vec<Address>) -> Result<()>;
}

/// Bytes on their way out.
#[async_trait]
pub trait Reader: Send {
    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] before the last bytes of a damaged blob, so that a whole one that ends
    /// well is what was stored.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// Bytes that are held as a whole, on their way out.
struct Held(Option<Bytes>);

#[async_trait]
impl Reader for Held {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

/// Gives out a slice of bytes that are held.
fn held(bytes: &Bytes, slice: Slice) -> Box<dyn Reader> {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    Box::new(Held(Some(bytes.slice(at(slice.start)..at(slice.end)))))
}

/// Every digest of a stream.
#[derive(Clone)]
pub struct Hasher {
    blake3: TreeHasher,
    sha256: Context,
    crc32: crc32fast::Hasher,
    size: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            blake3: TreeHasher::default(),
            sha256: Context::new(&SHA256),
            crc32: crc32fast::Hasher::new(),
            size: 0,
        }
    }
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.crc32.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The same of more bytes.
    #[must_use]
    pub fn and(mut self, bytes: &[u8]) -> Self {
        self.update(bytes);
        self
    }

    pub fn finish(self) -> Digests {
        let (blake3, tree) = self.blake3.finish();
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.finish().as_ref());
        let crc32 = self.crc32.finalize();
        Digests { size: self.size, blake3, sha256: Sha256(sha256), crc32, tree }
    }
}

/// What was learned of a stream.
pub struct Digests {
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub crc32: u32,
    pub tree: Tree,
}

impl Digests {
    /// Of all that is left to read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(mut from: impl Read) -> io::Result<Self> {
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; TRANSFER_BUFFER_BYTES]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The same bytes, now durable at `locator`.
    pub fn sealed(&self, locator: Locator) -> Sealed {
        let Self { size, blake3, sha256, .. } = *self;
        Sealed { size, blake3, sha256, locator }
    }
}
