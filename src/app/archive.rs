//! Files fetched together: batch tokens, and the ZIP archive that a token stands for.
//!
//! An archive is the same, byte for byte, as long as its files are the same. Its length is known
//! before the first byte, and any part of it can be produced alone.

mod names;
mod plan;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{spawn_blocking, yield_now},
};
use zeroize::Zeroizing;

pub use self::plan::PLANS_BYTES_MAX;
use self::plan::{Member, Plan};
use super::{App, Error, Result, catalog::Listing};
use crate::{
    auth::batch_token,
    blob::{self, Reader},
    meta::{Selection, accounts::Holder},
    model::{
        digest::ContentHash,
        id::FileId,
        key::FileKey,
        limits::{ARCHIVE_FILES_MAX, CLOCK_LEEWAY_SECONDS, LIST_PAGE_FILES},
        name::UserId,
        principal::Principal,
        range::Slice,
        time::UnixMillis,
    },
    zip,
};

/// Life of a batch token.
pub const TOKEN_LIFE: Duration = Duration::from_hours(1);

/// Point reads in a row before other tasks get their turn.
const READS_IN_A_GO: usize = 256;

/// The files that a batch token is requested for.
pub enum Chosen {
    Keys(Vec<FileKey>),
    /// A folder and everything beneath it, as they are when the archive is fetched.
    Folder(Listing),
}

impl App {
    /// Makes a token for files that the caller may read.
    ///
    /// # Errors
    /// [`Error::NoSuchFiles`]; [`Error::NotFound`] for an empty folder; [`Error::Invalid`] for no
    /// files and for too many.
    pub async fn mint_batch_token(
        &self,
        principal: &Principal,
        chosen: Chosen,
    ) -> Result<Zeroizing<String>> {
        let mut minted = self.clock.now();
        let selection = match chosen {
            Chosen::Keys(keys) => Selection::Files(self.ids_of(principal, keys).await?),
            Chosen::Folder(listing) => {
                self.check_scope(principal, &listing.owner, &listing.folder)?;
                match self.totals(&listing).await?.files {
                    0 => return Err(Error::NotFound("folder")),
                    files => check_count(files)?,
                }
                // Bounded: a clock that was far ahead may have set the first good second.
                let latest = minted.after(Duration::from_secs(CLOCK_LEEWAY_SECONDS));
                let issued = self.issue_time(Holder::User(&listing.owner), minted).await?;
                minted = issued.min(latest);
                Selection::Folder { owner: listing.owner, folder: listing.folder }
            }
        };
        let (token, id) = batch_token::generate(minted.after(TOKEN_LIFE));
        self.meta.add_selection(id, selection).await?;
        Ok(token)
    }

