//! The rules of each durable step, run by the committer one after the other.

use std::collections::BTreeMap;

use super::{
    codec::{
        self, FolderNode, Held, StoredBatch, StoredBlob, StoredFile, StoredPart, StoredUpload,
        StoredUser,
    },
    concatenation,
    index::{self, Place},
    txn::Txn,
    upkeep,
};
use crate::{
    meta::{
        AppendTo, Asker, Batch, Declared, Error, HOLDERS_MAX, NewFile, Part, Recorded, Removal,
        Result, UserRecord, accounts::Holder,
    },
    model::{
        digest::ContentHash,
        file::FileRecord,
        id::UploadId,
        key::FileKey,
        locator::Locator,
        name::{Folder, UserId},
        time::UnixMillis,
        upload::{Upload, UploadState},
    },
};

pub fn ensure_user(txn: &mut Txn<'_>, id: &UserId, now: UnixMillis) -> Result<UserRecord> {
    if let Some(stored) = txn.get::<StoredUser>(&index::user(id))? {
        return Ok(stored.into_record(id.clone()));
    }
    let user = UserRecord::new(id.clone(), now);
    txn.put(index::user(id), &StoredUser::new(&user))?;
    Ok(user)
}

/// The record of a user for whom something is about to be stored, created if there is none. `by`
/// must be allowed to act for that user.
fn owner(txn: &mut Txn<'_>, id: &UserId, by: Asker, now: UnixMillis) -> Result<UserRecord> {
    let Asker::Owner { issued } = by else { return ensure_user(txn, id, now) };
    let first = txn.get::<u64>(&index::valid_from(Holder::User(id)))?.unwrap_or(0);
    let user = ensure_user(txn, id, now)?;
    if user.disabled || issued < first { Err(Error::LoggedOut) } else { Ok(user) }
}

/// Checks that `growth` more bytes fit a user's quota, and changes the user's reservation from
/// `before` to `after` bytes.
fn reserve(
    txn: &mut Txn<'_>,
    mut user: UserRecord,
    before: u64,
    after: u64,
    growth: u64,
    default_quota: u64,
) -> Result<()> {
    let top = txn.get::<FolderNode>(&index::folder(&user.id, &Folder::default()))?;
    user.check_quota(top.map_or(0, |top| top.bytes), growth, default_quota)?;
    if before != after {
        user.reserved = user.reserved.saturating_sub(before).saturating_add(after);
        txn.put(index::user(&user.id), &StoredUser::new(&user))?;
    }
    Ok(())
}

/// As [`reserve`], for a changed session that reserved `before` bytes until now.
fn reserve_for(txn: &mut Txn<'_>, upload: &Upload, before: u64, default_quota: u64) -> Result<()> {
    let after = upload.reserved();
    if before == after {
        return Ok(());
    }
    let user = known_user(txn, &upload.owner)?;
    reserve(txn, user, before, after, after.saturating_sub(before), default_quota)
}

fn known_user(txn: &Txn<'_>, id: &UserId) -> Result<UserRecord> {
    let stored = txn.get::<StoredUser>(&index::user(id))?;
    Ok(stored.ok_or_else(|| dangling("user"))?.into_record(id.clone()))
}

/// A record names another one that is not there: the store is damaged.
fn dangling(what: &str) -> Error {
    Error::Corrupt(format!("a record names a {what} that does not exist"))
}

pub fn create_uploads(
    txn: &mut Txn<'_>,
    uploads: &[Upload],
    batch: Option<&Batch>,
    by: Asker,
    now: UnixMillis,
    default_quota: u64,
) -> Result<()> {
    for upload in uploads {
        let user = owner(txn, &upload.owner, by, now)?;
        reserve(txn, user, 0, upload.size, upload.size, default_quota)?;
        begin_upload(txn, upload)?;
    }
    if let (Some(batch), Some(first)) = (batch, uploads.first()) {
        let stored = StoredBatch { owner: batch.owner.clone(), uploads: batch.uploads.clone() };
        txn.put(index::batch(batch.id), &stored)?;
        txn.write(index::expiry(first.expires, batch.id), &[]);
    }
    Ok(())
}

pub fn begin_upload(txn: &mut Txn<'_>, upload: &Upload) -> Result<()> {
    txn.put(index::upload(upload.id), &StoredUpload::new(upload))?;
    txn.write(index::open(&upload.owner, upload.id), &[]);
    txn.write(index::expiry(upload.expires, upload.id), &[]);
    Ok(())
}

