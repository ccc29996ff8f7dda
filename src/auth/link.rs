//! The MAC of signed URLs: HMAC-SHA256 over `key|exp` or `key|exp|disposition`.
//!
//! Keys contain no `|`, so no two triples have the same text.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::{
    model::{
        digest::{hex, parse_hex},
        key::FileKey,
        limits::LINK_TTL_SECONDS,
        time::UnixMillis,
    },
    sys::{durable, fault, random},
};

/// The longest time between the moment to which links are dated, or that a rotation is given as
/// now, and the moment at which the new key signs. Waiting for others, and two writes to a disk
/// that may be busy, lie in between.
const ROTATION_SECONDS_MAX: u64 = 60;

/// Signs and checks links.
///
/// `link.key` signs. A key that was rotated out is `link.SECOND.key`: links that it signed live
/// until that second at most, and no link that claims to live longer is accepted under it.
pub struct LinkKey {
    dir: PathBuf,
    keys: RwLock<Keys>,
}

struct Keys {
    current: hmac::Key,
    /// The keys that were rotated out, each with the last second of any link that it signed.
    old: Vec<(u64, hmac::Key)>,
}

impl LinkKey {
    /// Reads the keys in `dir`; makes the first one if it is missing. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read or written, or does not contain 64 hex digits.
    pub fn open(dir: &Path) -> io::Result<Self> {
        durable::create_dir(dir)?;
        let lock = durable::lock_dir(dir)?;
        let path = dir.join("link.key");
        if !path.exists() {
            write(&path)?;
        }
        let keys = RwLock::new(load(dir)?);
        drop(lock);
        Ok(Self { dir: dir.to_owned(), keys })
    }

    /// Signs with a new key from here on. Links that the previous key signed stay valid until they
    /// expire. Blocks.
    ///
    /// # Errors
    /// When a file cannot be written; the keys in memory stay then.
    pub fn rotate(&self, now: UnixMillis) -> io::Result<()> {
        let _lock = durable::lock_dir(&self.dir)?;
        let path = self.dir.join("link.key");
        let kept = |last: u64| self.dir.join(format!("link.{last}.key"));
        // The previous key signs links until the new one is in place.
        let mut last = now.seconds() + LINK_TTL_SECONDS.end() + ROTATION_SECONDS_MAX;
        // A key that was rotated out in the same second has this name.
        while kept(last).exists() {
            last += 1;
        }
        let current = Zeroizing::new(fs::read(&path)?);
        durable::write_file(&kept(last), &current)?;
        fault::point("operator: link key kept");
        write(&path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = load(&self.dir)?;
        Ok(())
    }

    /// Removes the keys whose links have all expired. Blocks.
    ///
    /// # Errors
    /// When a key cannot be removed.
    pub fn retire(&self, now: UnixMillis) -> io::Result<()> {
        let _lock = durable::lock_dir(&self.dir)?;
        let mut keys = load(&self.dir)?;
        for (last, _) in keys.old.iter().filter(|(last, _)| *last < now.seconds()) {
            fs::remove_file(self.dir.join(format!("link.{last}.key")))?;
        }
        keys.old.retain(|(last, _)| *last >= now.seconds());
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The MAC in lower-case hex. `exp` is in Unix seconds.
    pub fn sign(&self, key: &FileKey, exp: u64, disposition: Option<&str>) -> String {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let tag = hmac::sign(&keys.current, text(key, exp, disposition).as_bytes());
        hex(tag.as_ref())
    }

    /// Compares in constant time.
    pub fn verify(&self, key: &FileKey, exp: u64, disposition: Option<&str>, sig: &str) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let old = keys.old.iter().filter(|(last, _)| exp <= *last).map(|(_, key)| key);
        let text = text(key, exp, disposition);
        let signed_by =
            |key: &hmac::Key, tag: &[u8; 32]| hmac::verify(key, text.as_bytes(), tag).is_ok();
        parse_hex::<32>(sig)
            .is_some_and(|tag| [&keys.current].into_iter().chain(old).any(|k| signed_by(k, &tag)))
    }
}

fn write(path: &Path) -> io::Result<()> {
    let secret = Zeroizing::new(random::bytes::<32>());
    let hex = Zeroizing::new(hex(&*secret));
    durable::write_file(path, hex.as_bytes())
}

fn load(dir: &Path) -> io::Result<Keys> {
    let current = read(&dir.join("link.key"))?;
    let mut old = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let second = name.and_then(|name| name.strip_prefix("link.")?.strip_suffix(".key"));
        if let Some(last) = second.and_then(|second| second.parse().ok()) {
            old.push((last, read(&path)?));
        }
    }
    Ok(Keys { current, old })
}

fn read(path: &Path) -> io::Result<hmac::Key> {
    let text = Zeroizing::new(fs::read_to_string(path)?);
    let secret = parse_hex::<32>(text.trim())
        .map(Zeroizing::new)
        .ok_or_else(|| io::Error::other(format!("{}: must hold 64 hex digits", path.display())))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*secret))
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

    #[test]
    fn links_of_a_rotated_key_are_good_as_long_as_they_live() {
        let dir = tempfile::tempdir().unwrap();
        let links = LinkKey::open(dir.path()).unwrap();
        let key = FileKey::parse("storage/u/a").unwrap();
        let now = UnixMillis(1_800_000_000_000);
        let last = now.seconds() + 604_800 + 60;
        let (old, forged) = (links.sign(&key, last, None), links.sign(&key, last + 1, None));
        // The rotation is given a time from before this link was made.
        let made_meanwhile = now.seconds() + 2 + LINK_TTL_SECONDS.end();
        let meanwhile = links.sign(&key, made_meanwhile, None);
        links.rotate(now).unwrap();
        assert_ne!(links.sign(&key, last, None), old);
        for links in [&links, &LinkKey::open(dir.path()).unwrap()] {
            assert!(links.verify(&key, last, None, &old));
            assert!(links.verify(&key, last, None, &links.sign(&key, last, None)));
            assert!(!links.verify(&key, last + 1, None, &forged), "longer than it can live");
            assert!(links.verify(&key, made_meanwhile, None, &meanwhile));
        }
        links.retire(UnixMillis(last * 1000)).unwrap();
        assert!(links.verify(&key, last, None, &old));
        links.retire(UnixMillis((last + 1) * 1000)).unwrap();
        assert!(!links.verify(&key, last, None, &old));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
