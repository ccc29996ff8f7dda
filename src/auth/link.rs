//! The MAC of signed URLs: HMAC-SHA256 over `key|exp` or `key|exp|disposition`.
//!
//! Keys hold no `|`, so no two triples share a text.

use std::{fs, io, path::Path};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::{
    model::{
        digest::{hex, parse_hex},
        key::FileKey,
    },
    sys::{durable, random},
};

/// Signs and checks links.
pub struct LinkKey(hmac::Key);

impl LinkKey {
    /// Reads `link.key` in `dir`, making it when it is missing. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read or written or does not hold 64 hex digits.
    pub fn open(dir: &Path) -> io::Result<Self> {
        durable::create_dir(dir)?;
        let lock = durable::lock_dir(dir)?;
        let path = dir.join("link.key");
        if !path.exists() {
            let secret = Zeroizing::new(random::bytes::<32>());
            let hex = Zeroizing::new(hex(&*secret));
            durable::write_file(&path, hex.as_bytes())?;
        }
        drop(lock);
        let text = Zeroizing::new(fs::read_to_string(&path)?);
        let secret = parse_hex::<32>(text.trim()).map(Zeroizing::new).ok_or_else(|| {
            io::Error::other(format!("{}: must hold 64 hex digits", path.display()))
        })?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*secret)))
    }

    /// `exp` in Unix seconds. Lower-case hex.
    pub fn sign(&self, key: &FileKey, exp: u64, disposition: Option<&str>) -> String {
        let tag = hmac::sign(&self.0, text(key, exp, disposition).as_bytes());
        hex(tag.as_ref())
    }

    /// Compares in constant time.
    pub fn verify(&self, key: &FileKey, exp: u64, disposition: Option<&str>, sig: &str) -> bool {
        parse_hex::<32>(sig).is_some_and(|tag| {
            hmac::verify(&self.0, text(key, exp, disposition).as_bytes(), &tag).is_ok()
        })
    }
}

fn text(key: &FileKey, exp: u64, disposition: Option<&str>) -> String {
    match disposition {
        None => format!("{key}|{exp}"),
        Some(disposition) => format!("{key}|{exp}|{disposition}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_for_its_key_time_and_disposition_only() {
        let dir = tempfile::tempdir().unwrap();
        let links = LinkKey::open(dir.path()).unwrap();
        let [key, other] = ["storage/u/a", "storage/u/b"].map(|key| FileKey::parse(key).unwrap());
        let sig = links.sign(&key, 10, None);
        assert!(LinkKey::open(dir.path()).unwrap().verify(&key, 10, None, &sig));
        assert!(!links.verify(&other, 10, None, &sig));
        assert!(!links.verify(&key, 11, None, &sig));
        assert!(!links.verify(&key, 10, Some("inline"), &sig));
        assert!(!links.verify(&key, 10, None, &sig[1..]));
        assert!(!links.verify(&key, 10, None, ""));
    }
}