/// Removes a session and returns its parts. Leaves its entry in the index of expiry times to
/// [`collect_expired`].
pub fn forget_upload(txn: &mut Txn<'_>, upload: &Upload) -> Result<Vec<Part>> {
    txn.delete(index::upload(upload.id));
    txn.delete(index::open(&upload.owner, upload.id));
    remove_parts(txn, upload.id)
}

fn upload(txn: &Txn<'_>, id: UploadId) -> Result<Upload> {
    let stored = txn.get::<StoredUpload>(&index::upload(id))?;
    Ok(stored.ok_or(Error::NotFound)?.into_record(id))
}

pub fn open_upload(txn: &Txn<'_>, id: UploadId) -> Result<Upload> {
    let upload = upload(txn, id)?;
    if upload.state == UploadState::Open { Ok(upload) } else { Err(Error::Closed) }
}

pub fn record_part(
    txn: &mut Txn<'_>,
    id: UploadId,
    part: &Part,
    to: Option<AppendTo>,
    expires: UnixMillis,
    default_quota: u64,
) -> Result<Option<Part>> {
    let mut upload = open_upload(txn, id)?;
    if to.is_some_and(|to| to.revision != upload.revision) {
        return Err(Error::Changed);
    }
    let key = index::part(id, part.number);
    let replaced = txn.get::<StoredPart>(&key)?.map(|stored| stored.into_record(part.number));
    let before = upload.reserved();
    if let Some(declared) = to.and_then(|to| to.declares) {
        declared.set(&mut upload)?;
    }
    let others = upload.received.saturating_sub(replaced.as_ref().map_or(0, |old| old.size));
    upload.received = others.saturating_add(part.size);
    upload.revision += 1;
    upload.expires = upload.expires.max(expires);
    reserve_for(txn, &upload, before, default_quota)?;
    txn.put(key, &StoredPart::new(part))?;
    txn.put(index::upload(id), &StoredUpload::new(&upload))?;
    Ok(replaced)
}

pub fn declare_size(
    txn: &mut Txn<'_>,
    id: UploadId,
    declared: Declared,
    revision: u64,
    default_quota: u64,
) -> Result<Upload> {
    let mut upload = open_upload(txn, id)?;
    if upload.revision != revision {
        return Err(Error::Changed);
    }
    let before = upload.reserved();
    declared.set(&mut upload)?;
    upload.revision += 1;
    reserve_for(txn, &upload, before, default_quota)?;
    txn.put(index::upload(id), &StoredUpload::new(&upload))?;
    Ok(upload)
}

/// Decodes the part under `key`.
pub fn part(key: &[u8], bytes: &[u8]) -> Result<Part> {
    let number = index::part_number(key).ok_or_else(|| Error::Corrupt("a part's key".into()))?;
    Ok(codec::decode::<StoredPart>(bytes)?.into_record(number))
}

fn parts(txn: &Txn<'_>, id: UploadId) -> Result<Vec<Part>> {
    txn.scan(&index::parts(id))?.iter().map(|(key, bytes)| part(key, bytes)).collect()
}

fn remove_parts(txn: &mut Txn<'_>, id: UploadId) -> Result<Vec<Part>> {
    let parts = parts(txn, id)?;
    for part in &parts {
        txn.delete(index::part(id, part.number));
    }
    Ok(parts)
}

pub fn forget_parts(txn: &mut Txn<'_>, id: UploadId, damaged: &[Part]) -> Result<Vec<Part>> {
    let mut upload = open_upload(txn, id)?;
    // All commits wait for this one, and either list may hold ten thousand parts.
    let damaged: BTreeMap<_, _> = damaged.iter().map(|part| (part.number, part)).collect();
    let mut forgotten = parts(txn, id)?;
    forgotten.retain(|part| damaged.get(&part.number) == Some(&part));
    let before = upload.reserved();
    for part in &forgotten {
        txn.delete(index::part(id, part.number));
        upload.received = upload.received.saturating_sub(part.size);
        upload.revision += 1;
    }
    // The reservation only shrinks, so no quota applies.
    reserve_for(txn, &upload, before, 0)?;
    txn.put(index::upload(id), &StoredUpload::new(&upload))?;
    Ok(forgotten)
}

pub fn remove_upload(txn: &mut Txn<'_>, id: UploadId, removal: Removal) -> Result<Vec<Part>> {
    let upload = upload(txn, id)?;
    removal.check(&upload)?;
    if upload.reserved() > 0 {
        let user = known_user(txn, &upload.owner)?;
        reserve(txn, user, upload.reserved(), 0, 0, 0)?;
    }
    concatenation::unbind(txn, &upload)?;
    forget_upload(txn, &upload)
}

