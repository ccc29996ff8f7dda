//! Where things lie in the data directory, and locators for them.
//!
//! ```text
//! blobs/ab/<hash>-<nonce>-<size>            one large blob; ab are the hash's first two digits
//! blobs/packs/<number>.pack                 many small blobs and parts, see `pack`
//! staging/<upload>.<part>.<nonce>.<size>    one large part of an open upload
//! staging/<upload>.assembly                 parts where they belong, see `assembly`
//! staging/tmp/<nonce>                       bytes still arriving; emptied at start
//! ```
//!
//! A file of a blob or part holds the content and behind it a trailer (`trailer`). Files from
//! before format 3 have neither a trailer nor a size in their names.
//!
//! The nonce makes every name unique for ever: a request can never create the name that another one
//! is about to remove, even when both have the same content.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    blob::{Error, Result, upkeep::Shelf},
    model::{
        digest::{ContentHash, parse_hex},
        id::{PartNumber, UploadId},
        locator::Locator,
        time::UnixMillis,
    },
    sys::{durable, random},
};

/// How the name of an assembly ends.
const ASSEMBLY: &str = "assembly";

/// What a [`Locator`] of this store means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// As [`Place::Record`], in old locators, which did not hold the length.
    Packed {
        pack: u32,
        offset: u64,
    },
    /// As [`Place::Blob`], from before there were trailers.
    BareBlob {
        hash: ContentHash,
        nonce: u64,
    },
    /// As [`Place::Part`], from before there were trailers.
    BarePart {
        upload: UploadId,
        number: PartNumber,
        nonce: u64,
    },
    /// A record of a pack. The length is that of the content, so that the live bytes of a pack can
    /// be counted without reading it.
    Record {
        pack: u32,
        offset: u64,
        length: u32,
    },
    Blob {
        hash: ContentHash,
        nonce: u64,
        size: u64,
    },
    Part {
        upload: UploadId,
        number: PartNumber,
        nonce: u64,
        size: u64,
    },
    /// A part in the assembly of its upload. The nonce distinguishes parts that took the same place
    /// one after the other.
    Assembled {
        upload: UploadId,
        offset: u64,
        size: u64,
        nonce: u64,
    },
    /// An assembly itself.
    Assembly {
        upload: UploadId,
    },
}

/// A record of a pack.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    pub pack: u32,
    pub offset: u64,
    pub length: Option<u32>,
}

impl Place {
    pub fn locator(&self) -> Result<Locator> {
        let bytes = postcard::to_allocvec(self).map_err(|error| Error::Io(error.to_string()))?;
        Ok(Locator(bytes.into()))
    }

    pub fn parse(locator: &Locator) -> Result<Self> {
        postcard::from_bytes(&locator.0).map_err(|_| Error::Corrupt("unknown locator".into()))
    }

    /// The record in a pack; `None` for anything that lies in a file.
    pub fn packed(&self) -> Option<Packed> {
        match *self {
            Self::Packed { pack, offset } => Some(Packed { pack, offset, length: None }),
            Self::Record { pack, offset, length } => {
                Some(Packed { pack, offset, length: Some(length) })
            }
            _ => None,
        }
    }

    /// The place of the content of a part's file once it is a blob.
    pub fn as_blob(&self, hash: ContentHash, nonce: u64) -> Self {
        match *self {
            Self::Part { size, .. } | Self::Blob { size, .. } => Self::Blob { hash, nonce, size },
            _ => Self::BareBlob { hash, nonce },
        }
    }

    /// Whether a blob may lie there. Packed bytes serve a blob as well as a part.
    pub fn holds_blob(&self) -> bool {
        match self {
            Self::Packed { .. }
            | Self::Record { .. }
            | Self::BareBlob { .. }
            | Self::Blob { .. } => true,
            Self::BarePart { .. }
            | Self::Part { .. }
            | Self::Assembled { .. }
            | Self::Assembly { .. } => false,
        }
    }

    /// Where the content begins in its file.
    pub fn start(&self) -> u64 {
        match *self {
            Self::Assembled { offset, .. } => offset,
            _ => 0,
        }
    }

    /// The size of the content, if its file has a trailer behind it.
    pub fn bytes_before_trailer(&self) -> Option<u64> {
        match *self {
            Self::Blob { size, .. } | Self::Part { size, .. } => Some(size),
            _ => None,
        }
    }
}

/// When a file or one of its names last changed (ctime), not when it was last written: a part that
/// becomes a blob by a second name is as old as that name.
pub fn changed(file: &fs::Metadata) -> UnixMillis {
    let millis = file.ctime().saturating_mul(1000).saturating_add(file.ctime_nsec() / 1_000_000);
    UnixMillis(u64::try_from(millis).unwrap_or(0))
}

/// The directories of the store.
#[derive(Clone, Debug)]
pub struct Layout {
    blobs: PathBuf,
    staging: PathBuf,
}

impl Layout {
    /// Creates the missing directories and empties `staging/tmp`. From here on, every directory
    /// that can hold a blob exists durably, so that no later step has to make the name of a
    /// directory durable.
    pub fn prepare(data_dir: &Path) -> io::Result<Self> {
        let layout = Self { blobs: data_dir.join("blobs"), staging: data_dir.join("staging") };
        for dir in [layout.blobs.clone(), layout.packs(), layout.staging.clone()] {
            durable::create_dir(&dir)?;
        }
        for prefix in 0..=u8::MAX {
            let dir = layout.blobs.join(format!("{prefix:02x}"));
            if !dir.is_dir() {
                fs::create_dir(&dir)?;
            }
        }
        durable::sync_dir(&layout.blobs)?;
        let tmp = layout.staging.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        durable::create_dir(&tmp)?;
        Ok(layout)
    }

