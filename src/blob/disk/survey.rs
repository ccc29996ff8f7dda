//! Compaction: finds the packs of which records name little or nothing.
//!
//! The pack with the highest number always stays. It is the only one that may be open for
//! appending, and a start continues counting from its number: if a number were given out twice, an
//! old locator would find other bytes.

use std::{collections::BTreeMap, fs, sync::Arc};

use async_trait::async_trait;

use super::{
    Inner,
    blocking::blocking,
    layout::{Packed, Place, changed},
    pack::{CONTENT_BYTES_MAX, HEADER_BYTES},
};
use crate::{
    blob::{
        Error, Result,
        upkeep::{Freed, Survey},
    },
    model::{digest::ContentHash, locator::Locator, time::UnixMillis},
};

/// What is known of a pack.
struct Surveyed {
    bytes: u64,
    named: u64,
    pinned: bool,
}

impl Surveyed {
    /// More than half of the pack is dead, and everything else in it may be moved.
    fn is_sparse(&self) -> bool {
        !self.pinned && self.named > 0 && self.named < self.bytes / 2
    }
}

/// See the module.
pub struct PackSurvey {
    store: Arc<Inner>,
    packs: BTreeMap<u32, Surveyed>,
}

/// Lists the closed packs that were last written between the two times; `None` if there are none.
/// Blocks.
pub fn survey(
    store: Arc<Inner>,
    after: UnixMillis,
    before: UnixMillis,
) -> Result<Option<PackSurvey>> {
    let mut found = store.layout.packs_found()?;
    // A new pack is begun only when the one before is closed, so only the last can be open.
    let last = found.iter().copied().max();
    found.retain(|number| Some(*number) != last);
    let mut packs = BTreeMap::new();
    for number in found {
        let metadata = fs::metadata(store.layout.pack(number))?;
        if (after..before).contains(&changed(&metadata)) {
            let bytes = metadata.len();
            packs.insert(number, Surveyed { bytes, named: 0, pinned: false });
        }
    }
    Ok((!packs.is_empty()).then_some(PackSurvey { store, packs }))
}

impl PackSurvey {
    fn pack_of(&mut self, locator: &Locator) -> Option<(&mut Surveyed, Packed)> {
        let packed = Place::parse(locator).ok()?.packed()?;
        Some((self.packs.get_mut(&packed.pack)?, packed))
    }
}

#[async_trait]
impl Survey for PackSurvey {
    fn keep(&mut self, locator: &Locator) {
        let Some((pack, packed)) = self.pack_of(locator) else { return };
        // An old locator without a length counts as the longest content.
        let length = packed.length.map_or(CONTENT_BYTES_MAX as u64, u64::from);
        pack.named += length + HEADER_BYTES as u64;
    }

    fn pin(&mut self, locator: &Locator) {
        self.keep(locator);
        if let Some((pack, _)) = self.pack_of(locator) {
            pack.pinned = true;
        }
    }

    async fn free_dead(&mut self) -> Result<Freed> {
        let mut freed = Freed::default();
        let dead = self.packs.iter().filter(|(_, pack)| pack.named == 0);
        for (number, bytes) in dead.map(|(number, pack)| (*number, pack.bytes)).collect::<Vec<_>>()
        {
            let store = Arc::clone(&self.store);
            blocking(move || store.packs.remove(number)).await?;
            self.packs.remove(&number);
            freed.packs += 1;
            freed.bytes += bytes;
        }
        Ok(freed)
    }

    fn has_sparse(&self) -> bool {
        self.packs.values().any(Surveyed::is_sparse)
    }

    fn is_sparse(&self, locator: &Locator) -> bool {
        let packed = Place::parse(locator).ok().and_then(|place| place.packed());
        packed.and_then(|packed| self.packs.get(&packed.pack)).is_some_and(Surveyed::is_sparse)
    }

    async fn copy(&self, hash: &ContentHash, locator: &Locator) -> Result<(u64, Locator)> {
        let packed = Place::parse(locator)?.packed().ok_or(Error::NotFound)?;
        let (store, hash) = (Arc::clone(&self.store), *hash);
        let content = blocking(move || store.packs.read_checked(packed, &hash)).await?;
        let bytes = content.len() as u64;
        let place = self.store.packer.append(hash, content).await?;
        Ok((bytes, place.locator()?))
    }
}
