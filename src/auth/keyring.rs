//! RSA keys as files: `keys/<kid>.pem`, PKCS#8, mode 0600.
//!
//! Keys are files, not records, so that `token generate` works beside a running daemon. The daemon
//! reads the directory again when a token names a key that it does not know, and now and then.
//!
//! The `rsa` crate makes and converts keys; it signs nothing (RUSTSEC-2023-0071).
//!
//! A rotation records in the schedule when the new key begins to sign, then writes the key, which
//! is published from then on. The old key stays until the last token that it signed has expired.
//! That time is recorded before each token is signed. A crash between any two steps leaves a ring
//! that works. If the disk does not take that record, a ring that stays in memory may remember the
//! time until it does: users who only read need tokens too, and so does whoever wants to delete
//! something from a full disk.

mod schedule;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rsa::{
    RsaPrivateKey,
    pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
    traits::PublicKeyParts,
};
use zeroize::Zeroizing;

use self::schedule::{Entry, Schedule};
use crate::{
    model::{
        limits::{CLOCK_LEEWAY_SECONDS, SERVICE_TOKEN_DAYS},
        time::UnixMillis,
    },
    sys::{durable, fault},
};

const KEY_BITS: usize = 2048;
const DAY_SECONDS: u64 = 24 * 3600;
/// No token of ours lives longer. A key is kept this long if nothing is recorded of its tokens.
const LIFE_SECONDS_MAX: u64 = *SERVICE_TOKEN_DAYS.end() * DAY_SECONDS;

/// One signing key. Times are Unix seconds.
pub struct SigningKey {
    /// JWK thumbprint (RFC 7638), base64url.
    pub kid: String,
    /// Modulus and exponent, base64url without padding (RFC 7518 section 6.3.1).
    pub n: String,
    pub e: String,
    /// `None` for a key that never signs.
    pub signs_from: Option<u64>,
    pub(super) private: EncodingKey,
    pub(super) public: DecodingKey,
    /// No token that it signed expires later.
    last_expiry: AtomicU64,
    /// The value of `last_expiry` that is recorded on the disk.
    noted: AtomicU64,
}

impl SigningKey {
    pub fn last_expiry(&self) -> u64 {
        self.last_expiry.load(Ordering::Acquire)
    }

