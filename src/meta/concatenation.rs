//! Uploads that are made of others: a final session over partial ones, whose parts become its file
//! one behind the other.

use async_trait::async_trait;

use super::Result;
use crate::model::{id::UploadId, time::UnixMillis, upload::Upload};

/// See the module. The promises of [`super::Metadata`] hold here too. In
/// [`super::Metadata::record_files`] the revision of a final session is the sum of its own and
/// those of its partial ones, which end with it.
#[async_trait]
pub trait Concatenations: Send + Sync {
    /// Opens a final session over partial ones, all or nothing; makes its owner's record at `now`
    /// if there is none.
    ///
    /// # Errors
    /// [`super::Error::NotFound`] when one of them is not an open partial session of this owner;
    /// [`super::Error::Exists`] when one belongs to a final session, or comes twice.
    async fn create_final(
        &self,
        upload: Upload,
        partials: Vec<UploadId>,
        now: UnixMillis,
    ) -> Result<()>;
    /// What a final session is made of, in order, also when it has ended them; of others nothing.
    async fn partials(&self, id: UploadId) -> Result<Vec<UploadId>>;
    /// The open final session that a partial one belongs to.
    async fn final_of(&self, id: UploadId) -> Result<Option<UploadId>>;
}
