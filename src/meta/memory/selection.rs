//! Selections in the reference engine.

use async_trait::async_trait;

use super::MemoryMetadata;
use crate::{
    meta::{Result, Selection, Selections},
    model::{id::SelectionId, time::UnixMillis},
};

#[async_trait]
impl Selections for MemoryMetadata {
    async fn add_selection(&self, id: SelectionId, selection: Selection) -> Result<()> {
        self.step(|state| {
            state.selections.insert(id, selection);
            Ok(())
        })
    }

    async fn selection(&self, id: SelectionId) -> Result<Option<Selection>> {
        Ok(self.read().selections.get(&id).cloned())
    }

    async fn forget_selections(&self, now: UnixMillis, _: usize) -> Result<bool> {
        self.step(|state| {
            state.selections.retain(|id, _| id.expires > now);
            Ok(false)
        })
    }
}