    fn is_unnoted(&self) -> bool {
        self.last_expiry() > self.noted.load(Ordering::Acquire)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// The keys of a data directory, the one that begins to sign last first.
pub struct KeyRing {
    dir: PathBuf,
    keys: RwLock<Arc<[Arc<SigningKey>]>>,
}

impl KeyRing {
    /// Reads `keys/`. Makes the directory if it is missing, and a key if none of them signs.
    /// Blocks.
    ///
    /// # Errors
    /// When a file cannot be read or is not an RSA key of at least 2048 bits; the error names the
    /// file.
    pub fn open(dir: &Path) -> io::Result<Self> {
        durable::create_dir(dir)?;
        // Of two processes that start on an empty directory, the second finds the key of the first.
        let lock = durable::lock_dir(dir)?;
        // Temporary files may contain keys. The same lock is held while link keys are written.
        durable::remove_temporary(dir)?;
        let mut keys = load(dir)?;
        if none_signs(&keys) {
            publish(dir, &generate()?, Some(0), 0)?;
            keys = load(dir)?;
        }
        drop(lock);
        Ok(Self { dir: dir.to_owned(), keys: RwLock::new(keys.into()) })
    }

    /// Reads the directory again. Blocks.
    ///
    /// # Errors
    /// As [`KeyRing::open`]; the keys in memory stay then.
    pub fn reload(&self) -> io::Result<()> {
        let keys = load(&self.dir)?;
        if !keys.is_empty() {
            let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            // A time that could not be recorded yet is not forgotten.
            for key in known.iter() {
                if let Some(again) = keys.iter().find(|again| again.kid == key.kid) {
                    again.last_expiry.fetch_max(key.last_expiry(), Ordering::AcqRel);
                }
            }
            *known = keys.into();
        }
        Ok(())
    }

    pub fn keys(&self) -> Arc<[Arc<SigningKey>]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that signs at a time.
    ///
    /// # Errors
    /// When the files of all keys that sign were removed; [`KeyRing::retire`] makes another key.
    pub fn signer(&self, now: UnixMillis) -> io::Result<Arc<SigningKey>> {
        signer(&self.keys(), now)
    }

    /// The key that signs now. Before this returns, it is recorded that the key signs a token that
    /// lives until `expires`, so that the key is kept until then. Blocks, on most days once.
    ///
    /// # Errors
    /// When this cannot be recorded.
    pub fn signer_until(&self, now: UnixMillis, expires: u64) -> io::Result<Arc<SigningKey>> {
        let key = self.promise(now, expires)?;
        self.note()?;
        Ok(key)
    }

    /// As [`KeyRing::signer_until`], but works also while the disk cannot be written: then this
    /// ring remembers the time, and [`KeyRing::note`] records it later.
    ///
    /// # Errors
    /// When no key signs, or when the schedule cannot be parsed.
    pub fn signer_meanwhile(&self, now: UnixMillis, expires: u64) -> io::Result<Arc<SigningKey>> {
        let key = self.promise(now, expires)?;
        if let Err(error) = self.note() {
            if error.raw_os_error().is_none() {
                return Err(error);
            }
            let kid = &key.kid;
            tracing::warn!(kid, %error, "the last expiry of a signing key is not recorded yet");
        }
        Ok(key)
    }

    /// The key that signs now. The ring knows from here on that the key is needed until `expires`.
    fn promise(&self, now: UnixMillis, expires: u64) -> io::Result<Arc<SigningKey>> {
        // As long as this lock is held, no other keys take the place of these.
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = signer(&keys, now)?;
        if key.last_expiry() < expires {
            // One day more, so that the schedule is not written for every token.
            key.last_expiry.fetch_max(expires.saturating_add(DAY_SECONDS), Ordering::AcqRel);
        }
        Ok(key)
    }

    /// Records until when keys are needed, where that is not recorded yet. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; the ring still remembers it then.
    pub fn note(&self) -> io::Result<()> {
        if !self.keys().iter().any(|key| key.is_unnoted()) {
            return Ok(());
        }
        let _lock = durable::lock_dir(&self.dir)?;
        let mut schedule = Schedule::read(&self.dir)?;
        let mut notes = Vec::new();
        for key in self.keys().iter().filter(|key| key.is_unnoted()) {
            let noted = schedule.find(&key.kid).map_or(0, |entry| entry.last_expiry);
            let last_expiry = noted.max(key.last_expiry());
            let (kid, signs_from) = (key.kid.clone(), key.signs_from);
            schedule.set(Entry { kid, signs_from, last_expiry });
            notes.push((Arc::clone(key), last_expiry));
        }
        schedule.write(&self.dir)?;
        for (key, last_expiry) in notes {
            key.noted.fetch_max(last_expiry, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Publishes a new key and returns its id. The key signs once `after` has passed, until a key
    /// that was planned for later signs. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rotate(&self, now: UnixMillis, after: Duration) -> io::Result<String> {
        let key = generate()?;
        self.note()?;
        let lock = durable::lock_dir(&self.dir)?;
        let keys = load(&self.dir)?;
        let mut signs_from = now.after(after).seconds();
        // Two keys that begin in the same second would both want to sign.
        while keys.iter().any(|key| key.signs_from == Some(signs_from)) {
            signs_from += 1;
        }
        let kid = publish(&self.dir, &key, Some(signs_from), 0)?;
        drop(lock);
        self.reload()?;
        Ok(kid)
    }

    /// Imports a key whose tokens are in use. It signs no new tokens. Returns its id, or `None` for
    /// a key that is in the ring already. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for anything but an RSA private key of at least 2048 bits.
    pub fn import(&self, pem: &str, now: UnixMillis) -> io::Result<Option<String>> {
        let key = parse(pem)?;
        let lock = durable::lock_dir(&self.dir)?;
        let id = kid(&key);
        // Whatever its file is called: an operator may have put it there.
        if load(&self.dir).map_err(io::Error::other)?.iter().any(|known| known.kid == id) {
            return Ok(None);
        }
        let kid = publish(&self.dir, &key, None, now.seconds() + LIFE_SECONDS_MAX)?;
        drop(lock);
        self.reload()?;
        Ok(Some(kid))
    }

    /// Removes the keys whose tokens have all expired, and returns their ids. Makes a key if an
    /// operator left none that signs. Blocks.
    ///
    /// # Errors
    /// When a key cannot be removed or made.
    pub fn retire(&self, now: UnixMillis) -> io::Result<Vec<String>> {
        let _lock = durable::lock_dir(&self.dir)?;
        self.reload()?;
        if none_signs(&self.keys()) {
            publish(&self.dir, &generate()?, Some(0), 0)?;
            self.reload()?;
        }
        let signer = self.signer(now)?;
        let over = |key: &&Arc<SigningKey>| {
            let last = key.last_expiry().saturating_add(CLOCK_LEEWAY_SECONDS);
            key.signs_from < signer.signs_from && last < now.seconds()
        };
        let keys = self.keys();
        let over: Vec<String> = keys.iter().filter(over).map(|key| key.kid.clone()).collect();
        if over.is_empty() {
            return Ok(over);
        }
        for kid in &over {
            fs::remove_file(self.dir.join(format!("{kid}.pem")))?;
        }
        durable::sync_dir(&self.dir)?;
        fault::point("operator: key retired");
        let mut schedule = Schedule::read(&self.dir)?;
        schedule.keys.retain(|entry| !over.contains(&entry.kid));
        schedule.write(&self.dir)?;
        self.reload()?;
        Ok(over)
    }
}

/// See [`KeyRing::signer`].
fn signer(keys: &[Arc<SigningKey>], now: UnixMillis) -> io::Result<Arc<SigningKey>> {
    let begun = |key: &&Arc<SigningKey>| key.signs_from.is_some_and(|s| s <= now.seconds());
    // If the clock was set far back, the oldest key signs rather than none.
    let oldest = || keys.iter().rfind(|key| key.signs_from.is_some());
    let signer = keys.iter().find(begun).or_else(oldest).cloned();
    signer.ok_or_else(|| io::Error::other("no key can sign; streamlined key rotate makes one"))
}

/// Whether no key signs: every key was imported, or there is none.
fn none_signs(keys: &[Arc<SigningKey>]) -> bool {
    keys.iter().all(|key| key.signs_from.is_none())
}

fn generate() -> io::Result<RsaPrivateKey> {
    RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(io::Error::other)
}

/// Records when a key signs and until when its tokens live, then writes the key.
fn publish(
    dir: &Path,
    key: &RsaPrivateKey,
    signs_from: Option<u64>,
    last_expiry: u64,
) -> io::Result<String> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    let kid = kid(key);
    let mut schedule = Schedule::read(dir)?;
    schedule.set(Entry { kid: kid.clone(), signs_from, last_expiry });
    fault::point("keys: before the schedule");
    schedule.write(dir)?;
    fault::point("keys: scheduled");
    durable::write_file(&dir.join(format!("{kid}.pem")), pem.as_bytes())?;
    fault::point("keys: published");
    Ok(kid)
}

fn load(dir: &Path) -> io::Result<Vec<Arc<SigningKey>>> {
    let schedule = Schedule::read(dir)?;
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            let key = read(&path, &schedule).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            keys.push(Arc::new(key));
        }
    }
    keys.sort_by(|a, b| (b.signs_from, &b.kid).cmp(&(a.signs_from, &a.kid)));
    Ok(keys)
}

fn parse(pem: &str) -> io::Result<RsaPrivateKey> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let key = RsaPrivateKey::from_pkcs8_pem(pem)
        .or_else(|_| RsaPrivateKey::from_pkcs1_pem(pem))
        .map_err(|_| invalid("not an RSA private key in PEM (PKCS#8 or PKCS#1)"))?;
    if key.size() * 8 < KEY_BITS {
        return Err(invalid("too short: an RSA key needs at least 2048 bits"));
    }
    Ok(key)
}

