//! Several parts become one blob: one sequential read, both digests on the way.

use std::{
    fs::File,
    io::{Read, Write},
    sync::Arc,
};

use tokio::task::spawn_blocking;

use super::{
    Inner,
    layout::Place,
    stage::{Temporary, joined, publish, seal_small},
};
use crate::{
    blob::{Address, Error, Hasher, Purpose, Result, Sealed},
    model::limits::TRANSFER_BUFFER_BYTES,
    sys::durable,
};

pub async fn assemble(store: &Arc<Inner>, parts: Vec<Address>) -> Result<Sealed> {
    let size: u64 = parts.iter().map(|part| part.size).sum();
    let inner = Arc::clone(store);
    if usize::try_from(size).is_ok_and(|size| size <= store.pack_bytes_max) {
        let gather = move || {
            let mut whole = Vec::new();
            parts
                .iter()
                .try_for_each(|part| copy(&inner, part, &mut whole, &mut Hasher::default()))?;
            Ok(whole)
        };
        let whole = joined(spawn_blocking(gather).await)?;
        return seal_small(store, whole.into()).await;
    }
    store.health.check()?;
    // As many at a time as the machine has cores: more would only share them.
    let _permit = store.assembling.acquire().await.map_err(|_| Error::Busy)?;
    let concatenate = move || {
        let temporary = Temporary(inner.layout.temporary());
        let mut file = durable::create_new(&temporary.0)?;
        let mut hasher = Hasher::default();
        parts.iter().try_for_each(|part| copy(&inner, part, &mut file, &mut hasher))?;
        publish(&inner, file, temporary, Purpose::Blob, &hasher.finish())
    };
    joined(spawn_blocking(concatenate).await)
}

/// Copies one part and checks it against its own hash.
fn copy(store: &Inner, part: &Address, to: &mut impl Write, whole: &mut Hasher) -> Result<()> {
    let place = Place::parse(&part.locator)?;
    if let Some(packed) = place.packed() {
        let content = store.packs.read(packed, part.size)?;
        super::read::check(&content, part)?;
        whole.update(&content);
        return Ok(to.write_all(&content)?);
    }
    let mut from = File::open(store.file(&place)?)?.take(part.size);
    let mut own = blake3::Hasher::new();
    let mut buffer = vec![0; TRANSFER_BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let chunk = &buffer[..read];
        if chunk.is_empty() {
            break;
        }
        own.update(chunk);
        whole.update(chunk);
        to.write_all(chunk)?;
    }
    if own.finalize() != part.blake3.0 {
        return Err(Error::Corrupt(format!("part {} on disk", part.blake3)));
    }
    Ok(())
}
