//! Assemblies: files in which large parts of an upload lie where they belong in the whole, so that
//! it becomes a blob without a copy. This is what is known of them while the daemon runs; what
//! they hold is named by the records of the parts.
//!
//! A part may be written only where nothing lies that a record names, or may name soon. What
//! records name is read from the index by whoever begins a part, who *enters* the assembly before
//! that. What may be named soon is what was sealed since somebody entered: it stays taken until
//! nobody is inside. An assembly of which a blob is made is closed
//! to everybody from before its first byte is settled; it opens again when that blob is discarded.

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

/// Running digests of all assemblies take this much memory at most; who was not heard of the
/// longest loses its own, and is read again when it is completed.
const RUNNING_BYTES_MAX: usize = 8 << 20;

/// Every assembly of which more is known than its parts' records say.
#[derive(Default)]
pub struct Assemblies(Mutex<Known>);

#[derive(Default)]
struct Known {
    uploads: HashMap<UploadId, Assembly>,
    /// Counts uses, to tell which is the oldest.
    uses: u64,
}

#[derive(Default)]
struct Assembly {
    /// Parts on their way, and their lowest number.
    entered: usize,
    lowest: Option<PartNumber>,
    writing: Vec<Slice>,
    /// Sealed since there was a time when nobody was in.
    sealed: Vec<Slice>,
    /// The file's name is durable.
    is_named: bool,
    /// The nonce of the blob that is made of it.
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

    /// Closes an assembly to make a blob of it; `None` while somebody is at work there.
    pub fn close(store: &Arc<Inner>, upload: UploadId, nonce: u64) -> Option<Closed> {
        let mut known = store.assemblies.known();
        let assembly = known.uploads.entry(upload).or_default();
        if assembly.entered > 0 || assembly.closed.is_some() {
            return None;
        }
        assembly.closed = Some(nonce);
        Some(Closed { store: Arc::clone(store), nonce, is_blob: false })
    }

    /// The blob with this nonce will be no record's: if it was made of an assembly, parts may be
    /// written there again.
    pub fn open_again(&self, nonce: u64) {
        self.known().uploads.retain(|_, assembly| {
            assembly.closed.take_if(|closed| *closed == nonce);
            !assembly.is_forgettable()
        });
    }

    pub fn forget(&self, upload: UploadId) {
        self.known().uploads.remove(&upload);
    }

    /// The digests of what came so far, if they are kept.
    pub fn running(&self, upload: UploadId) -> Option<Arc<Mutex<Running>>> {
        let mut known = self.known();
        known.uses += 1;
        let used = known.uses;
        let kept = known.uploads.get_mut(&upload)?.running.as_mut()?;
        kept.used = used;
        Some(Arc::clone(&kept.running))
    }

    /// Keeps digests, unless those that are kept are of more.
    fn keep(&self, upload: UploadId, running: Running) {
        let mut known = self.known();
        known.uses += 1;
        let (used, bytes) = (known.uses, running.memory_bytes());
        let Some(assembly) = known.uploads.get_mut(&upload) else { return };
        match &mut assembly.running {
            Some(kept) => {
                // Whoever holds them is going on with them.
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

/// An assembly of which a blob is being made. Dropped before that is done, it is open again.
pub struct Closed {
    store: Arc<Inner>,
    pub nonce: u64,
    is_blob: bool,
}

impl Closed {
    /// The blob is there: nothing is written to it, unless it is discarded.
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

/// Where in the assembly a part lies, if it lies there.
fn assembled(part: &Address) -> Option<Slice> {
    match Place::parse(&part.locator) {
        Ok(Place::Assembled { offset, size, .. }) => {
            Some(Slice { start: offset, end: offset.saturating_add(size) })
        }
        _ => None,
    }
}

/// Whether a part lies in the assembly from there on.
pub fn begins_at(part: &Address, start: u64) -> bool {
    assembled(part).is_some_and(|taken| taken.start == start)
}

/// Somebody who begins a part, until its record is there, or gives the room of one back.
pub struct Member {
    store: Arc<Inner>,
    upload: UploadId,
}

impl Member {
    /// Enters, and answers the lowest number of the parts on their way.
    pub fn enter(store: &Arc<Inner>, upload: UploadId, number: PartNumber) -> (Self, PartNumber) {
        let mut known = store.assemblies.known();
        let assembly = known.uploads.entry(upload).or_default();
        assembly.entered += 1;
        let lowest = assembly.lowest.map_or(number, |lowest| lowest.min(number));
        assembly.lowest = Some(lowest);
        (Self { store: Arc::clone(store), upload }, lowest)
    }

    /// As [`Member::enter`], for one that brings no part.
    pub fn visit(store: &Arc<Inner>, upload: UploadId) -> Self {
        store.assemblies.known().uploads.entry(upload).or_default().entered += 1;
        Self { store: Arc::clone(store), upload }
    }

    /// Takes a place for a part, when it is free.
    pub fn take(self: &Arc<Self>, site: &Site, span: Slice) -> Option<Berth> {
        // The part that is continued is written over where it lies, and nowhere else.
        let continued = site.continues.as_ref().filter(|part| !begins_at(part, span.start));
        self.take_among(site.parts.iter().chain(continued), span)
    }

    /// Takes a place where none of the recorded parts lies.
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

/// The place of a part in an assembly, nobody else's until its record is there.
pub struct Berth {
    member: Arc<Member>,
    pub span: Slice,
}

impl Berth {
    pub fn upload(&self) -> UploadId {
        self.member.upload
    }

    /// The place of a part that is on its way, when numbers turned out to count from 0 since it
    /// began, and the one where it belongs then is free.
    pub fn counted_from_zero(&self, site: &Site) -> Option<Self> {
        let Member { store, upload } = &*self.member;
        let lowest = store.assemblies.known().uploads.get(upload)?.lowest;
        let span = site.from_zero.filter(|_| lowest == Some(PartNumber(0)))?;
        self.member.take(site, span)
    }

    /// Opens the file, and makes it if it is not there, under a durable name. Blocks.
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

    /// The file's name is durable.
    pub fn named(&self) {
        let mut known = self.member.store.assemblies.known();
        if let Some(assembly) = known.uploads.get_mut(&self.member.upload) {
            assembly.is_named = true;
        }
    }

    /// What was written there is durable; `running` are digests of everything up to its end.
    pub fn seal(self, size: u64, running: Option<Running>) {
        let Member { store, upload } = &*self.member;
        let mut known = store.assemblies.known();
        if let Some(assembly) = known.uploads.get_mut(upload) {
            // Neighbours become one, so that there are few of them.
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

    /// Gives back the room of bytes that nobody will name, which lie there from `first` on. Blocks.
    pub fn empty(&self, file: &File, first: u64, bytes: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(file, flags, self.span.start + first, bytes) {
            let error = io::Error::from(error);
            tracing::debug!(%error, "bytes of half a part keep their room");
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
