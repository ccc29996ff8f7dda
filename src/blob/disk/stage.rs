//! Bytes on their way in: small contents stay in memory and go into a pack, larger ones into a file
//! (`spill`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Inner, assembly::Member, blocking::blocking, placed::Whereabouts, spill::Spill};
use crate::blob::{Hasher, Purpose, Result, Sealed, Site, Stage};

/// A part waits for its place only if the upload has at most this many parts: each part that waits
/// holds what is known of all of them for as long as its client takes.
const WAITS_AMONG_PARTS_MAX: usize = 64;
/// Contents up to this size are hashed on the caller's thread; larger ones on the blocking pool.
pub const HASH_INLINE_BYTES_MAX: usize = 16 << 10;

/// See the module.
pub struct DiskStage {
    store: Arc<Inner>,
    bytes: Arriving,
    /// Set for a part; it keeps the part's place taken until the part is recorded.
    member: Option<Arc<Member>>,
    whereabouts: Option<Whereabouts>,
    /// The site of a part whose place is not free yet. The place may be free when the part outgrows
    /// memory and needs it. This happens at the beginning of an upload whose numbers turn out to
    /// count from 0.
    waits_for: Option<Site>,
}

enum Arriving {
    Small(BytesMut),
    Large(Spill),
}

impl DiskStage {
    pub fn new(store: Arc<Inner>, member: Option<Member>) -> Self {
        let bytes = Arriving::Small(BytesMut::new());
        Self { store, bytes, member: member.map(Arc::new), whereabouts: None, waits_for: None }
    }

    fn take(&self, site: &Site) -> Option<Whereabouts> {
        Whereabouts::take(&self.store, self.member.as_ref()?, site)
    }
}

#[async_trait]
impl Stage for DiskStage {
    fn place(&mut self, site: Site) {
        self.whereabouts = self.take(&site);
        let waits = self.whereabouts.is_none() && site.parts.len() <= WAITS_AMONG_PARTS_MAX;
        self.waits_for = waits.then_some(site);
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.bytes {
            Arriving::Small(held) if held.len() + bytes.len() <= self.store.pack_bytes_max => {
                held.extend_from_slice(&bytes);
                Ok(())
            }
            Arriving::Small(held) => {
                let held = std::mem::take(held).freeze();
                let waited = self.waits_for.take().and_then(|site| self.take(&site));
                let mut spill = Spill::begin(&self.store, self.whereabouts.take().or(waited))?;
                spill.write(held).await?;
                let outcome = spill.write(bytes).await;
                self.bytes = Arriving::Large(spill);
                outcome
            }
            Arriving::Large(spill) => spill.write(bytes).await,
        }
    }

    async fn seal(&mut self, purpose: Purpose) -> Result<Sealed> {
        match std::mem::replace(&mut self.bytes, Arriving::Small(BytesMut::new())) {
            Arriving::Small(content) => seal_small(&self.store, content.freeze()).await,
            Arriving::Large(spill) => spill.seal(purpose).await,
        }
    }
}

/// Packs bytes that are held in memory.
pub async fn seal_small(store: &Inner, content: Bytes) -> Result<Sealed> {
    let digests = {
        let content = content.clone();
        move || Hasher::default().and(&content).finish()
    };
    let digests = if content.len() <= HASH_INLINE_BYTES_MAX {
        digests()
    } else {
        blocking(move || Ok(digests())).await?
    };
    let place = store.packer.append(digests.blake3, content).await?;
    Ok(digests.sealed(place.locator()?))
}