fn read(path: &Path, schedule: &Schedule) -> io::Result<SigningKey> {
    let key = parse(&Zeroizing::new(fs::read_to_string(path)?))?;
    let der = key.to_pkcs1_der().map_err(io::Error::other)?;
    let (n, e) = components(&key);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let kid = thumbprint(&n, &e);
    let (signs_from, last_expiry) = if let Some(entry) = schedule.find(&kid) {
        (entry.signs_from, entry.last_expiry)
    } else {
        // An operator put it there. The newest such file signs, and nobody knows what it has
        // signed.
        let modified = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH);
        let modified = modified.unwrap_or_default().as_secs();
        (Some(modified), modified.saturating_add(LIFE_SECONDS_MAX))
    };
    Ok(SigningKey {
        kid,
        private: EncodingKey::from_rsa_der(der.as_bytes()),
        public: DecodingKey::from_rsa_raw_components(&n, &e),
        n: encode(&n),
        e: encode(&e),
        signs_from,
        last_expiry: AtomicU64::new(last_expiry),
        noted: AtomicU64::new(last_expiry),
    })
}

fn kid(key: &RsaPrivateKey) -> String {
    let (n, e) = components(key);
    thumbprint(&n, &e)
}

fn components(key: &RsaPrivateKey) -> (Vec<u8>, Vec<u8>) {
    (key.n().to_bytes_be(), key.e().to_bytes_be())
}

/// RFC 7638: the SHA-256 of the key's required members, in this order and without spaces.
fn thumbprint(n: &[u8], e: &[u8]) -> String {
    let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
    let members = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

#[cfg(test)]
mod tests;
