//! The engine for one machine: sled 0.34.7, one committer thread, every answer durable.
//!
//! Point reads run inline: from sled's cache they take microseconds. Scans run on the blocking
//! pool. Writes go through `commit`, which makes them durable in the `journal` first.

pub(crate) mod accounts;
mod ballast;
mod check;
pub mod codec;
mod commit;
mod concatenation;
mod files;
mod index;
pub(crate) mod journal;
mod open;
mod read_ahead;
mod records;
mod relocate;
mod replay;
mod room;
pub(crate) mod runs;
mod selection;
mod step;
mod txn;
mod upkeep;

use std::path::Path;

use async_trait::async_trait;
use sled::Db;

use self::{
    ballast::Ballast,
    codec::{FolderNode, Held, StoredBatch, StoredBlob, StoredPart, StoredUpload},
    commit::Committer,
    index::Place,
    open::Opened,
    records::Records,
    relocate::relocate,
    runs::Runs,
};
use super::{
    AppendTo, Asker, Batch, BlobRecord, Declared, Error, Expired, Exported, Metadata, NewFile,
    Part, Recorded, Removal, Result,
};
use crate::model::{
    digest::{ContentHash, Sha256},
    file::{FileRecord, Totals},
    id::{FileId, PartNumber, UploadId},
    key::FileKey,
    locator::Locator,
    name::{Folder, UserId},
    time::UnixMillis,
    upload::Upload,
};

/// See the module.
pub struct SledMetadata {
    records: Records,
    committer: Committer,
    _db: Db,
    /// Fields are dropped in their order: this one last, after every handle of sled.
    closing: Closing,
}

/// Once nothing holds sled any more, has sled note where its pages lie, so that the next open is
/// fast.
struct Closing(Option<open::Place>);

impl Drop for Closing {
    fn drop(&mut self) {
        let Some(place) = &self.0 else { return };
        // An open needs room, and sled frees what was allocated past the end of its file.
        let noted = Ballast::given_up(place.data_dir()).and_then(|mut ballast| {
            let noted = open::note_pages(place);
            ballast.refill();
            noted
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the next start takes longer: sled could not be reopened");
        }
    }
}

impl Drop for SledMetadata {
    fn drop(&mut self) {
        self.committer.close(commit::PATIENCE_SECONDS);
        // Nothing more is asked of a disk that has failed.
        if self.committer.ready().is_err() {
            self.closing.0 = None;
        }
    }
}

impl SledMetadata {
    /// Opens or creates the store below `data_dir`: `meta/`, which is sled's, and `journal/`, from
    /// which `meta/` can be rebuilt. The journal is saved as a snapshot whenever it has grown by
    /// `save_bytes`, or by the size of the last snapshot if that is more. Blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when acknowledged changes cannot be read; [`Error::Unavailable`] when the
    /// disk fails, or when this build would lose data in a power cut.
    pub fn open(data_dir: &Path, cache_bytes: u64, save_bytes: u64) -> Result<Self> {
        let place = open::Place::new(data_dir, cache_bytes);
        let mut ballast = Ballast::given_up(data_dir)?;
        let Opened { db, journal, file } = relocate(&place, open::open(&place)?)?;
        ballast.refill();
        let files = journal.files().clone();
        let records = Records::over(Runs::new(&db), journal.last(), files);
        let committer = Committer::start(records.clone(), journal, file, ballast, save_bytes)?;
        Ok(Self { records, committer, _db: db, closing: Closing(Some(place)) })
    }

    /// Whether nothing was ever stored here, or everything is lost.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn is_new(&self) -> Result<bool> {
        // A store with commits is not new. No page need be readable to know that.
        if self.records.last() > 0 {
            return Ok(false);
        }
        self.records.iter().next().transpose().map(|first| first.is_none())
    }

    /// Rebuilds `meta/` from the journal. Where the journal lacks something, also makes a new
    /// journal from what can be read of both. Sets aside what was there before. Returns what is
    /// missing. Blocks.
    ///
    /// # Errors
    /// As [`SledMetadata::open`]; [`Error::NotFound`] when there is no journal, [`Error::Corrupt`]
    /// when nothing of it can be read.
    pub fn rebuild(data_dir: &Path, cache_bytes: u64) -> Result<Option<String>> {
        Ballast::given_up(data_dir)?;
        open::rebuild_at_any_loss(&open::Place::new(data_dir, cache_bytes))
    }

