//! A part on its way into its place in the assembly of its upload.
//!
//! As with any part, its bytes are durable before its record names them; only the sync of a file
//! name that is durable already is left out. If the running digests cover everything before the
//! part, they advance with it; otherwise they catch up later.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    sync::Arc,
};

use super::{
    Inner,
    assembly::{Berth, Member, begins_at},
    blocking::off_the_reactor,
    content::copy_range,
    layout::Place,
    running::{self, Links, Running},
    spill::OwnFile,
};
use crate::{
    blob::{Address, Digests, Hasher, Result, Sealed, Site},
    sys::{fault, random},
};

/// The place of a part, and what is known of everything before it.
pub struct Whereabouts {
    berth: Berth,
    /// The site as it was when the part began, as long as the part may turn out to belong
    /// elsewhere.
    unsure: Option<Site>,
    /// Whether the part is expected to be the whole content.
    pub is_whole: bool,
    /// How many bytes at its beginning another record names.
    known_bytes: u64,
    before: usize,
    links: Box<Links>,
    /// Digests of what lies before the part, and possibly of its known bytes too.
    running: Option<Hasher>,
}

impl Whereabouts {
    /// Takes the place; `None` if it is not free. Digests that lag behind the recorded parts are
    /// made to catch up.
    pub fn take(store: &Arc<Inner>, member: &Arc<Member>, site: &Site) -> Option<Self> {
        let berth = member.take(site, site.span)?;
        let before = &site.parts[..site.leading.min(site.parts.len())];
        let links = Box::new(Links::of(before));
        let mut running = None;
        if let Some(kept) = store.assemblies.running(berth.upload()) {
            let (mut lags, bytes) = (false, before.iter().map(|part| part.size).sum::<u64>());
            // If the lock is held, its holder is advancing the digests.
            if let Ok(digests) = kept.try_lock() {
                let continues = site.continues.as_ref();
                let are_of_all = digests.are_of(before.len(), links.chain())
                    || continues.is_some_and(|part| {
                        digests.are_of(before.len() + 1, links.clone().then(part).chain())
                    });
                running = (are_of_all && bytes == berth.span.start).then(|| digests.hasher.clone());
                lags = !are_of_all && digests.rest(before).is_some();
            }
            if lags {
                running::catch_up(Arc::clone(store), kept, before.to_vec());
            }
        }
        // A continued part that lies elsewhere stays there; no record names its bytes here.
        let continued = site.continues.as_ref().filter(|part| begins_at(part, berth.span.start));
        Some(Self {
            is_whole: berth.span.start == 0 && site.whole == Some(berth.span.end),
            unsure: site.from_zero.map(|_| site.clone()),
            berth,
            known_bytes: continued.map_or(0, |part| part.size),
            before: before.len(),
            links,
            running,
        })
    }

    /// The place where the part belongs if a part 0 has begun since, which could not be known
    /// before.
    fn recounted(&mut self, written: u64) -> Option<Berth> {
        let berth = self.berth.counted_from_zero(self.unsure.as_ref()?)?;
        (written <= berth.span.len()).then(|| {
            (self.unsure, self.running) = (None, None);
            berth
        })
    }

    /// Whether `bytes` bytes do not fill the place.
    pub fn is_less(&self, bytes: u64) -> bool {
        bytes < self.berth.span.len()
    }

    /// Makes the assembly of a file that holds the first part; `None` if there is an assembly
    /// already. Blocks.
    pub fn begin_assembly(
        self,
        store: &Inner,
        own: &OwnFile,
        hasher: &Hasher,
    ) -> Result<Option<Sealed>> {
        store.sync(&own.file)?;
        let path = store.layout.assembly(self.berth.upload());
        match fs::hard_link(own.path(), &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            linked => linked?,
        }
        fault::point("assembly: named");
        store.sync_parent(&path)?;
        self.berth.named();
        self.sealed(hasher.clone()).map(Some)
    }

    /// The part once its bytes are durable.
    fn sealed(self, hasher: Hasher) -> Result<Sealed> {
        let Self { berth, before, links, running, .. } = self;
        let start = berth.span.start;
        let first = (start == 0).then(|| hasher.clone());
        let digests: Digests = hasher.finish();
        let (upload, size, nonce) = (berth.upload(), digests.size, random::nonce());
        let locator = Place::Assembled { upload, offset: start, size, nonce }.locator()?;
        let sealed = digests.sealed(locator);
        let part =
            Address { blake3: sealed.blake3, size: sealed.size, locator: sealed.locator.clone() };
        let running = first.or(running).filter(|running| running.size == start + size);
        let running =
            running.map(|hasher| Running::new(hasher, before + 1, links.then(&part).chain()));
        berth.seal(size, running);
        Ok(sealed)
    }
}

/// A part that is written into an assembly. Dropped unsealed, it frees the space of its bytes.
pub struct Placed {
    file: Arc<File>,
    part: Option<Whereabouts>,
    written: u64,
}

impl Placed {
    /// Opens the assembly for a part. Blocks.
    pub fn open(part: Whereabouts) -> Result<Self> {
        Ok(Self { file: Arc::new(part.berth.open()?), part: Some(part), written: 0 })
    }

    /// If the part turned out to belong elsewhere, moves what was written there. The place that it
    /// leaves is free, because no record names it. Blocks.
    pub fn recount(&mut self) -> Result<()> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let Some(berth) = part.recounted(self.written) else { return Ok(()) };
        let file = berth.open()?;
        copy_range(&self.file, part.berth.span.start, &file, berth.span.start, self.written)?;
        (self.file, part.berth) = (Arc::new(file), berth);
        Ok(())
    }

    /// How many bytes fit into the place.
    pub fn room(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.berth.span.len())
    }

    /// Writes the next bytes. Bytes that another record names are overwritten with the same ones.
    /// Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let at = part.berth.span.start + self.written;
        self.file.write_all_at(bytes, at)?;
        if let Some(running) = &mut part.running {
            let hashed = running.size.saturating_sub(at);
            let hashed = usize::try_from(hashed).unwrap_or(usize::MAX).min(bytes.len());
            running.update(&bytes[hashed..]);
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// The offset in the file at which the part begins.
    pub fn start(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.berth.span.start)
    }

    /// Copies what was written to a file of its own. Blocks.
    pub fn copy_out(&self, store: &Inner) -> Result<OwnFile> {
        let own = OwnFile::create(store)?;
        copy_range(&self.file, self.start(), &own.file, 0, self.written)?;
        Ok(own)
    }

    /// Makes what was written durable. Blocks.
    pub fn seal(mut self, store: &Inner, hasher: Hasher) -> Result<Sealed> {
        self.recount()?;
        fault::point("assembly: written");
        store.sync(&self.file)?;
        fault::point("assembly: durable");
        match self.part.take() {
            Some(part) => part.sealed(hasher),
            None => Err(io::Error::other("sealed twice").into()),
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else { return };
        let (file, known) = (Arc::clone(&self.file), part.known_bytes);
        if let Some(bytes) = self.written.checked_sub(known).filter(|bytes| *bytes > 0) {
            off_the_reactor(move || part.berth.empty(&file, known, bytes));
        }
    }
}
