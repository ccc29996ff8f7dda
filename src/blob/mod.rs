//! SEAM 2: bytes, named by their BLAKE3 hash.
//!
//! The store knows no keys, users or file names, and not why bytes are wanted. Everything it hands
//! out is immutable and durable: a [`Sealed`] survives a power cut, and until its bytes are
//! discarded, its [`Locator`] finds exactly those bytes. [`disk`] is the store of one machine,
//! [`memory`] the reference implementation.

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
    /// The write queue is full; the caller may try again later.
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
    /// Whether the bytes are missing or differ from those that were stored.
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

/// What sealed bytes are for. The store uses it to find parts that no session knows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Part(UploadId, PartNumber),
    Blob,
}

/// Where a part belongs in the content that its upload becomes, and which parts are there already.
#[derive(Clone, Debug)]
pub struct Site {
    /// The range of the whole content that the part is expected to fill.
    pub span: Slice,
    /// The range that it fills instead if a part 0 is on its way as well.
    pub from_zero: Option<Slice>,
    /// Size of the whole content, once it is known.
    pub whole: Option<u64>,
    /// The recorded parts in order of their numbers, without the one that this part continues.
    pub parts: Vec<Address>,
    /// How many of `parts` come before this part with no number missing between them.
    pub leading: usize,
    /// The recorded part whose bytes this part begins with and which it will replace.
    pub continues: Option<Address>,
}

/// A part that has begun.
pub struct Begun {
    pub stage: Box<dyn Stage>,
    /// The lowest number among the upload's parts that are on their way, this one included.
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
    /// Begins to take bytes. Dropping the stage discards them.
    async fn stage(&self) -> Result<Box<dyn Stage>>;
    /// As [`BlobStore::stage`], for a part of an upload, which may be told where it belongs. The
    /// caller reads the upload's recorded parts after this call, and keeps the stage until its own
    /// part is recorded or given up. So no two parts ever take the same place.
    async fn stage_part(&self, upload: UploadId, number: PartNumber) -> Result<Begun>;
    /// Begins to make a blob of the parts of an upload. The caller reads the upload's recorded
    /// parts after this call: from here on, parts that arrive are written only where the blob is
    /// not.
    async fn join(&self, upload: UploadId) -> Result<Box<dyn Join>>;
    /// Opens bytes for reading. A whole blob is checked against its hash while it is read.
    async fn open(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>>;
    /// Opens the proof of a non-empty slice (see [`proof`]). Its length is [`proof::proof_bytes`].
    async fn prove(&self, blob: &Address, slice: Slice) -> Result<Box<dyn Reader>>;
    /// The CRC-32 of a blob, which archives carry. A large blob is not read for it.
    async fn crc32(&self, blob: &Address) -> Result<u32>;
    /// Whether the bytes at `locator` may be recorded as a blob. Those of a part may not, if their
    /// place goes away with the part's upload.
    fn holds_blob(&self, locator: &Locator) -> bool;
    /// Removes bytes that no record refers to; answers how many bytes of disk this freed at once. A
    /// locator of which nothing is stored is no error.
    async fn discard(&self, locator: &Locator) -> Result<u64>;
    /// Begins to free the space of a replaced part that lies among others, which
    /// [`BlobStore::discard`] cannot free; `None` for a part that lies elsewhere. The caller reads
    /// the upload's recorded parts after this call.
    async fn vacate(&self, part: &Locator) -> Result<Option<Box<dyn Vacate>>>;
    /// Removes what is left of an upload that is over: no record names a part of it any more.
    /// Answers as [`BlobStore::discard`] does.
    async fn end(&self, upload: UploadId) -> Result<u64>;
    /// The free space of the device and whether the store takes writes.
    async fn space(&self) -> Result<Space>;

    /// Reads a blob again at a limited pace and checks it; answers its length.
    ///
    /// # Errors
    /// An error with [`Error::is_damage`] when the blob is not what was stored; [`Error::Io`] when
    /// this could not be determined.
    async fn verify(&self, hash: &ContentHash, locator: &Locator, pace: &dyn Pace) -> Result<u64>;
    /// Whether the bytes of these blobs are there, as far as that can be told without reading them;
    /// in the same order. A blob that cannot be inspected does not fail the others.
    async fn look(&self, blobs: Vec<Locator>) -> Result<Vec<Seen>>;
    /// Everything on a shelf that lies under a name of its own. Whatever no record names is litter
    /// of a crash.
    async fn list(&self, shelf: Shelf) -> Result<Vec<Found>>;
    /// Copies all sealed bytes to another place, from which a store can be opened. Where an older
    /// version of a file lies there, the new version goes to the same path below `changed`; the
    /// caller moves it into place later. Until then, records that name the older files find them.
    async fn copy(&self, to: &Path, changed: &Path) -> Result<Copied>;
    /// Surveys the packs that were last written between the two times; `None` when there are no
    /// such packs, and so nothing can be freed.
    async fn survey(
        &self,
        after: UnixMillis,
        before: UnixMillis,
    ) -> Result<Option<Box<dyn Survey>>>;
    /// How many bytes were discarded since the start that only a survey can free.
    fn discarded_bytes(&self) -> u64;
}

/// Bytes on their way in. Memory use is bounded, whatever their number.
#[async_trait]
pub trait Stage: Send {
    /// Tells the stage where the bytes belong, before the first of them is written.
    fn place(&mut self, site: Site);
    /// Takes the next bytes. After an error the stage can only be dropped.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// Makes the bytes durable; the stage takes no more after that. A blob always gets a place of
    /// its own, whatever place the stage was told.
    async fn seal(&mut self, purpose: Purpose) -> Result<Sealed>;
}

/// Parts that are to become a blob. The parts stay until they are discarded; discarding them never
/// removes the blob's bytes.
#[async_trait]
pub trait Join: Send {
    /// Makes one blob of all parts. Parts that lie where they belong are not copied, and parts that
    /// were hashed in order are not read again; any part that is read is checked against its hash.
    /// Bytes of replaced parts are overwritten only if `may_overwrite`.
    async fn assemble(self: Box<Self>, parts: Vec<Address>, may_overwrite: bool) -> Result<Sealed>;
    /// Makes a blob of an upload's only part, without copying it.
    async fn promote(self: Box<Self>, part: &Address) -> Result<Locator>;
}

/// A place that a part has left, for instance because it was replaced.
#[async_trait]
pub trait Vacate: Send {
    /// Frees its space, unless one of `parts` or a part on its way lies there.
    async fn unless_taken(self: Box<Self>, parts: Vec<Address>) -> Result<()>;
}

/// Bytes on their way out.
#[async_trait]
pub trait Reader: Send {
    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] before the last bytes of a damaged blob: a whole blob that is read to its
    /// end is what was stored.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// Bytes that are held in memory as a whole, on their way out.
struct Held(Option<Bytes>);

#[async_trait]
impl Reader for Held {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

/// A reader of a slice of `bytes`.
fn held(bytes: &Bytes, slice: Slice) -> Box<dyn Reader> {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    Box::new(Held(Some(bytes.slice(at(slice.start)..at(slice.end)))))
}

/// Computes every digest of a stream.
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

    /// The hasher after `bytes` as well.
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

/// The digests of a stream.
pub struct Digests {
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub crc32: u32,
    pub tree: Tree,
}

impl Digests {
    /// The digests of everything that is left to read in `from`.
    ///
    /// # Errors
    /// When `from` cannot be read.
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
