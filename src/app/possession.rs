//! Content that its owner has stored before: who proves to know it need not send it again.
//!
//! The server picks ranges of it that nobody can foretell, as they follow from the id of the new
//! upload, which is random and used once. The proof is one hash over that id and the bytes of the
//! ranges. Only a file of the same user counts, and whatever is wrong is refused in the same words:
//! of what others have, nothing is told.

use std::time::Duration;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use tokio::task::spawn_blocking;

use super::{App, Error, Result};
use crate::{
    blob::Sealed,
    model::{
        digest::{ContentHash, Sha256},
        id::UploadId,
        name::UserId,
        range::Slice,
        time::UnixMillis,
        upload::Upload,
    },
};

const RANGES: u64 = 8;
const RANGE_BYTES: u64 = 32 << 10;
/// From init to the proof.
const LIFE: Duration = Duration::from_mins(10);

/// What is to be proven.
pub struct Challenge {
    pub ranges: Vec<Slice>,
    pub expires: UnixMillis,
}

/// What a client says to prove that it knows a content.
pub struct Possession {
    pub blake3: ContentHash,
    pub proof: Sha256,
}

impl App {
    /// What a new upload may prove in place of sending a content that its owner has.
    pub(super) async fn challenge(
        &self,
        owner: &UserId,
        id: UploadId,
        hash: &ContentHash,
        size: u64,
    ) -> Result<Option<Challenge>> {
        let known = self.meta.file_with(owner, hash).await?;
        if known.is_none_or(|file| file.size != size) {
            return Ok(None);
        }
        let expires = self.clock.now().after(LIFE);
        Ok(Some(Challenge { ranges: ranges(id, hash, size), expires }))
    }

    /// The content that was proven to be known, where it lies.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub(super) async fn proven(&self, upload: &Upload, said: &Possession) -> Result<Sealed> {
        let file = self.meta.file_with(&upload.owner, &said.blake3).await?;
        let begun = upload.expires.before(self.policy().upload_ttl);
        let in_time = self.clock.now() < begun.after(LIFE);
        let file = file.filter(|file| in_time && Some(file.size) == upload.declared());
        let blob = self.meta.blob(&said.blake3).await?;
        let (Some(file), Some(blob)) = (file, blob) else { return Err(unproven()) };
        let mut message = upload.id.to_string().into_bytes();
        for range in ranges(upload.id, &file.blake3, file.size) {
            let mut content = self.open_content(&file, range).await.map_err(|_| unproven())?;
            while let Some(bytes) = content.next().await.map_err(|_| unproven())? {
                message.extend_from_slice(&bytes);
            }
        }
        let hashed = spawn_blocking(move || digest(&SHA256, &message)).await;
        let hashed = hashed.map_err(|error| Error::Internal(error.to_string()))?;
        verify_slices_are_equal(hashed.as_ref(), &said.proof.0).map_err(|_| unproven())?;
        let (size, blake3, sha256) = (file.size, file.blake3, file.sha256);
        Ok(Sealed { size, blake3, sha256, locator: blob.locator })
    }
}

fn unproven() -> Error {
    let detail = "The proof does not hold, or came too late; send the content.";
    Error::conflict("content_unproven", detail)
}

/// Of a small content it is all of it.
fn ranges(id: UploadId, hash: &ContentHash, size: u64) -> Vec<Slice> {
    if size <= RANGES * RANGE_BYTES {
        return vec![Slice::whole(size)];
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).update(&hash.0);
    let mut random = hasher.finalize_xof();
    let range = |_| {
        let mut number = [0; 8];
        random.fill(&mut number);
        let start = u64::from_le_bytes(number) % (size - RANGE_BYTES + 1);
        Slice { start, end: start + RANGE_BYTES }
    };
    (0..RANGES).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_in_the_content_and_differ_from_upload_to_upload() {
        let hash = ContentHash([1; 32]);
        for size in [1, RANGES * RANGE_BYTES, RANGES * RANGE_BYTES + 1, 5 << 30] {
            let first = ranges(UploadId([1; 16]), &hash, size);
            assert!(first.iter().all(|range| range.start < range.end && range.end <= size));
            assert!(first.iter().map(Slice::len).sum::<u64>() <= RANGES * RANGE_BYTES);
            let second = ranges(UploadId([2; 16]), &hash, size);
            assert_eq!(first == second, size <= RANGES * RANGE_BYTES, "{size}");
        }
    }
}
