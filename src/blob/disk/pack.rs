//! Packs: append-only files in which many small blobs share one sync.
//!
//! A file, a rename and two syncs for each small blob would limit a disk to a few thousand uploads
//! a second. Instead, one thread takes all blobs that wait, writes them one behind the other with
//! one `pwrite`, syncs once and answers all callers.
//!
//! A record is a header of 48 bytes (magic, length, BLAKE3 of the content, the first eight bytes of
//! the BLAKE3 of the preceding 40) and the content. A pack is filled with zeros some way ahead of
//! its end: a sync of bytes that already have their place on the disk needs no journal commit of
//! the file system and takes about half the time (`docs/DESIGN.md`).
//!
//! Every process begins a new pack. It never writes to the packs of an earlier process, whatever
//! those hold behind their last record.

use std::{
    collections::HashMap,
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Health,
    layout::{Layout, Packed, Place},
    read::read_cached,
    verify::forget_cached,
};
use crate::{
    blob::{Error, Result},
    metrics::{Counted, stores},
    model::digest::ContentHash,
    sys::{durable, fault},
};

const MAGIC: &[u8; 4] = b"slb1";
pub const HEADER_BYTES: usize = 48;
/// Largest content of a record; the configuration allows no larger ones.
pub const CONTENT_BYTES_MAX: usize = 128 << 10;
/// A pack is closed before it gets longer than this.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// How far ahead of its end a pack is filled with zeros.
const ZEROS_AHEAD_BYTES: usize = 4 << 20;
/// The largest group behind which zeros are written. For larger groups the sync takes the time
/// anyway, and zeros would only be written over soon.
const ZEROS_FOR_GROUPS_TO_BYTES: usize = 512 << 10;
/// The most blobs that share one sync, and the bytes at which a group is closed.
const GROUP_BLOBS_MAX: usize = 512;
const GROUP_BYTES_MAX: usize = 8 << 20;
/// The most blobs that wait; past it: [`Error::Busy`].
const WAITING_BLOBS_MAX: usize = 4096;
/// Size of a page. The page cache drops whole pages only.
const PAGE_BYTES: u64 = 4096;
/// The most packs that are held open for reading.
const OPEN_PACKS_MAX: usize = 256;

struct Append {
    hash: ContentHash,
    content: Bytes,
    answer: oneshot::Sender<Result<Place>>,
    waiting: Counted,
}

/// Handle of the appending thread.
pub struct Packer {
    appends: Option<SyncSender<Append>>,
    thread: Option<JoinHandle<()>>,
}

impl Packer {
    pub fn start(layout: Layout, health: Arc<Health>, closed_at_bytes: u64) -> io::Result<Self> {
        let last = layout.packs_found()?.into_iter().max().unwrap_or(0);
        let next = last.checked_add(1);
        let next = next.ok_or_else(|| io::Error::other("pack numbers are used up"))?;
        let (appends, waiting) = sync_channel(WAITING_BLOBS_MAX);
        let writer = Writer { layout, health, next, closed_at_bytes, open: None };
        let thread = std::thread::Builder::new()
            .name("blob-pack".into())
            .spawn(move || writer.run(&waiting))?;
        Ok(Self { appends: Some(appends), thread: Some(thread) })
    }

