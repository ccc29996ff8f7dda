//! Compaction: frees the room of dead bytes in packs, by moving out those that a record names.
//!
//! A pack is removed only when one walk over all parts and then all blobs found no record that
//! names bytes in it. Parts come first: a part that becomes a blob where it lies is then seen as
//! one or as the other. No step can bring a name for a closed pack after the walk: what was sealed
//! before it closed was waited for, and new bytes go elsewhere. A pack that holds parts of an open
//! upload is left alone, so that what `complete` reads never moves.

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
/// Blobs on the move at a time: they share the syncs of packs and of commits. Each is held in
/// memory.
const MOVING_MAX: usize = 64;

impl App {
    /// Empties packs that hold little, and removes those that hold nothing.
    pub(super) async fn compact(self: &Arc<Self>, collected: &mut Collected) -> Result<()> {
        let _alone = self.upkeep.alone().await;
        let Some(mut survey) = self.survey().await? else { return Ok(()) };
        // First, as it makes room.
        self.free_dead(&mut *survey, collected).await?;
        if !survey.has_sparse() {
            return Ok(());
        }
        let moved = self.move_sparse(Arc::from(survey), collected).await;
        if collected.moved_bytes > 0 {
            // A fresh look: what could not be moved is named there still and keeps its pack.
            if let Some(mut survey) = self.survey().await? {
                self.free_dead(&mut *survey, collected).await?;
            }
        }
        moved
    }

    /// Which packed bytes a record names.
    async fn survey(&self) -> Result<Option<Box<dyn Survey>>> {
        let (after, before) = self.collectable().await?;
        let Some(mut survey) = self.blobs.survey(after, before).await? else { return Ok(None) };
        // What was sealed into these packs has its record by now, or never will.
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
        // A dead pack is found again.
        let Some(_allowed) = self.removals.try_begin() else { return Ok(()) };
        let freed = survey.free_dead().await?;
        collected.packs += freed.packs;
        collected.freed_bytes += freed.bytes;
        Ok(())
    }

    /// Moves what is named in sparse packs. A blob that cannot be moved keeps its pack, nothing
    /// else; a disk that takes no more ends the walk.
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

    /// Moves one blob when it lies in a sparse pack, and answers its bytes. Detached like every
    /// step that seals bytes and then records them.
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
                    // Refused when the blob was stored again meanwhile: then the copy is dead.
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
