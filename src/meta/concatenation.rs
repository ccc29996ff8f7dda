//! Uploads that are made of others: a final session over partial ones. The parts of the partial
//! sessions, one behind the other, become the file of the final session.

use async_trait::async_trait;

use super::Result;
use crate::model::{id::UploadId, time::UnixMillis, upload::Upload};

/// See the module. The promises of [`super::Metadata`] hold here too. For
/// [`super::Metadata::record_files`], the revision of a final session is the sum of its own
/// revision and those of its partial sessions, which end with it.
#[async_trait]
pub trait Concatenations: Send + Sync {
    /// Opens a final session over partial ones, all or nothing. Creates its owner's record, with
    /// the time `now`, if there is none.
    ///
    /// # Errors
    /// [`super::Error::NotFound`] when one of `partials` is not an open partial session of this
    /// owner; [`super::Error::Exists`] when one already belongs to a final session, or is given
    /// twice.
    async fn create_final(
        &self,
        upload: Upload,
        partials: Vec<UploadId>,
        now: UnixMillis,
    ) -> Result<()>;
    /// The partial sessions of a final session, in order, even after it has ended them; empty for
    /// any other session.
    async fn partials(&self, id: UploadId) -> Result<Vec<UploadId>>;
    /// The open final session that a partial session belongs to.
    async fn final_of(&self, id: UploadId) -> Result<Option<UploadId>>;
}