pub fn remove_batch(txn: &mut Txn<'_>, id: UploadId) -> Result<()> {
    let key = index::batch(id);
    txn.read(&key)?.ok_or(Error::NotFound)?;
    txn.delete(key);
    Ok(())
}

/// Returns the sessions and batches that have expired by `now`, given the `entries` that are due in
/// the index of expiry times. Entries whose record is gone are dropped. Entries whose record
/// expires later move to that time. A batch lives as long as one of its sessions.
pub fn collect_expired(txn: &mut Txn<'_>, entries: Vec<Vec<u8>>, now: UnixMillis) -> Vec<UploadId> {
    let mut over = Vec::new();
    for entry in entries {
        let Some(id) = index::expiring(&entry) else { continue };
        let expires = expiry(txn, id).and_then(|expires| match expires {
            None => batch_expiry(txn, id),
            expires => Ok(expires),
        });
        match expires {
            Ok(Some(expires)) if expires <= now => over.push(id),
            Ok(Some(later)) => {
                txn.delete(entry);
                txn.write(index::expiry(later, id), &[]);
            }
            Ok(None) => txn.delete(entry),
            // One damaged record must not hold back the others.
            Err(error) => tracing::error!(upload = %id, %error, "an upload cannot be read"),
        }
    }
    over
}

fn expiry(txn: &Txn<'_>, id: UploadId) -> Result<Option<UnixMillis>> {
    let upload = txn.get::<StoredUpload>(&index::upload(id))?;
    Ok(upload.map(|upload| upload.into_record(id).expires))
}

/// When the last session of a batch expires: at once if no session is left.
fn batch_expiry(txn: &Txn<'_>, id: UploadId) -> Result<Option<UnixMillis>> {
    let Some(batch) = txn.get::<StoredBatch>(&index::batch(id))? else { return Ok(None) };
    let mut last = UnixMillis(0);
    for upload in batch.uploads {
        last = last.max(expiry(txn, upload)?.unwrap_or_default());
    }
    Ok(Some(last))
}

pub fn record_file(
    txn: &mut Txn<'_>,
    new: &NewFile,
    keep_until: UnixMillis,
    default_quota: u64,
) -> Result<Recorded> {
    let file = &new.file;
    let (mut released, mut parts) = (0, Vec::new());
    if let Some((id, revision)) = new.upload {
        let mut upload = open_upload(txn, id)?;
        let partials = concatenation::partials(txn, &upload)?;
        let revisions = partials.iter().map(|partial| partial.revision);
        if upload.revision.saturating_add(revisions.sum()) != revision {
            return Err(Error::Changed);
        }
        let reserved = partials.iter().map(Upload::reserved);
        released = upload.reserved().saturating_add(reserved.sum());
        upload.state = UploadState::Completed(file.id);
        upload.expires = upload.expires.max(keep_until);
        txn.put(index::upload(id), &StoredUpload::new(&upload))?;
        txn.delete(index::open(&upload.owner, id));
        parts = remove_parts(txn, id)?;
        for partial in &partials {
            parts.extend(concatenation::end_partial(txn, partial)?);
        }
    }
    let key = index::file_key(&file.key);
    if txn.read(&key)?.is_some() {
        return Err(Error::Exists);
    }
    let user = owner(txn, &file.owner, new.by, file.id.created())?;
    reserve(txn, user, released, 0, file.size.saturating_sub(released), default_quota)?;
    let place = Place::new(&file.owner, file.id);
    txn.write(key, place.bytes());
    txn.write(index::file_owner(file.id), place.owner());
    txn.put(index::file(place), &StoredFile::new(file))?;
    list(txn, file)?;
    txn.write(index::owned_entry(file), &[]);
    let replaced = refer_to_blob(txn, new)?;
    Ok(Recorded { replaced, parts })
}

/// Adds a file to the counts of its folder and of every folder above, and to the lists of all of
/// these but the top folder.
fn list(txn: &mut Txn<'_>, file: &FileRecord) -> Result<()> {
    for folder in file.folder.lineage() {
        let key = index::folder(&file.owner, &folder);
        let mut node = match txn.get::<FolderNode>(&key)? {
            Some(node) => node,
            None => FolderNode { node: next_node(txn)?, files: 0, bytes: 0 },
        };
        node.files = node.files.saturating_add(1);
        node.bytes = node.bytes.saturating_add(file.size);
        txn.put(key, &node)?;
        if !folder.is_top() {
            txn.write(index::list_entry(node.node, file.id), &[]);
        }
    }
    Ok(())
}

