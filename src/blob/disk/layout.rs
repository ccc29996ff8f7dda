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
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    blob::{Error, Result},
    model::{
        digest::ContentHash,
        id::{PartNumber, UploadId},
        locator::Locator,
    },
    sys::{durable, random},
};

/// What a [`Locator`] of this store means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    Packed { pack: u32, offset: u64 },
    Blob { hash: ContentHash, nonce: u64 },
    Part { upload: UploadId, number: PartNumber, nonce: u64 },
}

impl Place {
    pub fn locator(&self) -> Result<Locator> {
        let bytes = postcard::to_allocvec(self).map_err(|error| Error::Io(error.to_string()))?;
        Ok(Locator(bytes.into()))
    }

    pub fn parse(locator: &Locator) -> Result<Self> {
        postcard::from_bytes(&locator.0).map_err(|_| Error::Corrupt("unknown locator".into()))
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

    /// The highest pack number in use.
    pub fn last_pack(&self) -> io::Result<u32> {
        let mut last = 0;
        for entry in fs::read_dir(self.packs())? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".pack"));
            last = last.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
        }
        Ok(last)
    }

    pub fn temporary(&self) -> PathBuf {
        self.staging.join("tmp").join(format!("{:016x}", random::nonce()))
    }

    /// The file of a place; `None` for packed bytes.
    pub fn file(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Packed { .. } => None,
            Place::Blob { hash, nonce } => {
                let dir = self.blobs.join(format!("{:02x}", hash.0[0]));
                Some(dir.join(format!("{hash}-{nonce:016x}")))
            }
            Place::Part { upload, number, nonce } => {
                Some(self.staging.join(format!("{upload}.{}.{nonce:016x}", number.0)))
            }
        }
    }

    /// Every part file in `staging`; other names there are not ours and stay.
    pub fn parts(&self) -> io::Result<Vec<Place>> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(&self.staging)? {
            parts.extend(entry?.file_name().to_str().and_then(part));
        }
        Ok(parts)
    }
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
        assert_eq!(layout.parts().unwrap(), [place]);
        fs::write(layout.temporary(), b"").unwrap();
        Layout::prepare(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("staging/tmp")).unwrap().count(), 0);
    }
}
