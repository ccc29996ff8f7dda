//! Assemblies: files in which the large parts of an upload lie where they belong in the whole, so
//! that the whole becomes a blob without a copy. This module holds what is known of them while the
//! daemon runs; which bytes in them count is told by the records of the parts.
//!
//! A part may be written only over bytes that no record names, or may soon name. Whoever begins a
//! part *enters* the assembly first and then reads from the index what records name. Bytes that may
//! be named soon are those that were sealed since somebody entered: they stay taken until nobody is
//! inside. An assembly of which a blob is made is closed to everybody before the caller reads which
//! parts the blob consists of; it opens again when that blob is discarded.

use std::{
    collections::HashMap,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate};

use super::{Inner, layout::Place, running::Running};
use crate::{
    blob::{Address, Result, Site},
    model::{
        id::{PartNumber, UploadId},
        range::Slice,
    },
    sys::durable,
};

/// The most memory that the running digests of all assemblies take. Past it, the least recently
/// used digests are dropped, and their upload is read again when it is completed.
const RUNNING_BYTES_MAX: usize = 8 << 20;

/// Every assembly of which more is known than the records of its parts say.
#[derive(Default)]
pub struct Assemblies(Mutex<Known>);

#[derive(Default)]
struct Known {
    uploads: HashMap<UploadId, Assembly>,
    /// Counts uses of digests, to find the least recently used.
    uses: u64,
}

#[derive(Default)]
struct Assembly {
    /// How many members are inside, and the lowest number of the parts that they bring.
    entered: usize,
    lowest: Option<PartNumber>,
    writing: Vec<Slice>,
    /// Ranges that were sealed since the last moment at which nobody was inside.
    sealed: Vec<Slice>,
    /// Whether the file's name is durable.
    is_named: bool,
    /// The nonce of the blob that is made of this assembly; `None` while it is open.
    closed: Option<u64>,
    running: Option<Kept>,
}

struct Kept {
    running: Arc<Mutex<Running>>,
    bytes: usize,
    used: u64,
}

impl Assembly {
    fn is_forgettable(&self) -> bool {
        self.entered == 0 && self.closed.is_none() && self.running.is_none()
    }

    fn takes(&self, span: Slice) -> bool {
        let mut taken = self.writing.iter().chain(&self.sealed);
        self.closed.is_none() && !taken.any(|taken| taken.overlaps(span))
    }
}

impl Assemblies {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes an assembly to make a blob of it; `None` if anybody is inside or it is closed
    /// already.
    pub fn close(store: &Arc<Inner>, upload: UploadId, nonce: u64) -> Option<Closed> {
        let mut known = store.assemblies.known();
        let assembly = known.uploads.entry(upload).or_default();
        if assembly.entered > 0 || assembly.closed.is_some() {
            return None;
        }
        assembly.closed = Some(nonce);
        Some(Closed { store: Arc::clone(store), nonce, is_blob: false })
    }

    /// Opens the assembly of which the blob with this nonce was made, if there is one: no record
    /// will name that blob, so parts may be written there again.
    pub fn open_again(&self, nonce: u64) {
        self.known().uploads.retain(|_, assembly| {
            assembly.closed.take_if(|closed| *closed == nonce);
            !assembly.is_forgettable()
        });
    }

    pub fn forget(&self, upload: UploadId) {
        self.known().uploads.remove(&upload);
    }

    /// The digests of the parts so far, if they are kept.
    pub fn running(&self, upload: UploadId) -> Option<Arc<Mutex<Running>>> {
        let mut known = self.known();
        known.uses += 1;
        let used = known.uses;
        let kept = known.uploads.get_mut(&upload)?.running.as_mut()?;
        kept.used = used;
        Some(Arc::clone(&kept.running))
    }

