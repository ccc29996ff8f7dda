//! What batch tokens stand for: files that are fetched together.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::model::{
    id::{FileId, SelectionId},
    name::{Folder, UserId},
    time::UnixMillis,
};

/// The files that a batch token stands for. Stored exactly as declared here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    Files(Vec<FileId>),
    /// All files in a folder and beneath it.
    Folder {
        owner: UserId,
        folder: Folder,
    },
}

/// See the module. The promises of [`super::Metadata`] hold here too.
#[async_trait]
pub trait Selections: Send + Sync {
    /// Stores a selection until the expiry time that its id holds.
    async fn add_selection(&self, id: SelectionId, selection: Selection) -> Result<()>;
    async fn selection(&self, id: SelectionId) -> Result<Option<Selection>>;
    /// Removes selections that expired by `now`, at most `limit` of their records, and returns
    /// whether there may be more.
    async fn forget_selections(&self, now: UnixMillis, limit: usize) -> Result<bool>;
}