    /// Runs a scan on the blocking pool.
    async fn scan<T: Send + 'static>(
        &self,
        scan: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = self.records.clone();
        blocking(move || scan(&records)).await
    }
}

/// Runs `work` on the blocking pool.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Unavailable(error.to_string()))?
}

#[async_trait]
impl Metadata for SledMetadata {
    async fn export(&self, data_dir: &Path) -> Result<()> {
        self.committer.export(data_dir).await
    }

    async fn exported(&self, data_dir: &Path) -> Result<Option<Exported>> {
        self.committer.exported(data_dir).await
    }

    async fn ready(&self) -> Result<()> {
        self.committer.ready()
    }

    async fn create_uploads(
        &self,
        uploads: Vec<Upload>,
        batch: Option<Batch>,
        by: Asker,
        now: UnixMillis,
        default_quota: u64,
    ) -> Result<()> {
        let create = move |txn: &mut txn::Txn<'_>| {
            step::create_uploads(txn, &uploads, batch.as_ref(), by, now, default_quota)
        };
        self.committer.commit(create).await
    }

    async fn upload(&self, id: UploadId) -> Result<Option<Upload>> {
        let stored = self.records.get::<StoredUpload>(&index::upload(id))?;
        Ok(stored.map(|stored| stored.into_record(id)))
    }

    async fn batch(&self, id: UploadId) -> Result<Option<Batch>> {
        let stored = self.records.get::<StoredBatch>(&index::batch(id))?;
        Ok(stored.map(|stored| Batch { id, owner: stored.owner, uploads: stored.uploads }))
    }

    async fn parts(&self, id: UploadId) -> Result<Vec<Part>> {
        let scan = move |records: &Records| {
            let parts = records.scan_prefix(&index::parts(id));
            parts.map(|entry| entry.and_then(|(key, bytes)| step::part(&key, &bytes))).collect()
        };
        self.scan(scan).await
    }

    async fn uploads_of(
        &self,
        owner: &UserId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let prefix = index::open_of(owner);
        let after = after.map(|after| index::open(owner, after));
        let scan = move |records: &Records| {
            let uploads = records.behind(&prefix, after.as_deref()).map(|entry| {
                let Some(id) = index::open_upload(&entry?.0) else { return Ok(None) };
                let stored = records.get::<StoredUpload>(&index::upload(id))?;
                Ok(stored.map(|stored| stored.into_record(id)))
            });
            uploads.filter_map(Result::transpose).take(limit).collect()
        };
        self.scan(scan).await
    }

    async fn record_part(
        &self,
        id: UploadId,
        part: Part,
        to: Option<AppendTo>,
        expires: UnixMillis,
        default_quota: u64,
    ) -> Result<Option<Part>> {
        let record = move |txn: &mut txn::Txn<'_>| {
            step::record_part(txn, id, &part, to, expires, default_quota)
        };
        self.committer.commit(record).await
    }

    async fn declare_size(
        &self,
        id: UploadId,
        declared: Declared,
        revision: u64,
        default_quota: u64,
    ) -> Result<Upload> {
        let declare = move |txn: &mut txn::Txn<'_>| {
            step::declare_size(txn, id, declared, revision, default_quota)
        };
        self.committer.commit(declare).await
    }

    async fn remove_upload(&self, id: UploadId, removal: Removal) -> Result<Vec<Part>> {
        self.committer.reclaim(move |txn| step::remove_upload(txn, id, removal)).await
    }

    async fn remove_batch(&self, id: UploadId) -> Result<()> {
        self.committer.reclaim(move |txn| step::remove_batch(txn, id)).await
    }

    async fn collect_expired(&self, now: UnixMillis, limit: usize) -> Result<Expired> {
        let due = move |records: &Records| records.due(index::EXPIRIES, limit, |at| at <= now);
        let entries = self.scan(due).await?;
        if entries.is_empty() {
            return Ok(Expired::default());
        }
        let more = entries.len() == limit;
        let ids =
            self.committer.reclaim(move |txn| Ok(step::collect_expired(txn, entries, now))).await?;
        Ok(Expired { ids, more })
    }

    async fn record_files(
        &self,
        files: Vec<NewFile>,
        keep_until: UnixMillis,
        default_quota: u64,
    ) -> Result<Vec<Recorded>> {
        let record = move |txn: &mut txn::Txn<'_>| {
            files.iter().map(|new| step::record_file(txn, new, keep_until, default_quota)).collect()
        };
        self.committer.commit(record).await
    }

    async fn file(&self, key: &FileKey) -> Result<Option<FileRecord>> {
        let Some(bytes) = self.records.read(&index::file_key(key))? else {
            return Ok(None);
        };
        let file = files::at(&self.records, Place::parse(&bytes).ok_or_else(files::misplaced)?)?;
        // The index holds only half of the key's hash; the record holds the key.
        Ok(file.filter(|file| file.key == *key))
    }

    async fn file_by_id(&self, id: FileId) -> Result<Option<FileRecord>> {
        files::of_id(&self.records, id)
    }

    async fn remove_file(&self, key: &FileKey, now: UnixMillis) -> Result<FileRecord> {
        let key = key.clone();
        self.committer.release(move |txn| step::remove_file(txn, &key, now)).await
    }

    async fn list_files(
        &self,
        owner: &UserId,
        folder: &Folder,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<FileRecord>> {
        let (owner, folder) = (owner.clone(), folder.clone());
        let scan = move |records: &Records| {
            if folder.is_top() {
                files::of_user(records, &owner, after, limit)
            } else {
                files::in_folder(records, &owner, &folder, after, limit)
            }
        };
        self.scan(scan).await
    }

    async fn totals(&self, owner: &UserId, folder: &Folder) -> Result<Totals> {
        let node = self.records.get::<FolderNode>(&index::folder(owner, folder))?;
        Ok(node.map_or_else(Totals::default, |n| Totals { files: n.files, bytes: n.bytes }))
    }

    async fn blob(&self, hash: &ContentHash) -> Result<Option<BlobRecord>> {
        let stored = self.records.get::<StoredBlob>(&index::blob(hash))?;
        let Some(stored) = stored else { return Ok(None) };
        Ok(Some(stored.into_record(self.records.get(&index::damaged(hash))?)))
    }

    async fn file_with(&self, owner: &UserId, hash: &ContentHash) -> Result<Option<FileRecord>> {
        let blob = self.records.get::<StoredBlob>(&index::blob(hash))?;
        let Some(Held::By(files)) = blob.map(|blob| blob.held) else { return Ok(None) };
        let mut sha256 = None;
        for id in files.into_iter().rev() {
            let file = files::of_id(&self.records, id)?.filter(|file| file.blake3 == *hash);
            let Some(file) = file else { continue };
            if file.owner == *owner {
                return Ok(Some(file));
            }
            // The SHA-256 of any user's file leads to the owner's own file with the same content.
            sha256 = Some(file.sha256);
        }
        let Some(sha256) = sha256 else { return Ok(None) };
        let file = self.file_with_sha256(owner, &sha256).await?;
        Ok(file.filter(|file| file.blake3 == *hash))
    }

    async fn file_with_sha256(
        &self,
        owner: &UserId,
        sha256: &Sha256,
    ) -> Result<Option<FileRecord>> {
        for entry in self.records.scan_prefix(&index::owned(owner, sha256)) {
            let (entry, _) = entry?;
            let id = index::owned_file(&entry).ok_or_else(files::misplaced)?;
            let file = files::at(&self.records, Place::new(owner, id))?;
            // The index holds only half a hash; the record holds the owner and the digest.
            let is_it = |file: &FileRecord| file.owner == *owner && file.sha256 == *sha256;
            if let Some(file) = file.filter(is_it) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    async fn unreferenced_blobs(
        &self,
        before: UnixMillis,
        limit: usize,
    ) -> Result<Vec<ContentHash>> {
        let due =
            move |records: &Records| records.due(index::UNREFERENCED, limit, |at| at < before);
        let entries = self.scan(due).await?;
        Ok(entries.iter().filter_map(|entry| index::unreferenced_blob(entry)).collect())
    }

    async fn forget_blob(&self, hash: &ContentHash, before: UnixMillis) -> Result<Option<Locator>> {
        let hash = *hash;
        self.committer.reclaim(move |txn| step::forget_blob(txn, &hash, before)).await
    }

    async fn refers_to_part(
        &self,
        id: UploadId,
        number: PartNumber,
        locator: &Locator,
    ) -> Result<bool> {
        let part = self.records.get::<StoredPart>(&index::part(id, number))?;
        Ok(part.is_some_and(|part| part.into_record(number).place == *locator))
    }
}
