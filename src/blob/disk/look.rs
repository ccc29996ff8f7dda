//! Checks whether bytes are there without reading them, by the length of the file that holds them.

use std::{collections::HashMap, fs, io, path::Path};

use super::{Inner, layout::Place, pack::HEADER_BYTES, trailer};
use crate::{blob::upkeep::Seen, model::locator::Locator};

/// The length of a file, `None` if there is no such file, or why it cannot be determined.
type Length = Result<Option<u64>, String>;

/// Inspects each pack once, however many of `blobs` lie in it. Blocks.
pub fn look(inner: &Inner, blobs: &[Locator]) -> Vec<Seen> {
    let mut packs = HashMap::new();
    let mut seen = Vec::with_capacity(blobs.len());
    for blob in blobs {
        // A locator that this store cannot parse has no bytes here.
        let Ok(place) = Place::parse(blob) else {
            seen.push(Seen::Missing);
            continue;
        };
        let (length, needed) = lengths(inner, &place, &mut packs);
        seen.push(match length {
            Ok(None) => Seen::Missing,
            Ok(Some(length)) if length < needed => Seen::Short,
            Ok(Some(_)) => Seen::Whole,
            Err(why) => Seen::Unreadable(why),
        });
    }
    seen
}

/// The length of the file that holds a blob, and the least length that the blob's place implies.
/// Lengths of packs are remembered in `packs`.
fn lengths(inner: &Inner, place: &Place, packs: &mut HashMap<u32, Length>) -> (Length, u64) {
    let Some(packed) = place.packed() else {
        let content = place.bytes_before_trailer();
        let needed = content.map_or(0, |size| size.saturating_add(trailer::bytes(size)));
        let file = inner.file(place).map_err(|error| error.to_string());
        return (file.and_then(|path| length(&path)), needed);
    };
    let content = packed.length.map_or(0, u64::from);
    let needed = packed.offset.saturating_add(HEADER_BYTES as u64 + content);
    let look = || length(&inner.layout.pack(packed.pack));
    (packs.entry(packed.pack).or_insert_with(look).clone(), needed)
}

fn length(path: &Path) -> Length {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
