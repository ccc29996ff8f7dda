//! Where things lie in the data directory, and locators for them.
//!
//! ```text
//! blobs/ab/<hash>-<nonce>            one large blob; ab are the hash's first two digits
//! blobs/packs/<number>.pack          many small blobs and parts, see `pack`
//! staging/<upload>.<part>.<nonce>    one large part of an open upload
//! staging/tmp/<nonce>                bytes still arriving; emptied at start
//! ```
//!
//! The nonce makes every name unique for good: what one request puts can never be what another
//! one is about to remove, even when both hold the same content.

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

/// What a [`Locator`] of this store means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// As [`Place::Record`], in locators of before those held the length.
    Packed {
        pack: u32,
        offset: u64,
    },
    Blob {
        hash: ContentHash,
        nonce: u64,
    },
    Part {
        upload: UploadId,
        number: PartNumber,
        nonce: u64,
    },
    /// The length is that of the content: what a pack still holds is counted without reading it.
    Record {
        pack: u32,
        offset: u64,
        length: u32,
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

    /// `None` for what lies in a file of its own.
    pub fn packed(&self) -> Option<Packed> {
        match *self {
            Self::Packed { pack, offset } => Some(Packed { pack, offset, length: None }),
            Self::Record { pack, offset, length } => {
                Some(Packed { pack, offset, length: Some(length) })
            }
            Self::Blob { .. } | Self::Part { .. } => None,
        }
    }
}

/// When a file or one of its names last changed. Not when it was last written: a part that becomes
/// a blob by a second name is as old as that name.
pub fn changed(file: &fs::Metadata) -> UnixMillis {
    let millis = file.ctime().saturating_mul(1000).saturating_add(file.ctime_nsec() / 1_000_000);
    UnixMillis(u64::try_from(millis).unwrap_or(0))
}

/// Removes a file; one that is gone is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directories of the store.
#[derive(Clone, Debug)]
pub struct Layout {
    blobs: PathBuf,
    staging: PathBuf,
}

impl Layout {
    /// Makes what is missing and empties `staging/tmp`. Every directory that a blob can lie in
    /// exists, durably, from here on, so that no later step has to sync a parent.
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

    /// The file of a place; `None` for packed bytes.
    pub fn file(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Packed { .. } | Place::Record { .. } => None,
            Place::Blob { hash, nonce } => {
                let dir = self.blobs.join(format!("{:02x}", hash.0[0]));
                Some(dir.join(format!("{hash}-{nonce:016x}")))
            }
            Place::Part { upload, number, nonce } => {
                Some(self.staging.join(format!("{upload}.{}.{nonce:016x}", number.0)))
            }
        }
    }

    /// Every file of a shelf; other names there are not ours and stay.
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
    let (hash, nonce) = name.split_once('-')?;
    let hash = ContentHash(parse_hex(hash)?);
    let nonce = u64::from_str_radix(nonce, 16).ok()?;
    Some(Place::Blob { hash, nonce })
}

fn part(name: &str) -> Option<Place> {
    let mut fields = name.split('.');
    let upload = UploadId::parse(fields.next()?)?;
    let number = PartNumber::new(fields.next()?.parse().ok()?)?;
    let nonce = u64::from_str_radix(fields.next()?, 16).ok()?;
    fields.next().is_none().then_some(Place::Part { upload, number, nonce })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locators_and_part_names_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let upload = UploadId([3; 16]);
        let place = Place::Part { upload, number: PartNumber(7), nonce: 9 };
        assert_eq!(Place::parse(&place.locator().unwrap()).unwrap(), place);
        fs::write(layout.file(&place).unwrap(), b"").unwrap();
        fs::write(dir.path().join("staging/README"), b"").unwrap();
        assert_eq!(layout.list(Shelf::Parts).unwrap(), [place]);
        let place = Place::Blob { hash: ContentHash([0xab; 32]), nonce: 9 };
        fs::write(layout.file(&place).unwrap(), b"").unwrap();
        fs::write(dir.path().join("blobs/ab/README"), b"").unwrap();
        assert_eq!(layout.list(Shelf::Blobs(0xab)).unwrap(), [place]);
        assert_eq!(layout.list(Shelf::Blobs(0xac)).unwrap(), []);
        fs::write(layout.temporary(), b"").unwrap();
        Layout::prepare(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("staging/tmp")).unwrap().count(), 0);
    }
}
