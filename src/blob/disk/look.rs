//! Whether bytes are there, without reading them: the length of what they should lie in.

use std::{collections::HashMap, fs, io, path::Path};

use super::{Inner, layout::Place, pack::HEADER_BYTES, trailer};
use crate::{
    blob::{Result, upkeep::Seen},
    model::locator::Locator,
};

/// Looks once at each file, however many of `blobs` lie in it. Blocks.
pub fn look(inner: &Inner, blobs: &[Locator]) -> Result<Vec<Seen>> {
    let mut packs = HashMap::new();
    let mut seen = Vec::with_capacity(blobs.len());
    for blob in blobs {
        // What is no place of ours holds nothing.
        let Ok(place) = Place::parse(blob) else {
            seen.push(Seen::Missing);
            continue;
        };
        let (length, needed) = lengths(inner, &place, &mut packs)?;
        seen.push(match length {
            None => Seen::Missing,
            Some(length) if length < needed => Seen::Short,
            Some(_) => Seen::Whole,
        });
    }
    Ok(seen)
}

/// How long what a blob lies in is, and how long it has to be. Packs are asked for once.
fn lengths(
    inner: &Inner,
    place: &Place,
    packs: &mut HashMap<u32, Option<u64>>,
) -> Result<(Option<u64>, u64)> {
    let Some(packed) = place.packed() else {
        let content = place.bytes_before_trailer();
        let needed = content.map_or(0, |size| size.saturating_add(trailer::bytes(size)));
        return Ok((length(&inner.file(place)?)?, needed));
    };
    let content = packed.length.map_or(0, u64::from);
    let needed = packed.offset.saturating_add(HEADER_BYTES as u64 + content);
    if let Some(length) = packs.get(&packed.pack) {
        return Ok((*length, needed));
    }
    let length = length(&inner.layout.pack(packed.pack))?;
    packs.insert(packed.pack, length);
    Ok((length, needed))
}

/// `None` for what is not there.
fn length(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => Ok(Some(file?.len())),
    }
}
