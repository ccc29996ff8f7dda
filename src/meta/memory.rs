//! The reference engine: the rules of the seam, written simply enough to be checked by eye.
//!
//! It is not durable, and it scans everything. Tests compare the other engines with it.

mod accounts;
mod concatenation;
mod selection;
mod upkeep;

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    AppendTo, Asker, Batch, BlobRecord, Declared, Error, Expired, Exported, Metadata, NewFile,
    Part, Recorded, Removal, Result, Selection, UserRecord,
    accounts::{Holder, ServiceToken, TokenUse},
    upkeep::ScrubState,
};
use crate::model::{
    digest::{ContentHash, Sha256},
    file::{FileRecord, Totals},
    id::{FileId, PartNumber, SelectionId, TokenId, UploadId},
    key::FileKey,
    locator::Locator,
    name::{Folder, UserId},
    time::UnixMillis,
    upload::{Upload, UploadState},
};

#[derive(Clone, Default)]
struct State {
    users: BTreeMap<UserId, UserRecord>,
    tokens: BTreeMap<TokenId, ServiceToken>,
    uses: BTreeMap<TokenId, TokenUse>,
    /// By the holder, printed with `Debug`.
    valid_from: BTreeMap<String, u64>,
    uploads: BTreeMap<UploadId, Upload>,
    parts: BTreeMap<(UploadId, PartNumber), Part>,
    batches: BTreeMap<UploadId, Batch>,
    concatenations: BTreeMap<UploadId, Vec<UploadId>>,
    files: BTreeMap<FileId, FileRecord>,
    blobs: BTreeMap<ContentHash, BlobRecord>,
    unreferenced: BTreeMap<ContentHash, UnixMillis>,
    selections: BTreeMap<SelectionId, Selection>,
    scrub: ScrubState,
    begun: Option<UnixMillis>,
}

/// See the module.
#[derive(Default)]
pub struct MemoryMetadata(Mutex<State>);

impl MemoryMetadata {
    fn read(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a step, all or nothing: it works on a copy, which replaces the state if the step
    /// succeeds.
    fn step<T>(&self, step: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.read();
        let mut next = state.clone();
        let answer = step(&mut next)?;
        *state = next;
        Ok(answer)
    }
}

impl State {
    fn totals(&self, owner: &UserId, folder: &Folder) -> Totals {
        let mut totals = Totals::default();
        for file in self.files.values().filter(|file| is_within(file, owner, folder)) {
            totals.files += 1;
            totals.bytes += file.size;
        }
        totals
    }

    /// Checks that `asked` bytes, on top of those that are used or reserved now, fit the quota of
    /// `owner`.
    fn check_quota(&self, owner: &UserId, asked: u64, default: u64) -> Result<()> {
        let stored = self.totals(owner, &Folder::default()).bytes;
        let user = self.users.get(owner).ok_or(Error::NotFound)?;
        user.check_quota(stored, asked, default)
    }

    fn user(&mut self, id: &UserId, now: UnixMillis) -> &mut UserRecord {
        self.users.entry(id.clone()).or_insert_with(|| UserRecord::new(id.clone(), now))
    }

    /// Creates the record of a user for whom something is about to be stored, if there is none, and
    /// checks that `by` may act for that user.
    fn owner(&mut self, id: &UserId, by: Asker, now: UnixMillis) -> Result<()> {
        let first = self.valid_from(Holder::User(id));
        let is_disabled = self.user(id, now).disabled;
        match by {
            Asker::Owner { issued } if is_disabled || issued < first => Err(Error::LoggedOut),
            _ => Ok(()),
        }
    }

    fn reserved_changes(&mut self, owner: &UserId, before: u64, after: u64) {
        if let Some(user) = self.users.get_mut(owner) {
            user.reserved = user.reserved + after - before;
        }
    }

    fn open_upload(&self, id: UploadId) -> Result<Upload> {
        let upload = self.uploads.get(&id).cloned().ok_or(Error::NotFound)?;
        if upload.state == UploadState::Open { Ok(upload) } else { Err(Error::Closed) }
    }

    /// Changes the reservation of a session from `before` bytes to what it reserves now, if that
    /// fits the quota.
    fn reserve(&mut self, upload: &Upload, before: u64, default_quota: u64) -> Result<()> {
        let growth = upload.reserved().saturating_sub(before);
        self.check_quota(&upload.owner, growth, default_quota)?;
        self.reserved_changes(&upload.owner, before, upload.reserved());
        Ok(())
    }

    fn record_part(
        &mut self,
        id: UploadId,
        part: Part,
        to: Option<AppendTo>,
        expires: UnixMillis,
        default_quota: u64,
    ) -> Result<Option<Part>> {
        let mut upload = self.open_upload(id)?;
        if to.is_some_and(|to| to.revision != upload.revision) {
            return Err(Error::Changed);
        }
        let before = upload.reserved();
        if let Some(declared) = to.and_then(|to| to.declares) {
            declared.set(&mut upload)?;
        }
        upload.received += part.size;
        let replaced = self.parts.insert((id, part.number), part);
        upload.received -= replaced.as_ref().map_or(0, |old| old.size);
        upload.revision += 1;
        upload.expires = upload.expires.max(expires);
        self.reserve(&upload, before, default_quota)?;
        self.uploads.insert(id, upload);
        Ok(replaced)
    }