    /// Keeps digests, unless the kept ones cover as many bytes or more.
    fn keep(&self, upload: UploadId, running: Running) {
        let mut known = self.known();
        known.uses += 1;
        let (used, bytes) = (known.uses, running.memory_bytes());
        let Some(assembly) = known.uploads.get_mut(&upload) else { return };
        match &mut assembly.running {
            Some(kept) => {
                // If the lock is held, its holder is advancing these digests.
                if let Ok(mut before) = kept.running.try_lock()
                    && running.bytes() > before.bytes()
                {
                    *before = running;
                }
                (kept.used, kept.bytes) = (used, bytes);
            }
            empty => {
                *empty = Some(Kept { running: Arc::new(Mutex::new(running)), bytes, used });
            }
        }
        known.forget_oldest();
    }
}

impl Known {
    fn forget_oldest(&mut self) {
        let kept = |assembly: &Assembly| assembly.running.as_ref().map_or(0, |kept| kept.bytes);
        let mut bytes: usize = self.uploads.values().map(kept).sum();
        while bytes > RUNNING_BYTES_MAX {
            let of = self.uploads.iter_mut();
            let used = |(_, assembly): &(_, &mut Assembly)| {
                assembly.running.as_ref().map_or(u64::MAX, |kept| kept.used)
            };
            let Some((_, oldest)) = of.min_by_key(used) else { break };
            bytes -= kept(oldest).max(1);
            oldest.running = None;
        }
        self.uploads.retain(|_, assembly| !assembly.is_forgettable());
    }
}

/// An assembly of which a blob is being made. If this is dropped before [`Closed::keep`], the
/// assembly is open again.
pub struct Closed {
    store: Arc<Inner>,
    pub nonce: u64,
    is_blob: bool,
}

impl Closed {
    /// The blob is made: nothing is written to the assembly any more, unless the blob is discarded.
    pub fn keep(mut self) {
        self.is_blob = true;
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if !self.is_blob {
            self.store.assemblies.open_again(self.nonce);
        }
    }
}

/// Where in an assembly a part lies, if it lies in one.
fn assembled(part: &Address) -> Option<Slice> {
    match Place::parse(&part.locator) {
        Ok(Place::Assembled { offset, size, .. }) => {
            Some(Slice { start: offset, end: offset.saturating_add(size) })
        }
        _ => None,
    }
}

/// Whether a part lies in an assembly and begins at `start` there.
pub fn begins_at(part: &Address, start: u64) -> bool {
    assembled(part).is_some_and(|taken| taken.start == start)
}

/// Somebody inside an assembly: one who brings a part, until its record is committed, or one who
/// frees the space of a part.
pub struct Member {
    store: Arc<Inner>,
    upload: UploadId,
}

impl Member {
    /// Enters the assembly; answers the lowest number of the parts that are on their way.
    pub fn enter(store: &Arc<Inner>, upload: UploadId, number: PartNumber) -> (Self, PartNumber) {
        let mut known = store.assemblies.known();
        let assembly = known.uploads.entry(upload).or_default();
        assembly.entered += 1;
        let lowest = assembly.lowest.map_or(number, |lowest| lowest.min(number));
        assembly.lowest = Some(lowest);
        (Self { store: Arc::clone(store), upload }, lowest)
    }

    /// As [`Member::enter`], for a member that brings no part.
    pub fn visit(store: &Arc<Inner>, upload: UploadId) -> Self {
        store.assemblies.known().uploads.entry(upload).or_default().entered += 1;
        Self { store: Arc::clone(store), upload }
    }

    /// Takes a place for a part if it is free.
    pub fn take(self: &Arc<Self>, site: &Site, span: Slice) -> Option<Berth> {
        // The continued part is overwritten only where it lies; anywhere else its bytes count as
        // taken.
        let continued = site.continues.as_ref().filter(|part| !begins_at(part, span.start));
        self.take_among(site.parts.iter().chain(continued), span)
    }

