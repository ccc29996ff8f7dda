//! Compaction: frees the room of dead bytes in packs, by moving out the bytes that a record names.
//!
//! A pack is removed only when one walk over all parts and then all blobs found no record that
//! names bytes in it. Parts are walked first, so that a part that becomes a blob where it lies is
//! seen as one or the other. No step can add a name for a closed pack after the walk: steps that
//! sealed bytes before the pack closed were waited for, and new bytes go elsewhere. A pack that
//! holds parts of an open upload is left alone, so that what `complete` reads never moves.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{App, Result, gc::Collected};
use crate::{
    blob::{self, upkeep::Survey},
    metrics::stores,
    model::{digest::ContentHash, locator::Locator},
};

/// Records read at a time.
const PAGE: usize = 1000;
/// Blobs that are moved at a time. They share the syncs of packs and of commits. Each is held in
/// memory.
const MOVING_MAX: usize = 64;

impl App {
    /// Empties sparse packs, and removes packs that hold nothing.
    pub(super) async fn compact(self: &Arc<Self>, collected: &mut Collected) -> Result<()> {
        let _alone = self.upkeep.alone().await;
        let Some(mut survey) = self.survey().await? else { return Ok(()) };
        // First, because it makes room.
        self.free_dead(&mut *survey, collected).await?;
        if !survey.has_sparse() {
            return Ok(());
        }
        let moved = self.move_sparse(Arc::from(survey), collected).await;
        if collected.moved_bytes > 0 {
            // A second survey: what could not be moved is still named and keeps its pack.
            if let Some(mut survey) = self.survey().await? {
                self.free_dead(&mut *survey, collected).await?;
            }
        }
        moved
    }

    /// Finds which packed bytes a record names.
    async fn survey(&self) -> Result<Option<Box<dyn Survey>>> {
        let (after, before) = self.collectable().await?;
        let Some(mut survey) = self.blobs.survey(after, before).await? else { return Ok(None) };
        // Whatever was sealed into these packs has its record after this wait, or never will.
        self.settled().await?;
        let mut last = None;
        loop {
            let page = self.meta.parts_after(last, PAGE).await?;
            for (_, locator) in &page {
                survey.pin(locator);
            }
            let Some((key, _)) = page.last() else { break };
            last = Some(*key);
        }
        let mut last = None;
        loop {
            let page = self.meta.blobs_after(last, PAGE).await?;
            for (_, blob) in &page {
                match blob.damaged {
                    Some(_) => survey.pin(&blob.locator),
                    None => survey.keep(&blob.locator),
                }
            }
            let Some((hash, _)) = page.last() else { break };
            last = Some(*hash);
        }
        Ok(Some(survey))
    }

    async fn free_dead(&self, survey: &mut dyn Survey, collected: &mut Collected) -> Result<()> {
        // The next survey finds a dead pack again.
        let Some(_allowed) = self.removals.try_begin() else { return Ok(()) };
        let freed = survey.free_dead().await?;
        collected.packs += freed.packs;
        collected.freed_bytes += freed.bytes;
        Ok(())
    }

    /// Moves what is named in sparse packs. A blob that cannot be moved keeps its own pack alive
    /// and no other. A disk that takes no more writes ends the walk.
    async fn move_sparse(
        self: &Arc<Self>,
        survey: Arc<dyn Survey>,
        collected: &mut Collected,
    ) -> Result<()> {
        let mut last = None;
        loop {
            let page = self.meta.blobs_after(last, PAGE).await?;
            let Some((hash, _)) = page.last() else { return Ok(()) };
            last = Some(*hash);
            let healthy = page.into_iter().filter(|(_, blob)| blob.damaged.is_none());
            let moves =
                healthy.map(|(hash, blob)| self.move_blob(Arc::clone(&survey), hash, blob.locator));
            let mut moves = stream::iter(moves).buffer_unordered(MOVING_MAX);
            let mut failure = None;
            while let Some(moved) = moves.next().await {
                match moved {
                    Ok(bytes) => collected.moved_bytes += bytes,
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }

    /// Moves one blob if it lies in a sparse pack, and returns how many bytes were moved. Detached,
    /// like every step that seals bytes and then records them.
    async fn move_blob(
        self: &Arc<Self>,
        survey: Arc<dyn Survey>,
        hash: ContentHash,
        from: Locator,
    ) -> Result<u64> {
        if !survey.is_sparse(&from) {
            return Ok(0);
        }
        self.detached(|app| async move {
            match survey.copy(&hash, &from).await {
                Ok((bytes, to)) => {
                    // Refused when the blob was stored again meanwhile; then the copy is dead.
                    app.meta.relocate_blob(&hash, &from, &to).await?;
                    Ok(bytes)
                }
                Err(error) if error.is_damage() => {
                    if app.meta.mark_damaged(&hash, &from, app.clock.now()).await? {
                        stores::DAMAGE_FOUND.of("compact").add(1);
                        tracing::error!(blob = %hash, "damaged blob found by compaction");
                    }
                    Ok(0)
                }
                Err(error) => {
                    if !matches!(error, blob::Error::Io(_)) || !app.blobs.space().await?.writable {
                        return Err(error.into());
                    }
                    tracing::warn!(blob = %hash, %error, "a blob could not be moved");
                    Ok(0)
                }
            }
        })
        .await
    }
}