    async fn ids_of(&self, principal: &Principal, keys: Vec<FileKey>) -> Result<Vec<FileId>> {
        if keys.is_empty() {
            return Err(Error::invalid("invalid_keys", "keys must name at least one file."));
        }
        check_count(keys.len() as u64)?;
        let (mut ids, mut known, mut missing) = (Vec::new(), HashSet::new(), Vec::new());
        for (at, key) in keys.into_iter().enumerate() {
            give_way(at).await;
            match self.file(principal, &key).await {
                Ok(file) if known.insert(file.id) => ids.push(file.id),
                Ok(_) => {}
                Err(Error::NotFound(_)) => missing.push(key),
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() { Ok(ids) } else { Err(Error::NoSuchFiles(missing)) }
    }

    /// The archive that a token stands for.
    ///
    /// # Errors
    /// [`Error::LinkRefused`] for a token that is unknown or expired, and for a folder of a user
    /// who was disabled, logged out or deleted since the token was made; [`Error::FilesGone`] and
    /// [`Error::Gone`] for files that were deleted meanwhile; [`Error::Damaged`]; [`Error::Busy`];
    /// [`Error::Invalid`] for more than an archive may hold.
    pub async fn open_archive(self: &Arc<Self>, token: &str) -> Result<Archive> {
        let refused = |code, detail| Error::LinkRefused { code, detail };
        let unknown = || refused("link_invalid", "The batch token is unknown.");
        let id = batch_token::parse(token).ok_or_else(unknown)?;
        if id.expires <= self.clock.now() {
            return Err(refused("link_expired", "The batch token has expired."));
        }
        let (name, plan) = match self.meta.selection(id).await?.ok_or_else(unknown)? {
            Selection::Files(ids) => ("files".to_owned(), self.files_of(ids).await?),
            Selection::Folder { owner, folder } => {
                if !self.is_still_in(&owner, id.expires.before(TOKEN_LIFE)).await? {
                    let detail = "The user of the batch token was disabled, logged out or deleted.";
                    return Err(refused("link_invalid", detail));
                }
                let listing = Listing { owner, folder };
                let plan = self.files_in(&listing).await?;
                let name = listing.folder.as_str().rsplit('/').next().unwrap_or_default();
                let name = if name.is_empty() { "files" } else { name };
                (name.to_owned(), plan)
            }
        };
        let app = Arc::clone(self);
        let archive = spawn_blocking(move || Archive::new(app, name, plan)).await?;
        self.check_damage(&archive.members).await?;
        Ok(archive)
    }

    /// Whether a user exists, is not disabled, and was not logged out or deleted since a time. The
    /// folders of a user who was may belong to somebody else by now.
    async fn is_still_in(&self, id: &UserId, since: UnixMillis) -> Result<bool> {
        let record = self.meta.user(id).await?;
        let first = self.meta.tokens_valid_from(Holder::User(id)).await?;
        Ok(record.is_some_and(|user| !user.disabled) && since.seconds() >= first)
    }

    /// Refuses members that are known to be damaged before anything is sent.
    async fn check_damage(&self, members: &[Member]) -> Result<()> {
        if self.meta.damaged_count().await? == 0 {
            return Ok(());
        }
        for (at, Member { blake3, .. }) in members.iter().enumerate() {
            give_way(at).await;
            let blob = self.meta.blob(blake3).await?;
            if blob.is_some_and(|blob| blob.damaged.is_some()) {
                return Err(Error::Damaged(*blake3));
            }
        }
        Ok(())
    }

    async fn files_of(&self, ids: Vec<FileId>) -> Result<Plan> {
        let (mut plan, mut gone) = (Plan::new(&self.archives)?, Vec::new());
        for (at, id) in ids.into_iter().enumerate() {
            give_way(at).await;
            match self.meta.file_by_id(id).await? {
                Some(file) => plan.add(&file, None)?,
                None => gone.push(id),
            }
        }
        if gone.is_empty() { Ok(plan) } else { Err(Error::FilesGone(gone)) }
    }

    async fn files_in(&self, listing: &Listing) -> Result<Plan> {
        check_count(self.totals(listing).await?.files)?;
        let (mut plan, mut after) = (Plan::new(&self.archives)?, None);
        loop {
            let page = self.list_files(listing, after, LIST_PAGE_FILES).await?;
            for file in &page {
                plan.add(file, Some(&listing.folder))?;
                after = Some(file.id);
            }
            check_count(plan.members.len() as u64)?;
            if page.len() < LIST_PAGE_FILES {
                break;
            }
        }
        if plan.members.is_empty() { Err(Error::Gone("folder")) } else { Ok(plan) }
    }
}

async fn give_way(done: usize) {
    if done % READS_IN_A_GO == READS_IN_A_GO - 1 {
        yield_now().await;
    }
}

fn check_count(files: u64) -> Result<()> {
    if files > ARCHIVE_FILES_MAX as u64 {
        let detail = format!("A batch may hold at most {ARCHIVE_FILES_MAX} files.");
        return Err(Error::invalid("too_many_files", detail));
    }
    Ok(())
}

/// A planned ZIP archive, whose bytes are not produced yet.
pub struct Archive {
    app: Arc<App>,
    /// The name of the archive, without an extension.
    pub name: String,
    /// Differs whenever a byte of the archive does.
    pub tag: ContentHash,
    members: Vec<Member>,
    directory: zip::Directory,
    _permit: OwnedSemaphorePermit,
}

impl Archive {
    fn new(app: Arc<App>, name: String, plan: Plan) -> Self {
        let (mut members, permit) = plan.named();
        let mut offset = 0;
        for member in &mut members {
            member.header = offset;
            offset += member.entry().local_bytes() + member.size;
        }
        let bytes = members.iter().map(Member::record_bytes).sum();
        let directory = zip::Directory { entries: members.len() as u64, offset, bytes };
        Self { app, name, tag: tag(&members), members, directory, _permit: permit }
    }

    pub fn bytes(&self) -> u64 {
        self.directory.offset + self.directory.bytes + self.directory.end_bytes()
    }

    /// A reader of the whole archive or a part of it.
    pub fn reader(self, slice: Slice) -> Box<dyn Reader> {
        let crcs = vec![None; self.members.len()];
        let segment = Some(Segment::Header(0)).filter(|_| !self.members.is_empty());
        Box::new(ArchiveReader { archive: self, slice, crcs, segment, at: 0, reading: None })
    }

    fn bytes_of(&self, segment: Segment) -> u64 {
        match segment {
            Segment::Header(at) => self.members[at].entry().local_bytes(),
            Segment::Content(at) => self.members[at].size,
            Segment::Record(at) => self.members[at].record_bytes(),
            Segment::End => self.directory.end_bytes(),
        }
    }

    fn after(&self, segment: Segment) -> Option<Segment> {
        let last = self.members.len() - 1;
        match segment {
            Segment::Header(at) => Some(Segment::Content(at)),
            Segment::Content(at) if at < last => Some(Segment::Header(at + 1)),
            Segment::Content(_) => Some(Segment::Record(0)),
            Segment::Record(at) if at < last => Some(Segment::Record(at + 1)),
            Segment::Record(_) => Some(Segment::End),
            Segment::End => None,
        }
    }
}

fn tag(members: &[Member]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    for member in members {
        hasher.update(&(member.name.len() as u64).to_le_bytes());
        hasher.update(member.name.as_bytes());
        hasher.update(&member.blake3.0);
        hasher.update(&member.modified.0.to_le_bytes());
    }
    ContentHash(*hasher.finalize().as_bytes())
}

/// The segments of an archive, in this order: a header and the content of each member, a directory
/// record of each member, the end.
#[derive(Clone, Copy)]
enum Segment {
    Header(usize),
    Content(usize),
    Record(usize),
    End,
}

struct ArchiveReader {
    archive: Archive,
    slice: Slice,
    /// The CRC-32 of each member, as far as it is known by now.
    crcs: Vec<Option<u32>>,
    /// The next segment; `at` is where it begins in the archive.
    segment: Option<Segment>,
    at: u64,
    reading: Option<Reading>,
}

/// The content that is being sent, and the CRC-32 that it must have when all of it is sent.
struct Reading {
    reader: Box<dyn Reader>,
    check: Option<(crc32fast::Hasher, u32)>,
}

impl Reading {
    /// # Errors
    /// [`blob::Error::Corrupt`] when the header contained another CRC-32: then the stored CRC-32 is
    /// damaged, not the content.
    async fn next(&mut self) -> blob::Result<Option<Bytes>> {
        let next = self.reader.next().await?;
        match (&next, &mut self.check) {
            (Some(bytes), Some((hasher, _))) => hasher.update(bytes),
            (None, Some((hasher, told))) if hasher.clone().finalize() != *told => {
                return Err(blob::Error::Corrupt("its stored CRC-32 does not match".into()));
            }
            _ => {}
        }
        Ok(next)
    }
}

impl ArchiveReader {
    async fn crc32(&mut self, at: usize) -> Result<u32> {
        if let Some(known) = self.crcs[at] {
            return Ok(known);
        }
        let Member { blake3, size, .. } = self.archive.members[at];
        let crc32 = self.archive.app.crc32(blake3, size).await?;
        self.crcs[at] = Some(crc32);
        Ok(crc32)
    }

    async fn begin(&mut self, segment: Segment, part: Slice) -> Result<Option<Bytes>> {
        let made = match segment {
            Segment::Content(at) => {
                let Member { blake3, size, .. } = self.archive.members[at];
                let is_whole = part.len() == size;
                let check = self.crcs[at].filter(|_| is_whole);
                let check = check.map(|told| (crc32fast::Hasher::new(), told));
                let reader = self.archive.app.open_blob(blake3, size, part).await?;
                self.reading = Some(Reading { reader, check });
                return Ok(None);
            }
            Segment::Header(at) => {
                let crc32 = self.crc32(at).await?;
                self.archive.members[at].entry().local(crc32)
            }
            Segment::Record(at) => {
                let crc32 = self.crc32(at).await?;
                let member = &self.archive.members[at];
                member.entry().central(crc32, member.header)
            }
            Segment::End => self.archive.directory.end(),
        };
        let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        Ok(Some(Bytes::from(made).slice(position(part.start)..position(part.end))))
    }
}

#[async_trait]
impl Reader for ArchiveReader {
    async fn next(&mut self) -> blob::Result<Option<Bytes>> {
        loop {
            if let Some(reading) = &mut self.reading {
                match reading.next().await? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => self.reading = None,
                }
            }
            let Some(segment) = self.segment else { return Ok(None) };
            let bytes = self.archive.bytes_of(segment);
            let within = |position: u64| position.saturating_sub(self.at).min(bytes);
            let part = Slice { start: within(self.slice.start), end: within(self.slice.end) };
            self.segment = self.archive.after(segment);
            self.at += bytes;
            if part.is_empty() {
                continue;
            }
            let begun = self.begin(segment, part).await;
            let begun = begun.map_err(|error| blob::Error::Io(error.to_string()))?;
            if let Some(bytes) = begun {
                return Ok(Some(bytes));
            }
        }
    }
}
