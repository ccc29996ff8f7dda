//! RSA keys as files: `keys/<kid>.pem`, PKCS#8, mode 0600.
//!
//! Keys are files and not records so that `token generate` works beside a running daemon. The
//! daemon reads the directory again when a token names a key it does not know.
//!
//! The `rsa` crate makes and converts keys; it signs nothing (RUSTSEC-2023-0071).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
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

use crate::sys::durable;

const KEY_BITS: usize = 2048;

/// One signing key.
pub struct SigningKey {
    /// JWK thumbprint (RFC 7638), base64url.
    pub kid: String,
    /// Modulus and exponent, base64url without padding (RFC 7518 section 6.3.1).
    pub n: String,
    pub e: String,
    pub(super) private: EncodingKey,
    pub(super) public: DecodingKey,
    modified: SystemTime,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// The keys of a data directory, newest first.
pub struct KeyRing {
    dir: PathBuf,
    keys: RwLock<Arc<[Arc<SigningKey>]>>,
}

impl KeyRing {
    /// Reads `keys/`, making the directory and a first key when there is none. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read or is not an RSA key of at least 2048 bits; the file is named.
    pub fn open(dir: &Path) -> io::Result<Self> {
        durable::create_dir(dir)?;
        // Of two processes that start on an empty directory, the second finds the first's key.
        let lock = durable::lock_dir(dir)?;
        let mut keys = load(dir)?;
        if keys.is_empty() {
            generate(dir)?;
            keys = load(dir)?;
        }
        drop(lock);
        Ok(Self { dir: dir.to_owned(), keys: RwLock::new(keys.into()) })
    }

    /// Reads the directory again. Blocks.
    ///
    /// # Errors
    /// As [`KeyRing::open`]; the keys held stay then.
    pub fn reload(&self) -> io::Result<()> {
        let keys = load(&self.dir)?;
        if !keys.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        }
        Ok(())
    }

    pub fn keys(&self) -> Arc<[Arc<SigningKey>]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// Never in a ring that [`KeyRing::open`] made.
    pub fn signer(&self) -> io::Result<Arc<SigningKey>> {
        self.keys().first().cloned().ok_or_else(|| io::Error::other("the key ring is empty"))
    }
}

fn generate(dir: &Path) -> io::Result<()> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(io::Error::other)?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    let (n, e) = components(&key);
    durable::write_file(&dir.join(format!("{}.pem", thumbprint(&n, &e))), pem.as_bytes())
}

fn load(dir: &Path) -> io::Result<Vec<Arc<SigningKey>>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            let key = read(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            keys.push(Arc::new(key));
        }
    }
    keys.sort_by(|a, b| (b.modified, &b.kid).cmp(&(a.modified, &a.kid)));
    Ok(keys)
}

fn read(path: &Path) -> io::Result<SigningKey> {
    let pem = Zeroizing::new(fs::read_to_string(path)?);
    let key = RsaPrivateKey::from_pkcs8_pem(&pem)
        .or_else(|_| RsaPrivateKey::from_pkcs1_pem(&pem))
        .map_err(|_| io::Error::other("not an RSA private key in PEM (PKCS#8 or PKCS#1)"))?;
    if key.size() * 8 < KEY_BITS {
        return Err(io::Error::other("an RSA key needs at least 2048 bits"));
    }
    let der = key.to_pkcs1_der().map_err(io::Error::other)?;
    let (n, e) = components(&key);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Ok(SigningKey {
        kid: thumbprint(&n, &e),
        private: EncodingKey::from_rsa_der(der.as_bytes()),
        public: DecodingKey::from_rsa_raw_components(&n, &e),
        n: encode(&n),
        e: encode(&e),
        modified: fs::metadata(path)?.modified()?,
    })
}

fn components(key: &RsaPrivateKey) -> (Vec<u8>, Vec<u8>) {
    (key.n().to_bytes_be(), key.e().to_bytes_be())
}

/// RFC 7638: the SHA-256 of the key's required members in this order, without spaces.
fn thumbprint(n: &[u8], e: &[u8]) -> String {
    let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
    let members = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_section_3_1() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L\
                 6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ\
                 5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD\
                 08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEg\
                 U8awapJzKnqDKgw";
        let n = URL_SAFE_NO_PAD.decode(n).unwrap();
        let print = thumbprint(&n, &[1, 0, 1]);
        assert_eq!(print, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_first_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let ring = KeyRing::open(&keys).unwrap();
        let kid = ring.signer().unwrap().kid.clone();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&keys), 0o700);
        assert_eq!(mode(&keys.join(format!("{kid}.pem"))), 0o600);
        assert_eq!(KeyRing::open(&keys).unwrap().signer().unwrap().kid, kid);
        fs::write(keys.join("broken.pem"), "no key").unwrap();
        assert!(KeyRing::open(&keys).err().unwrap().to_string().contains("broken.pem"));
    }
}
