//! Content that its owner has stored before: a client that proves to have it need not send it
//! again.
//!
//! The server picks ranges of the content that nobody can predict, as they follow from the id of
//! the new upload, which is random and used once. The proof is one hash over that id and the bytes
//! of the ranges. Only a file of the same user counts, and every refusal has the same words, so
//! that nothing is revealed about the files of others.

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
        file::FileRecord,
        grant::Action,
        id::UploadId,
        name::UserId,
        principal::Principal,
        range::Slice,
        time::UnixMillis,
        upload::Upload,
    },
};

const RANGES: u64 = 8;
const RANGE_BYTES: u64 = 32 << 10;
/// How long after init a proof is accepted.
const LIFE: Duration = Duration::from_mins(10);

/// What a client has to prove.
pub struct Challenge {
    pub ranges: Vec<Slice>,
    pub expires: UnixMillis,
}

/// The proof of a client that it has a content, which is named by one digest or by both.
pub struct Possession {
    pub blake3: Option<ContentHash>,
    pub sha256: Option<Sha256>,
    pub proof: Sha256,
}

impl App {
    /// The challenge for a new upload whose content its owner has already.
    pub(super) async fn challenge(
        &self,
        principal: &Principal,
        upload: &Upload,
        blake3: Option<ContentHash>,
    ) -> Result<Option<Challenge>> {
        let known = self.known_file(principal, &upload.owner, blake3, upload.sha256).await?;
        let known = known.filter(|file| file.size == upload.size && file.size > 0);
        let expires = self.clock.now().after(LIFE);
        let challenge = |file: FileRecord| Challenge {
            ranges: ranges(upload.id, &file.blake3, file.size),
            expires,
        };
        Ok(known.map(challenge))
    }

    /// The owner's file with this content, if the principal may read it. If both digests are given,
    /// both must match.
    async fn known_file(
        &self,
        principal: &Principal,
        owner: &UserId,
        blake3: Option<ContentHash>,
        sha256: Option<Sha256>,
    ) -> Result<Option<FileRecord>> {
        if !principal.may(Action::Read) {
            return Ok(None);
        }
        let file = match (blake3, sha256) {
            (Some(hash), _) => self.meta.file_with(owner, &hash).await?,
            (None, Some(sha256)) => self.meta.file_with_sha256(owner, &sha256).await?,
            (None, None) => None,
        };
        let file = file.filter(|file| principal.reaches(owner, &file.folder));
        Ok(file.filter(|file| sha256.is_none_or(|sha256| sha256 == file.sha256)))
    }

    /// The content whose possession was proven, where it lies.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub(super) async fn proven(
        &self,
        principal: &Principal,
        upload: &Upload,
        said: &Possession,
    ) -> Result<Sealed> {
        let file = self.known_file(principal, &upload.owner, said.blake3, said.sha256).await?;
        let begun = upload.expires.before(self.policy().upload_ttl);
        let in_time = self.clock.now() < begun.after(LIFE);
        let file = file.filter(|file| in_time && Some(file.size) == upload.declared());
        let file = file.ok_or_else(unproven)?;
        let blob = self.meta.blob(&file.blake3).await?.ok_or_else(unproven)?;
        let mut message = upload.id.to_string().into_bytes();
        for range in ranges(upload.id, &file.blake3, file.size) {
            let mut content = self.open_content(&file, range).await.map_err(|_| unproven())?;
            while let Some(bytes) = content.next().await.map_err(|_| unproven())? {
                message.extend_from_slice(&bytes);
            }
        }
        let hashed = spawn_blocking(move || digest(&SHA256, &message)).await?;
        verify_slices_are_equal(hashed.as_ref(), &said.proof.0).map_err(|_| unproven())?;
        let (size, blake3, sha256) = (file.size, file.blake3, file.sha256);
        Ok(Sealed { size, blake3, sha256, locator: blob.locator })
    }
}

fn unproven() -> Error {
    let detail = "The proof is wrong or came too late; send the content.";
    Error::conflict("content_unproven", detail)
}

/// The ranges to prove. A small content is proven as a whole.
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