    /// Takes a place if none of `parts`, the recorded ones, lies there, and nothing else took it.
    pub fn take_among<'a>(
        self: &Arc<Self>,
        mut parts: impl Iterator<Item = &'a Address>,
        span: Slice,
    ) -> Option<Berth> {
        let lies_there = |part| assembled(part).is_some_and(|taken| taken.overlaps(span));
        if span.is_empty() || parts.any(lies_there) {
            return None;
        }
        let mut known = self.store.assemblies.known();
        let assembly = known.uploads.get_mut(&self.upload).filter(|known| known.takes(span))?;
        assembly.writing.push(span);
        Some(Berth { member: Arc::clone(self), span })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut known = self.store.assemblies.known();
        let Some(assembly) = known.uploads.get_mut(&self.upload) else { return };
        assembly.entered = assembly.entered.saturating_sub(1);
        if assembly.entered == 0 {
            assembly.lowest = None;
            assembly.sealed.clear();
            if assembly.is_forgettable() {
                known.uploads.remove(&self.upload);
            }
        }
    }
}

/// A place in an assembly. It belongs to its member alone until the part is recorded.
pub struct Berth {
    member: Arc<Member>,
    pub span: Slice,
}

impl Berth {
    pub fn upload(&self) -> UploadId {
        self.member.upload
    }

    /// The other place of a part on its way, if numbers have turned out to count from 0 since it
    /// began and the place where it belongs then is free.
    pub fn counted_from_zero(&self, site: &Site) -> Option<Self> {
        let Member { store, upload } = &*self.member;
        let lowest = store.assemblies.known().uploads.get(upload)?.lowest;
        let span = site.from_zero.filter(|_| lowest == Some(PartNumber(0)))?;
        self.member.take(site, span)
    }

    /// Opens the assembly's file, creating it if needed, and makes its name durable. Blocks.
    pub fn open(&self) -> Result<File> {
        let Member { store, upload } = &*self.member;
        let path = store.layout.assembly(*upload);
        let file = durable::open_or_create(&path)?;
        let is_named = store.assemblies.known().uploads.get(upload).is_some_and(|it| it.is_named);
        if !is_named {
            store.sync_parent(&path)?;
            self.named();
        }
        Ok(file)
    }

    /// Records that the file's name is durable.
    pub fn named(&self) {
        let mut known = self.member.store.assemblies.known();
        if let Some(assembly) = known.uploads.get_mut(&self.member.upload) {
            assembly.is_named = true;
        }
    }

    /// Records that the bytes written here are durable. `running` are digests of everything up to
    /// their end.
    pub fn seal(self, size: u64, running: Option<Running>) {
        let Member { store, upload } = &*self.member;
        let mut known = store.assemblies.known();
        if let Some(assembly) = known.uploads.get_mut(upload) {
            // Adjacent ranges are joined, so that the list stays short.
            let mut sealed = Slice { start: self.span.start, end: self.span.start + size };
            assembly.sealed.retain(|other| {
                let apart = other.end < sealed.start || sealed.end < other.start;
                if !apart {
                    sealed.start = sealed.start.min(other.start);
                    sealed.end = sealed.end.max(other.end);
                }
                apart
            });
            assembly.sealed.push(sealed);
        }
        drop(known);
        if let Some(running) = running {
            store.assemblies.keep(*upload, running);
        }
    }

    /// Frees the space of `bytes` bytes from `first` on within the place, which no record will
    /// name. Blocks.
    pub fn empty(&self, file: &File, first: u64, bytes: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(file, flags, self.span.start + first, bytes) {
            let error = io::Error::from(error);
            tracing::debug!(%error, "the space of an incomplete part was not freed");
        }
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut known = self.member.store.assemblies.known();
        if let Some(assembly) = known.uploads.get_mut(&self.member.upload)
            && let Some(at) = assembly.writing.iter().position(|span| *span == self.span)
        {
            assembly.writing.swap_remove(at);
        }
    }
}
