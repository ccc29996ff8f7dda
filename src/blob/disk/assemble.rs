//! Makes one blob of the parts of an upload: the assembly as it is, if all large parts lie there at
//! their final offsets; else a copy, by one sequential read.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    sync::{Arc, PoisonError},
};

use async_trait::async_trait;

use super::{
    Inner,
    assembly::{Assemblies, Closed},
    blocking::blocking,
    content::{Content, copy_range, read_checked},
    layout::Place,
    running::Running,
    spill::OwnFile,
    stage::seal_small,
    trailer,
};
use crate::{
    blob::{Address, Error, Hasher, Join, Purpose, Result, Sealed},
    model::{id::UploadId, locator::Locator},
    sys::{fault, random},
};

/// See [`BlobStore::join`](crate::blob::BlobStore::join).
pub struct Joining {
    store: Arc<Inner>,
    upload: UploadId,
    /// The closed assembly, unless somebody was inside.
    closed: Option<Closed>,
}

impl Joining {
    pub fn begin(store: &Arc<Inner>, upload: UploadId) -> Self {
        let closed = Assemblies::close(store, upload, random::nonce());
        Self { store: Arc::clone(store), upload, closed }
    }
}

#[async_trait]
impl Join for Joining {
    async fn assemble(self: Box<Self>, parts: Vec<Address>, may_overwrite: bool) -> Result<Sealed> {
        let Self { store, upload, closed } = *self;
        let size: u64 = parts.iter().map(|part| part.size).sum();
        let inner = Arc::clone(&store);
        if usize::try_from(size).is_ok_and(|size| size <= store.pack_bytes_max) {
            let gather = move || {
                let mut whole = Vec::new();
                for part in &parts {
                    read_checked(&inner, part, |bytes| {
                        whole.extend_from_slice(bytes);
                        Ok(())
                    })?;
                }
                Ok(whole)
            };
            let whole = blocking(gather).await?;
            return seal_small(&store, whole.into()).await;
        }
        store.health.check()?;
        let fills = Fill::of(upload, &parts)?.filter(|fills| fills.is_empty() || may_overwrite);
        let in_place_of = fills.zip(closed);
        // As many at a time as the machine has cores: more would only compete for them.
        let _permit = store.assembling.acquire().await.map_err(|_| Error::Busy)?;
        let join = move || match in_place_of {
            Some((fills, closed)) => in_place(&inner, closed, upload, &parts, &fills),
            None => concatenate(&inner, &parts),
        };
        blocking(join).await
    }

    /// A packed part becomes a blob as it lies. A part's file gets a second name; the first one
    /// stays valid for the session until the index knows the second.
    async fn promote(self: Box<Self>, part: &Address) -> Result<Locator> {
        let place = Place::parse(&part.locator)?;
        if place.packed().is_some() {
            return Ok(part.locator.clone());
        }
        if let Place::Assembled { .. } = place {
            // No other part exists that would have to be copied into the assembly.
            return Ok(self.assemble(vec![part.clone()], false).await?.locator);
        }
        let (store, hash) = (self.store, part.blake3);
        store.health.check()?;
        let link = move || {
            let blob = place.as_blob(hash, random::nonce());
            let path = store.file(&blob)?;
            fs::hard_link(store.file(&place)?, &path)?;
            fault::point("promote: linked");
            store.sync_parent(&path)?;
            blob.locator()
        };
        blocking(link).await
    }
}

fn concatenate(store: &Inner, parts: &[Address]) -> Result<Sealed> {
    let own = OwnFile::create(store)?;
    let mut hasher = Hasher::default();
    for part in parts {
        read_checked(store, part, |bytes| {
            own.file.write_all_at(bytes, hasher.size)?;
            hasher.update(bytes);
            Ok(())
        })?;
    }
    own.publish(store, Purpose::Blob, &hasher.finish())
}

/// A part that does not lie in the assembly, and where it belongs there.
struct Fill {
    place: Place,
    part: Address,
    at: u64,
}

impl Fill {
    /// The parts to copy into the assembly; `None` when a part lies at another offset than it
    /// should or in another assembly, or when no part lies in this one.
    fn of(upload: UploadId, parts: &[Address]) -> Result<Option<Vec<Self>>> {
        let (mut fills, mut at) = (Vec::new(), 0);
        for part in parts {
            match Place::parse(&part.locator)? {
                Place::Assembled { upload: of, offset, .. } => {
                    if of != upload || offset != at {
                        return Ok(None);
                    }
                }
                place => fills.push(Self { place, part: part.clone(), at }),
            }
            at += part.size;
        }
        Ok(Some(fills).filter(|fills| fills.len() < parts.len()))
    }

    fn copy(&self, store: &Inner, assembly: &File) -> Result<()> {
        if self.place.packed().is_some() {
            return read_checked(store, &self.part, |content| {
                Ok(assembly.write_all_at(content, self.at)?)
            });
        }
        let from = Content::open(store, &self.place, &self.part)?;
        copy_range(&from.file, 0, assembly, self.at, self.part.size)
    }
}

/// Makes a blob of the assembly by giving its file a second name. The first name stays valid for
/// the session until the index knows the second. Until then, no record names the bytes that are
/// written here.
fn in_place(
    store: &Inner,
    closed: Closed,
    upload: UploadId,
    parts: &[Address],
    fills: &[Fill],
) -> Result<Sealed> {
    let path = store.layout.assembly(upload);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    fills.iter().try_for_each(|fill| fill.copy(store, &file))?;
    let kept = store.assemblies.running(upload).unwrap_or_default();
    let mut running = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if running.rest(parts).is_none() {
        *running = Running::default();
    }
    running.go_on(store, parts)?;
    let digests = running.hasher.clone().finish();
    drop(running);
    let (hash, size) = (digests.blake3, digests.size);
    let trailer = trailer::encode(&digests.tree, digests.crc32);
    file.write_all_at(&trailer, size)?;
    file.set_len(size + trailer.len() as u64)?;
    fault::point("assembly: whole");
    store.sync(&file)?;
    fault::point("assembly: whole and durable");
    let blob = Place::Blob { hash, nonce: closed.nonce, size };
    let second = store.file(&blob)?;
    fs::hard_link(&path, &second)?;
    fault::point("assembly: linked");
    store.sync_parent(&second)?;
    closed.keep();
    Ok(digests.sealed(blob.locator()?))
}
