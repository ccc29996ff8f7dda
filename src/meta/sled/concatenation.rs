//! Concatenations in sled: for each final session the list of its partial sessions, and for each
//! partial session its final one.

use async_trait::async_trait;

use super::{SledMetadata, index, step, txn::Txn};
use crate::{
    meta::{Concatenations, Error, Part, Result},
    model::{
        id::UploadId,
        time::UnixMillis,
        upload::{Mode, Upload},
    },
};

#[async_trait]
impl Concatenations for SledMetadata {
    async fn create_final(
        &self,
        upload: Upload,
        partials: Vec<UploadId>,
        now: UnixMillis,
    ) -> Result<()> {
        self.committer.commit(move |txn| create_final(txn, &upload, &partials, now)).await
    }

    async fn partials(&self, id: UploadId) -> Result<Vec<UploadId>> {
        Ok(self.records.get(&index::concatenation(id))?.unwrap_or_default())
    }

    async fn final_of(&self, id: UploadId) -> Result<Option<UploadId>> {
        self.records.get(&index::final_of(id))
    }
}

fn create_final(
    txn: &mut Txn<'_>,
    upload: &Upload,
    partials: &[UploadId],
    now: UnixMillis,
) -> Result<()> {
    step::ensure_user(txn, &upload.owner, now)?;
    for id in partials {
        let partial = step::open_upload(txn, *id).map_err(|error| match error {
            Error::Closed => Error::NotFound,
            error => error,
        })?;
        if partial.owner != upload.owner || !partial.mode.is_partial() {
            return Err(Error::NotFound);
        }
        if txn.read(&index::final_of(*id))?.is_some() {
            return Err(Error::Exists);
        }
        txn.put(index::final_of(*id), &upload.id)?;
    }
    txn.put(index::concatenation(upload.id), &partials)?;
    step::begin_upload(txn, upload)
}

/// The partial sessions of a final session, which must be open; none for a session that is not
/// final.
pub fn partials(txn: &Txn<'_>, upload: &Upload) -> Result<Vec<Upload>> {
    if upload.mode != Mode::Final {
        return Ok(Vec::new());
    }
    let ids: Vec<UploadId> = txn.get(&index::concatenation(upload.id))?.unwrap_or_default();
    ids.into_iter().map(|id| step::open_upload(txn, id)).collect()
}

/// Removes a partial session whose final session ends, and returns its parts.
pub fn end_partial(txn: &mut Txn<'_>, partial: &Upload) -> Result<Vec<Part>> {
    txn.delete(index::final_of(partial.id));
    step::forget_upload(txn, partial)
}

/// Removes the links of a session that was aborted or has expired to other sessions.
pub fn unbind(txn: &mut Txn<'_>, upload: &Upload) -> Result<()> {
    if upload.mode.is_partial() {
        txn.delete(index::final_of(upload.id));
    }
    if upload.mode == Mode::Final {
        let ids: Vec<UploadId> = txn.get(&index::concatenation(upload.id))?.unwrap_or_default();
        for id in ids {
            if txn.get(&index::final_of(id))? == Some(upload.id) {
                txn.delete(index::final_of(id));
            }
        }
        txn.delete(index::concatenation(upload.id));
    }
    Ok(())
}