    fn remove_parts(&mut self, id: UploadId) -> Vec<Part> {
        let numbers = (id, PartNumber(0))..=(id, PartNumber(u32::MAX));
        let keys: Vec<_> = self.parts.range(numbers).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.parts.remove(key)).collect()
    }

    fn record_file(
        &mut self,
        new: NewFile,
        keep_until: UnixMillis,
        default_quota: u64,
    ) -> Result<Recorded> {
        let mut released = 0;
        let mut parts = Vec::new();
        if let Some((id, revision)) = new.upload {
            let mut upload = self.open_upload(id)?;
            if upload.revision + self.revision_of_partials(id)? != revision {
                return Err(Error::Changed);
            }
            released = upload.reserved();
            upload.state = UploadState::Completed(new.file.id);
            upload.sha256 = None;
            upload.expires = upload.expires.max(keep_until);
            self.uploads.insert(id, upload);
            parts = self.remove_parts(id);
            let (reserved, of_partials) = self.end_partials(id);
            released += reserved;
            parts.extend(of_partials);
        }
        if self.files.values().any(|file| file.key == new.file.key) {
            return Err(Error::Exists);
        }
        let is_there = |blob: &BlobRecord| blob.locator == new.locator && blob.damaged.is_none();
        if new.is_known && !self.blobs.get(&new.file.blake3).is_some_and(is_there) {
            return Err(Error::Changed);
        }
        self.owner(&new.file.owner, new.by, new.file.id.created())?;
        self.check_quota(&new.file.owner, new.file.size.saturating_sub(released), default_quota)?;
        self.reserved_changes(&new.file.owner, released, 0);
        let known = self.blobs.remove(&new.file.blake3);
        let references = known.as_ref().map_or(0, |blob| blob.references) + 1;
        let blob = BlobRecord { locator: new.locator, references, damaged: None };
        self.blobs.insert(new.file.blake3, blob);
        let replaced = known.map(|blob| blob.locator);
        self.unreferenced.remove(&new.file.blake3);
        self.files.insert(new.file.id, new.file);
        Ok(Recorded { replaced, parts })
    }
}

