//! Upkeep on sled: pages of scans, and the steps that move and mark blobs.

use async_trait::async_trait;

use super::{
    SledMetadata,
    codec::{self, StoredBlob},
    index,
    records::Records,
    runs::Entry,
    step,
    txn::Txn,
};
use crate::{
    meta::{
        BlobRecord, Error, Part, Result,
        upkeep::{ScrubPass, ScrubState, Upkeep},
    },
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
        time::UnixMillis,
    },
};

fn content(key: &[u8]) -> Result<ContentHash> {
    index::content(key).ok_or_else(|| Error::Corrupt("a blob's key".into()))
}

/// The record of a blob, if it names `locator`.
fn lying_at(txn: &Txn<'_>, hash: &ContentHash, locator: &Locator) -> Result<Option<StoredBlob>> {
    let stored = txn.get::<StoredBlob>(&index::blob(hash))?;
    Ok(stored.filter(|blob| blob.locator == *locator))
}

fn count_damaged(txn: &mut Txn<'_>, change: impl FnOnce(u64) -> u64) -> Result<()> {
    let count = txn.get::<u64>(index::DAMAGED_COUNT)?.unwrap_or(0);
    txn.put(index::DAMAGED_COUNT.to_vec(), &change(count))
}

/// Removes the damage mark of a blob, if there is one.
pub fn unmark(txn: &mut Txn<'_>, hash: &ContentHash) -> Result<bool> {
    let key = index::damaged(hash);
    if txn.read(&key)?.is_none() {
        return Ok(false);
    }
    txn.delete(key);
    count_damaged(txn, |count| count.saturating_sub(1))?;
    Ok(true)
}

fn mark(txn: &mut Txn<'_>, hash: &ContentHash, locator: &Locator, now: UnixMillis) -> Result<bool> {
    if lying_at(txn, hash, locator)?.is_none() {
        return Ok(false);
    }
    let key = index::damaged(hash);
    if txn.read(&key)?.is_none() {
        txn.put(key, &now)?;
        count_damaged(txn, |count| count.saturating_add(1))?;
    }
    Ok(true)
}

fn relocate(txn: &mut Txn<'_>, hash: &ContentHash, from: &Locator, to: &Locator) -> Result<bool> {
    let Some(blob) = lying_at(txn, hash, from)? else { return Ok(false) };
    txn.put(index::blob(hash), &StoredBlob { locator: to.clone(), ..blob })?;
    unmark(txn, hash)?;
    Ok(true)
}

fn save_scrub(txn: &mut Txn<'_>, pass: &ScrubPass) -> Result<()> {
    if pass.completed.is_none() {
        return txn.put(index::SCRUB_RUNNING.to_vec(), pass);
    }
    txn.delete(index::SCRUB_RUNNING.to_vec());
    txn.put(index::SCRUB_LAST.to_vec(), pass)
}

#[async_trait]
impl Upkeep for SledMetadata {
    async fn begun(&self, now: UnixMillis) -> Result<UnixMillis> {
        // No step where none is needed: a full disk takes none.
        if let Some(begun) = self.records.get(index::BEGUN)? {
            return Ok(begun);
        }
        let begin = move |txn: &mut Txn<'_>| match txn.get(index::BEGUN)? {
            Some(begun) => Ok(begun),
            None => txn.put(index::BEGUN.to_vec(), &now).map(|()| now),
        };
        self.committer.commit(begin).await
    }

    async fn probe(&self) -> Result<()> {
        let rewrite = |txn: &mut Txn<'_>| {
            if let Some(begun) = txn.read(index::BEGUN)? {
                txn.write(index::BEGUN.to_vec(), begun);
            }
            Ok(())
        };
        self.committer.commit(rewrite).await?;
        self.committer.settle().await
    }

    async fn parts_after(
        &self,
        after: Option<(UploadId, PartNumber)>,
        limit: usize,
    ) -> Result<Vec<((UploadId, PartNumber), Locator)>> {
        let after = after.map(|(id, number)| index::part(id, number));
        let scan = move |records: &Records| {
            let decode = |(key, value): Entry| {
                let part = step::part(&key, &value)?;
                let id = index::part_upload(&key);
                let id = id.ok_or_else(|| Error::Corrupt("a part's key".into()))?;
                Ok(((id, part.number), part.place))
            };
            records.page(index::PARTS, after.as_deref(), limit)?.into_iter().map(decode).collect()
        };
        self.scan(scan).await
    }

    async fn blobs_after(
        &self,
        after: Option<ContentHash>,
        limit: usize,
    ) -> Result<Vec<(ContentHash, BlobRecord)>> {
        let after = after.map(|hash| index::blob(&hash));
        let scan = move |records: &Records| {
            // Few blobs are marked: if none is, each blob need not be looked up.
            let any_damaged = records.scan_prefix(index::DAMAGED).next().is_some();
            let decode = |(key, value): Entry| {
                let hash = content(&key)?;
                let since = if any_damaged { records.get(&index::damaged(&hash))? } else { None };
                Ok((hash, codec::decode::<StoredBlob>(&value)?.into_record(since)))
            };
            records.page(index::BLOBS, after.as_deref(), limit)?.into_iter().map(decode).collect()
        };
        self.scan(scan).await
    }

    async fn relocate_blob(
        &self,
        hash: &ContentHash,
        from: &Locator,
        to: &Locator,
    ) -> Result<bool> {
        let (hash, from, to) = (*hash, from.clone(), to.clone());
        self.committer.commit(move |txn| relocate(txn, &hash, &from, &to)).await
    }

    async fn mark_damaged(
        &self,
        hash: &ContentHash,
        locator: &Locator,
        now: UnixMillis,
    ) -> Result<bool> {
        let (hash, locator) = (*hash, locator.clone());
        self.committer.commit(move |txn| mark(txn, &hash, &locator, now)).await
    }

    async fn unmark_damaged(&self, hash: &ContentHash, locator: &Locator) -> Result<bool> {
        let (hash, locator) = (*hash, locator.clone());
        let unmark_there = move |txn: &mut Txn<'_>| match lying_at(txn, &hash, &locator)? {
            Some(_) => unmark(txn, &hash),
            None => Ok(false),
        };
        self.committer.commit(unmark_there).await
    }

    async fn damaged_count(&self) -> Result<u64> {
        Ok(self.records.get(index::DAMAGED_COUNT)?.unwrap_or(0))
    }

    async fn forget_parts(&self, id: UploadId, parts: Vec<Part>) -> Result<Vec<Part>> {
        self.committer.release(move |txn| step::forget_parts(txn, id, &parts)).await
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.committer.check().await
    }

    async fn scrub_state(&self) -> Result<ScrubState> {
        Ok(ScrubState {
            running: self.records.get(index::SCRUB_RUNNING)?,
            last: self.records.get(index::SCRUB_LAST)?,
        })
    }

    async fn save_scrub(&self, pass: ScrubPass) -> Result<()> {
        self.committer.commit(move |txn| save_scrub(txn, &pass)).await
    }
}