fn unlist(txn: &mut Txn<'_>, file: &FileRecord) -> Result<()> {
    for folder in file.folder.lineage() {
        let key = index::folder(&file.owner, &folder);
        let mut node = txn.get::<FolderNode>(&key)?.ok_or_else(|| dangling("folder"))?;
        node.files = node.files.saturating_sub(1);
        node.bytes = node.bytes.saturating_sub(file.size);
        if !folder.is_top() {
            txn.delete(index::list_entry(node.node, file.id));
        }
        if node.files == 0 {
            txn.delete(key);
        } else {
            txn.put(key, &node)?;
        }
    }
    Ok(())
}

/// Takes a new node. Nodes are never reused, so a stale entry cannot show in another folder.
fn next_node(txn: &mut Txn<'_>) -> Result<u64> {
    let next = txn.get::<u64>(index::NEXT_NODE)?.unwrap_or(0);
    txn.put(index::NEXT_NODE.to_vec(), &next.saturating_add(1))?;
    Ok(next)
}

/// Counts one more file of a blob and points the blob's record at the newest copy of the content,
/// which heals a damaged blob. Returns where the previous copy lies.
fn refer_to_blob(txn: &mut Txn<'_>, new: &NewFile) -> Result<Option<Locator>> {
    let NewFile { file, locator, .. } = new;
    let hash = &file.blake3;
    let key = index::blob(hash);
    let known = txn.get::<StoredBlob>(&key)?;
    if new.is_known {
        let is_there = known.as_ref().is_some_and(|blob| blob.locator == *locator);
        if !is_there || txn.read(&index::damaged(hash))?.is_some() {
            return Err(Error::Changed);
        }
    }
    let (mut references, mut files, mut replaced) = (0, Vec::new(), None);
    if let Some(blob) = known {
        if let Some(since) = blob.unreferenced() {
            txn.delete(index::unreferenced(since, hash));
        }
        references = blob.references;
        if let Held::By(last) = blob.held {
            files = last;
        }
        replaced = Some(blob.locator);
    }
    files.drain(..(files.len() + 1).saturating_sub(HOLDERS_MAX));
    files.push(file.id);
    let blob = StoredBlob {
        locator: locator.clone(),
        references: references.saturating_add(1),
        held: Held::By(files),
    };
    txn.put(key, &blob)?;
    // Only a blob with a record can be marked.
    if replaced.is_some() {
        upkeep::unmark(txn, hash)?;
    }
    Ok(replaced)
}

pub fn remove_file(txn: &mut Txn<'_>, key: &FileKey, now: UnixMillis) -> Result<FileRecord> {
    let bytes = txn.read(&index::file_key(key))?.ok_or(Error::NotFound)?;
    let place = Place::parse(&bytes).ok_or_else(|| dangling("file"))?;
    let stored = txn.get::<StoredFile>(&index::file(place))?.ok_or_else(|| dangling("file"))?;
    let file = stored.into_record(place.id());
    if file.key != *key {
        return Err(Error::NotFound);
    }
    txn.delete(index::file_key(key));
    txn.delete(index::file_owner(file.id));
    txn.delete(index::file(place));
    unlist(txn, &file)?;
    txn.delete(index::owned_entry(&file));
    let blob_key = index::blob(&file.blake3);
    let mut blob = txn.get::<StoredBlob>(&blob_key)?.ok_or_else(|| dangling("blob"))?;
    blob.references = blob.references.saturating_sub(1);
    if blob.references == 0 {
        blob.held = Held::Unreferenced(now);
        txn.write(index::unreferenced(now, &file.blake3), &[]);
    }
    txn.put(blob_key, &blob)?;
    Ok(file)
}

pub fn forget_blob(
    txn: &mut Txn<'_>,
    hash: &ContentHash,
    before: UnixMillis,
) -> Result<Option<Locator>> {
    let key = index::blob(hash);
    match txn.get::<StoredBlob>(&key)? {
        Some(StoredBlob { held: Held::Unreferenced(since), locator, .. }) if since < before => {
            txn.delete(index::unreferenced(since, hash));
            txn.delete(key);
            upkeep::unmark(txn, hash)?;
            Ok(Some(locator))
        }
        _ => Ok(None),
    }
}