    /// Appends one blob and answers when it is durable.
    pub async fn append(&self, hash: ContentHash, content: Bytes) -> Result<Place> {
        let stopped = || Error::Io("the pack writer has stopped".into());
        let (answer, answered) = oneshot::channel();
        let append = Append { hash, content, answer, waiting: stores::PACKS_WAITING.count() };
        match self.appends.as_ref().ok_or_else(stopped)?.try_send(append) {
            Ok(()) => answered.await.map_err(|_| stopped())?,
            Err(TrySendError::Full(_)) => Err(Error::Busy),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take() {
            // The thread reports failures to its callers itself and does not panic.
            let _ = thread.join();
        }
    }
}

struct OpenPack {
    number: u32,
    file: File,
    end: u64,
    zeros_until: u64,
}

struct Writer {
    layout: Layout,
    health: Arc<Health>,
    next: u32,
    closed_at_bytes: u64,
    open: Option<OpenPack>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Append>) {
        while let Ok(first) = waiting.recv() {
            let mut group = vec![first];
            let mut bytes = group[0].content.len();
            while group.len() < GROUP_BLOBS_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(next) = waiting.try_recv() else { break };
                bytes += next.content.len();
                group.push(next);
            }
            let sync = stores::SYNC_SECONDS.of("pack");
            let outcome = sync.time(|| self.append(&group));
            stores::PACK_BLOBS.observe(group.len() as u64);
            for (at, append) in group.into_iter().enumerate() {
                let place = outcome.as_ref().map(|places| places[at]).map_err(Clone::clone);
                // The bytes of a caller that is gone are left as litter.
                drop(append.waiting);
                let _ = append.answer.send(place);
            }
        }
        if let Some(pack) = self.open.take()
            && let Err(error) = pack.file.set_len(pack.end)
        {
            tracing::debug!(%error, "the unused end of the last pack was not cut off");
        }
    }

    /// Writes a group and syncs it. The pack's end moves only after the sync; what a failed write
    /// left behind the end is cut off. After a failed sync the content of the file is unknown, and
    /// the next group begins a new pack.
    fn append(&mut self, group: &[Append]) -> Result<Vec<Place>> {
        self.health.check()?;
        let mut buffer = Vec::new();
        let mut offsets = Vec::with_capacity(group.len());
        for append in group {
            offsets.push(buffer.len() as u64);
            buffer.extend_from_slice(&header(&append.hash, stored_length(&append.content)));
            buffer.extend_from_slice(&append.content);
        }
        let health = Arc::clone(&self.health);
        let pack = self.pack_with_room(buffer.len() as u64)?;
        let (start, end) = (pack.end, pack.end + buffer.len() as u64);
        if let Err(error) = pack.file.write_all_at(&buffer, start) {
            if pack.file.set_len(start).is_ok() {
                pack.zeros_until = start;
            }
            return Err(error.into());
        }
        if end > pack.zeros_until && buffer.len() <= ZEROS_FOR_GROUPS_TO_BYTES {
            // The zeros only make later syncs cheaper; a disk without room for them still takes the
            // blobs.
            match pack.file.write_all_at(&vec![0; ZEROS_AHEAD_BYTES], end) {
                Ok(()) => pack.zeros_until = end + ZEROS_AHEAD_BYTES as u64,
                Err(error) => tracing::debug!(%error, "no space was allocated ahead in the pack"),
            }
        }
        let number = pack.number;
        fault::point("pack: written");
        if let Err(error) = health.synced(pack.file.sync_data()) {
            self.open = None;
            return Err(error);
        }
        fault::point("pack: durable");
        pack.end = end;
        let place = |(append, offset): (&Append, &u64)| Place::Record {
            pack: number,
            offset: start + offset,
            length: stored_length(&append.content),
        };
        Ok(group.iter().zip(&offsets).map(place).collect())
    }

    fn pack_with_room(&mut self, bytes: u64) -> Result<&mut OpenPack> {
        let limit = self.closed_at_bytes;
        let full = |pack: &OpenPack| pack.end > 0 && pack.end + bytes > limit;
        if let Some(pack) = self.open.take_if(|pack| full(pack)) {
            // The zeros behind the end are no longer of use.
            pack.file.set_len(pack.end)?;
        }
        match &mut self.open {
            Some(pack) => Ok(pack),
            empty => {
                let number = self.next;
                let file = durable::create_new(&self.layout.pack(number))?;
                self.next = number.saturating_add(1);
                self.health.synced(durable::sync_dir(&self.layout.packs()))?;
                Ok(empty.insert(OpenPack { number, file, end: 0, zeros_until: 0 }))
            }
        }
    }
}

/// The length of a packed content, which is at most [`CONTENT_BYTES_MAX`].
fn stored_length(content: &Bytes) -> u32 {
    u32::try_from(content.len()).unwrap_or(u32::MAX)
}

fn header(hash: &ContentHash, length: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..40].copy_from_slice(&hash.0);
    let check = blake3::hash(&header[..40]);
    header[40..].copy_from_slice(&check.as_bytes()[..8]);
    header
}

