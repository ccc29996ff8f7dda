//! What batch tokens stand for: files that are fetched together.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::model::{
    id::{FileId, SelectionId},
    name::{Folder, UserId},
    time::UnixMillis,
};

/// Files that somebody chose. Is stored as it stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    Files(Vec<FileId>),
    /// Whatever lies in a folder and beneath it.
    Folder {
        owner: UserId,
        folder: Folder,
    },
}

/// See the module. The promises of [`super::Metadata`] hold here too.
#[async_trait]
pub trait Selections: Send + Sync {
    /// Keeps a selection until its id says that its time is over.
    async fn add_selection(&self, id: SelectionId, selection: Selection) -> Result<()>;
    async fn selection(&self, id: SelectionId) -> Result<Option<Selection>>;
    /// Forgets what expired by `now`, at most `limit` records of it, and answers whether there
    /// may be more.
    async fn forget_selections(&self, now: UnixMillis, limit: usize) -> Result<bool>;
}
