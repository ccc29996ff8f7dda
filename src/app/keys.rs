//! Management of the signing keys.

use std::{io, sync::Arc, time::Duration};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{App, Error, Result};
use crate::{
    auth::{
        jwks::{self, JwkSet},
        keyring::KeyRing,
    },
    model::time::UnixMillis,
    sys::durable::is_full,
};

/// A signing key as an operator sees it. Times are Unix seconds.
pub struct ListedKey {
    pub kid: String,
    /// Whether it signs now.
    pub signs: bool,
    /// `None` for a key that never signs.
    pub signs_from: Option<u64>,
    /// The key is removed when another one signs and this time has passed.
    pub last_expiry: u64,
}

impl App {
    /// The public keys, for anybody who verifies tokens elsewhere.
    pub fn public_keys(&self) -> JwkSet {
        jwks::public_keys(&self.keys)
    }

    /// Every published key, the one that begins to sign last first. The directory is read again, so
    /// that a key which an operator added or removed there counts from now on.
    ///
    /// # Errors
    /// When a key cannot be read.
    pub async fn list_keys(&self) -> Result<Vec<ListedKey>> {
        let reloaded = self.with_keys(|keys, now| {
            keys.reload()?;
            Ok((keys.signer(now).ok(), keys.keys()))
        });
        let (signer, keys) = reloaded.await?;
        let listed = keys.iter().map(|key| ListedKey {
            kid: key.kid.clone(),
            signs: signer.as_ref().is_some_and(|signer| signer.kid == key.kid),
            signs_from: key.signs_from,
            last_expiry: key.last_expiry(),
        });
        Ok(listed.collect())
    }

    /// Publishes a new key, which signs once `after` has passed. Returns its id.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn rotate_key(&self, after: Duration) -> Result<String> {
        self.with_keys(move |keys, now| keys.rotate(now, after)).await
    }

    /// Signs links with a new key at once. Links that were made before stay valid.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn rotate_link_key(self: &Arc<Self>) -> Result<()> {
        let app = Arc::clone(self);
        self.with_keys(move |_, now| app.links.rotate(now)).await
    }

    /// Imports a key of another server, so that its tokens are accepted here. Returns its id.
    ///
    /// # Errors
    /// [`Error::Invalid`] for text that is not such a key; [`Error::Conflict`] for a key that is in
    /// the ring already.
    pub async fn import_key(&self, pem: Zeroizing<String>) -> Result<String> {
        let imported = self.with_keys(move |keys, now| match keys.import(&pem, now) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(error.to_string())),
            outcome => outcome.map(Ok),
        });
        match imported.await? {
            Ok(Some(kid)) => Ok(kid),
            Ok(None) => Err(Error::conflict("key_exists", "This key is already in the key ring.")),
            Err(why) => Err(Error::invalid("invalid_key", format!("The key is {why}."))),
        }
    }

    /// Reads the keys again, and removes those whose tokens have all expired.
    pub(super) async fn tend_keys(self: &Arc<Self>) -> Result<()> {
        let app = Arc::clone(self);
        let retired = self.with_keys(move |keys, now| {
            if !app.trusts_clock() {
                return keys.reload().map(|()| Vec::new());
            }
            app.links.retire(now)?;
            keys.reload()?;
            keys.note()?;
            keys.retire(now)
        });
        for kid in retired.await? {
            tracing::info!(kid, "a signing key was retired: its last token has expired");
        }
        Ok(())
    }

    /// Works with the keys where blocking is allowed. If the keys change, all cached verifications
    /// are dropped.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Unavailable`].
    pub(super) async fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KeyRing, UnixMillis) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (keys, now) = (Arc::clone(&self.keys), self.clock.now());
        let done = spawn_blocking(move || {
            let before = keys.keys();
            let outcome = work(&keys, now);
            let after = keys.keys();
            let changed = !before.iter().map(|key| &key.kid).eq(after.iter().map(|key| &key.kid));
            (outcome, changed)
        });
        let (outcome, changed) = done.await?;
        if changed {
            self.verified.forget();
        }
        outcome.map_err(|error| failed(&error))
    }
}

fn failed(error: &io::Error) -> Error {
    if is_full(error) { Error::NoSpace } else { Error::Unavailable(format!("keys: {error}")) }
}