/// Packs open for reading.
pub struct Packs {
    layout: Layout,
    open: Mutex<HashMap<u32, Arc<File>>>,
}

impl Packs {
    pub fn new(layout: Layout) -> Self {
        Self { layout, open: Mutex::default() }
    }

    /// Reads a whole blob. Blocks. The caller checks the content against its hash.
    pub fn read(&self, packed: Packed, size: u64) -> Result<Bytes> {
        let Packed { pack, offset, .. } = packed;
        let mut content = vec![0; content_length(size)?];
        match self.file(pack)?.read_exact_at(&mut content, content_offset(offset)) {
            Ok(()) => Ok(content.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Corrupt(format!("pack {pack} ends before its record")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Packs::read`], but only when it need not wait: from an open pack and the page cache.
    /// `None` says nothing about the blob.
    pub fn read_without_waiting(&self, packed: Packed, size: u64) -> Option<Bytes> {
        let file = self.held(packed.pack)?;
        let mut content = vec![0; content_length(size).ok()?];
        read_cached(&file, &mut content, content_offset(packed.offset)).then(|| content.into())
    }

    /// Reads the header and the content of a record, and checks both against each other, the hash
    /// and the length in the locator. Blocks.
    pub fn read_checked(&self, packed: Packed, hash: &ContentHash) -> Result<Bytes> {
        let damaged = || Error::Corrupt(hash.to_string());
        let file = self.file(packed.pack)?;
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => error.into(),
        };
        let mut stored = [0; HEADER_BYTES];
        file.read_exact_at(&mut stored, packed.offset).map_err(cut)?;
        let length = u32::from_le_bytes([stored[4], stored[5], stored[6], stored[7]]);
        let is_known = packed.length.is_none_or(|known| known == length);
        if stored != header(hash, length) || !is_known || length as usize > CONTENT_BYTES_MAX {
            return Err(damaged());
        }
        let mut content = vec![0; length as usize];
        file.read_exact_at(&mut content, content_offset(packed.offset)).map_err(cut)?;
        if blake3::hash(&content) != hash.0 {
            return Err(damaged());
        }
        Ok(content.into())
    }

    /// Drops a record from the page cache. Blocks.
    pub fn forget_cached(&self, packed: Packed) -> Result<()> {
        // Only whole pages are dropped, so the range is extended to whole pages.
        let from = packed.offset - packed.offset % PAGE_BYTES;
        let length = packed.length.map_or(CONTENT_BYTES_MAX as u64, u64::from);
        let end = content_offset(packed.offset).saturating_add(length);
        let whole = (end - from).next_multiple_of(PAGE_BYTES);
        forget_cached(&*self.file(packed.pack)?, from, NonZeroU64::new(whole))
    }

    /// Removes a pack. Blocks.
    pub fn remove(&self, pack: u32) -> Result<()> {
        durable::remove_file(&self.layout.pack(pack))?;
        self.close(pack);
        Ok(())
    }

    fn close(&self, pack: u32) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&pack);
    }

    fn held(&self, pack: u32) -> Option<Arc<File>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&pack).map(Arc::clone)
    }

    fn file(&self, pack: u32) -> Result<Arc<File>> {
        if let Some(file) = self.held(pack) {
            return Ok(file);
        }
        let path = self.layout.pack(pack);
        let file = Arc::new(File::open(&path)?);
        let mut packs = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if packs.len() == OPEN_PACKS_MAX {
            packs.clear();
        }
        packs.insert(pack, Arc::clone(&file));
        drop(packs);
        // A pack that was removed since it was opened would keep its space as long as it is held.
        if !path.exists() {
            self.close(pack);
        }
        Ok(file)
    }
}

fn content_length(size: u64) -> Result<usize> {
    let length = usize::try_from(size).ok().filter(|length| *length <= CONTENT_BYTES_MAX);
    length.ok_or_else(|| Error::Corrupt("a packed blob's size".into()))
}

/// Where the content of the record at `offset` begins.
fn content_offset(offset: u64) -> u64 {
    offset.saturating_add(HEADER_BYTES as u64)
}