    pub fn data_dir(&self) -> &Path {
        self.blobs.parent().unwrap_or(&self.blobs)
    }

    pub fn packs(&self) -> PathBuf {
        self.blobs.join("packs")
    }

    pub fn pack(&self, number: u32) -> PathBuf {
        self.packs().join(format!("{number:08}.pack"))
    }

    /// The numbers of all packs.
    pub fn packs_found(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(self.packs())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        Ok(numbers)
    }

    pub fn temporary(&self) -> PathBuf {
        self.staging.join("tmp").join(format!("{:016x}", random::nonce()))
    }

    pub fn assembly(&self, upload: UploadId) -> PathBuf {
        self.staging.join(format!("{upload}.{ASSEMBLY}"))
    }

    /// The file of a place; `None` for packed bytes.
    pub fn file(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Packed { .. } | Place::Record { .. } => None,
            Place::BareBlob { hash, nonce } => {
                Some(self.shelf(hash).join(format!("{hash}-{nonce:016x}")))
            }
            Place::Blob { hash, nonce, size } => {
                Some(self.shelf(hash).join(format!("{hash}-{nonce:016x}-{size}")))
            }
            Place::BarePart { upload, number, nonce } => {
                Some(self.staging.join(format!("{upload}.{}.{nonce:016x}", number.0)))
            }
            Place::Part { upload, number, nonce, size } => {
                Some(self.staging.join(format!("{upload}.{}.{nonce:016x}.{size}", number.0)))
            }
            Place::Assembled { upload, .. } | Place::Assembly { upload } => {
                Some(self.assembly(*upload))
            }
        }
    }

    fn shelf(&self, hash: &ContentHash) -> PathBuf {
        self.blobs.join(format!("{:02x}", hash.0[0]))
    }

    /// All files of a shelf. Files with other names are not ours and are ignored.
    pub fn list(&self, shelf: Shelf) -> io::Result<Vec<Place>> {
        let (dir, parse): (_, fn(&str) -> Option<Place>) = match shelf {
            Shelf::Parts => (self.staging.clone(), part),
            Shelf::Blobs(prefix) => (self.blobs.join(format!("{prefix:02x}")), blob),
        };
        let mut places = Vec::new();
        for entry in fs::read_dir(dir)? {
            places.extend(entry?.file_name().to_str().and_then(parse));
        }
        Ok(places)
    }
}

fn blob(name: &str) -> Option<Place> {
    let mut fields = name.split('-');
    let hash = ContentHash(parse_hex(fields.next()?)?);
    let nonce = u64::from_str_radix(fields.next()?, 16).ok()?;
    let place = match fields.next() {
        None => Place::BareBlob { hash, nonce },
        Some(size) => Place::Blob { hash, nonce, size: size.parse().ok()? },
    };
    fields.next().is_none().then_some(place)
}

fn part(name: &str) -> Option<Place> {
    let mut fields = name.split('.');
    let upload = UploadId::parse(fields.next()?)?;
    let number = match fields.next()? {
        ASSEMBLY => return fields.next().is_none().then_some(Place::Assembly { upload }),
        number => PartNumber::new(number.parse().ok()?)?,
    };
    let nonce = u64::from_str_radix(fields.next()?, 16).ok()?;
    let place = match fields.next() {
        None => Place::BarePart { upload, number, nonce },
        Some(size) => Place::Part { upload, number, nonce, size: size.parse().ok()? },
    };
    fields.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locators_and_part_names_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let upload = UploadId([3; 16]);
        let (number, nonce, size) = (PartNumber(7), 9, 70_000);
        let part = Place::Part { upload, number, nonce, size };
        assert_eq!(Place::parse(&part.locator().unwrap()).unwrap(), part);
        let bare_part = Place::BarePart { upload, number, nonce: 10 };
        let assembly = Place::Assembly { upload };
        for place in [&part, &bare_part, &assembly] {
            fs::write(layout.file(place).unwrap(), b"").unwrap();
        }
        fs::write(dir.path().join("staging/README"), b"").unwrap();
        let listed = layout.list(Shelf::Parts).unwrap();
        assert!(listed.len() == 3 && listed.contains(&part) && listed.contains(&bare_part));
        assert!(listed.contains(&assembly));
        let hash = ContentHash([0xab; 32]);
        let blob = part.as_blob(hash, 9);
        let bare_blob = bare_part.as_blob(hash, 10);
        for place in [&blob, &bare_blob] {
            fs::write(layout.file(place).unwrap(), b"").unwrap();
        }
        fs::write(dir.path().join("blobs/ab/README"), b"").unwrap();
        let listed = layout.list(Shelf::Blobs(0xab)).unwrap();
        assert!(listed.len() == 2 && listed.contains(&blob) && listed.contains(&bare_blob));
        assert_eq!(layout.list(Shelf::Blobs(0xac)).unwrap(), []);
        fs::write(layout.temporary(), b"").unwrap();
        Layout::prepare(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("staging/tmp")).unwrap().count(), 0);
    }
}