/// The range of what comes after `after`.
fn behind<T>(after: Option<T>) -> (Bound<T>, Bound<T>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

fn is_within(file: &FileRecord, owner: &UserId, folder: &Folder) -> bool {
    file.owner == *owner && file.folder.lineage().any(|ancestor| ancestor == *folder)
}

#[async_trait]
impl Metadata for MemoryMetadata {
    async fn export(&self, _: &Path) -> Result<()> {
        Err(Error::Unavailable("the reference engine keeps nothing".into()))
    }

    async fn exported(&self, _: &Path) -> Result<Option<Exported>> {
        Ok(None)
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    async fn create_uploads(
        &self,
        uploads: Vec<Upload>,
        batch: Option<Batch>,
        by: Asker,
        now: UnixMillis,
        default_quota: u64,
    ) -> Result<()> {
        self.step(|state| {
            for upload in uploads {
                state.owner(&upload.owner, by, now)?;
                state.reserve(&upload, 0, default_quota)?;
                if let Some(batch) = &batch {
                    state.batches.insert(batch.id, batch.clone());
                }
                state.uploads.insert(upload.id, upload);
            }
            Ok(())
        })
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>> {
        Ok(self.read().uploads.get(&id).cloned())
    }

    async fn batch(&self, id: UploadId) -> Result<Option<Batch>> {
        Ok(self.read().batches.get(&id).cloned())
    }

    async fn parts(&self, id: UploadId) -> Result<Vec<Part>> {
        let numbers = (id, PartNumber(0))..=(id, PartNumber(u32::MAX));
        Ok(self.read().parts.range(numbers).map(|(_, part)| part.clone()).collect())
    }

    async fn uploads_of(
        &self,
        owner: &UserId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let state = self.read();
        let own = state
            .uploads
            .values()
            .filter(|upload| upload.owner == *owner && upload.state == UploadState::Open);
        Ok(own.filter(|u| after.is_none_or(|after| u.id > after)).take(limit).cloned().collect())
    }

    async fn record_part(
        &self,
        id: UploadId,
        part: Part,
        to: Option<AppendTo>,
        expires: UnixMillis,
        default_quota: u64,
    ) -> Result<Option<Part>> {
        self.step(|state| state.record_part(id, part, to, expires, default_quota))
    }

    async fn declare_size(
        &self,
        id: UploadId,
        declared: Declared,
        revision: u64,
        default_quota: u64,
    ) -> Result<Upload> {
        self.step(|state| {
            let mut upload = state.open_upload(id)?;
            if upload.revision != revision {
                return Err(Error::Changed);
            }
            let before = upload.reserved();
            declared.set(&mut upload)?;
            upload.revision += 1;
            state.reserve(&upload, before, default_quota)?;
            state.uploads.insert(id, upload.clone());
            Ok(upload)
        })
    }

    async fn remove_upload(&self, id: UploadId, removal: Removal) -> Result<Vec<Part>> {
        self.step(|state| {
            let upload = state.uploads.remove(&id).ok_or(Error::NotFound)?;
            removal.check(&upload)?;
            state.reserved_changes(&upload.owner, upload.reserved(), 0);
            state.concatenations.remove(&id);
            Ok(state.remove_parts(id))
        })
    }

    async fn remove_batch(&self, id: UploadId) -> Result<()> {
        self.step(|state| state.batches.remove(&id).map(drop).ok_or(Error::NotFound))
    }

    async fn collect_expired(&self, now: UnixMillis, limit: usize) -> Result<Expired> {
        let state = self.read();
        let uploads = state.uploads.values().filter(|upload| upload.expires <= now);
        let batches = state.batches.values();
        let childless =
            batches.filter(|batch| batch.uploads.iter().all(|id| !state.uploads.contains_key(id)));
        let due = uploads.map(|upload| upload.id).chain(childless.map(|batch| batch.id));
        let mut ids: Vec<UploadId> = due.take(limit + 1).collect();
        let more = ids.len() > limit;
        ids.truncate(limit);
        Ok(Expired { ids, more })
    }

    async fn record_files(
        &self,
        files: Vec<NewFile>,
        keep_until: UnixMillis,
        default_quota: u64,
    ) -> Result<Vec<Recorded>> {
        self.step(|state| {
            files.into_iter().map(|new| state.record_file(new, keep_until, default_quota)).collect()
        })
    }

    async fn file(&self, key: &FileKey) -> Result<Option<FileRecord>> {
        Ok(self.read().files.values().find(|file| file.key == *key).cloned())
    }

    async fn file_by_id(&self, id: FileId) -> Result<Option<FileRecord>> {
        Ok(self.read().files.get(&id).cloned())
    }

    async fn remove_file(&self, key: &FileKey, now: UnixMillis) -> Result<FileRecord> {
        self.step(|state| {
            let found = state.files.values().find(|file| file.key == *key);
            let id = found.ok_or(Error::NotFound)?.id;
            let file = state.files.remove(&id).ok_or(Error::NotFound)?;
            if let Some(blob) = state.blobs.get_mut(&file.blake3) {
                blob.references -= 1;
                if blob.references == 0 {
                    state.unreferenced.insert(file.blake3, now);
                }
            }
            Ok(file)
        })
    }

    async fn list_files(
        &self,
        owner: &UserId,
        folder: &Folder,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<FileRecord>> {
        let state = self.read();
        let newest_first = state.files.values().rev();
        let filtered = newest_first.filter(|file| {
            is_within(file, owner, folder) && after.is_none_or(|after| file.id < after)
        });
        Ok(filtered.take(limit).cloned().collect())
    }

    async fn totals(&self, owner: &UserId, folder: &Folder) -> Result<Totals> {
        Ok(self.read().totals(owner, folder))
    }

    async fn file_with(&self, owner: &UserId, hash: &ContentHash) -> Result<Option<FileRecord>> {
        let state = self.read();
        let mut files = state.files.values().rev();
        Ok(files.find(|file| file.owner == *owner && file.blake3 == *hash).cloned())
    }

    async fn file_with_sha256(
        &self,
        owner: &UserId,
        sha256: &Sha256,
    ) -> Result<Option<FileRecord>> {
        let state = self.read();
        let mut files = state.files.values();
        Ok(files.find(|file| file.owner == *owner && file.sha256 == *sha256).cloned())
    }

    async fn blob(&self, hash: &ContentHash) -> Result<Option<BlobRecord>> {
        Ok(self.read().blobs.get(hash).cloned())
    }

    async fn unreferenced_blobs(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ContentHash>> {
        let state = self.read();
        let mut old: Vec<_> =
            state.unreferenced.iter().filter(|(_, since)| **since < before).collect();
        old.sort_by_key(|(hash, since)| (**since, **hash));
        Ok(old.into_iter().map(|(hash, _)| *hash).take(limit).collect())
    }

    async fn forget_blob(&self, hash: &ContentHash, before: UnixMillis) -> Result<Option<Locator>> {
        self.step(|state| {
            if state.unreferenced.get(hash).is_none_or(|since| *since >= before) {
                return Ok(None);
            }
            state.unreferenced.remove(hash);
            Ok(state.blobs.remove(hash).map(|blob| blob.locator))
        })
    }

    async fn refers_to_part(
        &self,
        id: UploadId,
        number: PartNumber,
        locator: &Locator,
    ) -> Result<bool> {
        Ok(self.read().parts.get(&(id, number)).is_some_and(|part| part.place == *locator))
    }
}
