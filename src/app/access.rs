//! From what was sent to who is asking.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{App, Error, Result};
use crate::{
    auth::{
        jwt::{self, Refused, Subject, Verified},
        service_token,
    },
    model::{
        limits::OPAQUE_TOKEN_BYTES_MAX,
        name::UserId,
        principal::{Principal, Role},
        time::UnixMillis,
    },
};

/// A credential as it was carried.
pub enum Credential {
    /// An opaque service token or a service JWT.
    ServiceToken(Zeroizing<String>),
    /// A service or user JWT.
    Bearer(Zeroizing<String>),
    /// What cannot be a credential: a second header, another scheme, not text.
    Unusable(&'static str),
}

/// Tokens that were verified before. A token holds until it expires; the user behind it is looked
/// at on every request, so disabling takes effect at once.
#[derive(Default)]
pub struct Verifications {
    known: RwLock<HashMap<[u8; 32], Verified>>,
    /// When the key directory was last read again, in Unix seconds.
    reloaded: AtomicU64,
}

/// Tokens remembered at most.
const VERIFICATIONS_MAX: usize = 16_384;

impl Verifications {
    fn find(&self, digest: &[u8; 32], now: UnixMillis) -> Option<Verified> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|verified| now < verified.expires).cloned()
    }

    fn remember(&self, digest: [u8; 32], verified: Verified, now: UnixMillis) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= VERIFICATIONS_MAX {
            known.retain(|_, verified| now < verified.expires);
        }
        if known.len() >= VERIFICATIONS_MAX {
            known.clear();
        }
        known.insert(digest, verified);
    }

    fn forget(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// At most once a second: unknown keys are cheap to make up.
    fn may_reload(&self, now: UnixMillis) -> bool {
        self.reloaded.swap(now.seconds(), Ordering::Relaxed) != now.seconds()
    }
}

impl App {
    /// Checks every credential that was sent; the first one, in order of precedence, speaks. A
    /// bad one is refused even where another is good. `None` when nothing was sent.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn authenticate(&self, credentials: &[Credential]) -> Result<Option<Principal>> {
        let mut speaking = None;
        for credential in credentials {
            let principal = match credential {
                Credential::Unusable(why) => return Err(refused(why)),
                Credential::Bearer(token) => self.bearer(token).await?,
                Credential::ServiceToken(token) => self.service_token(token).await?,
            };
            speaking.get_or_insert(principal);
        }
        Ok(speaking)
    }

    async fn service_token(&self, token: &str) -> Result<Principal> {
        if token.len() <= OPAQUE_TOKEN_BYTES_MAX
            && let Some(known) = self.meta.service_token(&service_token::digest(token)).await?
        {
            return Ok(Principal::Service { name: known.name });
        }
        if token.matches('.').count() != 2 {
            return Err(refused("unknown service token"));
        }
        match self.bearer(token).await? {
            service @ Principal::Service { .. } => Ok(service),
            Principal::User { .. } => Err(refused("a user token in place of a service token")),
        }
    }

    async fn bearer(&self, token: &str) -> Result<Principal> {
        match self.verify(token).await?.subject {
            Subject::Service { name } => Ok(Principal::Service { name }),
            Subject::User { id, role } => self.user(id, role).await,
        }
    }

    /// The role is what the token claims, capped by what the user's record says.
    async fn user(&self, id: UserId, claimed: Role) -> Result<Principal> {
        let record = self.meta.user(&id).await?;
        if record.as_ref().is_some_and(|record| record.disabled) {
            return Err(refused("the user is disabled"));
        }
        let cap = record.and_then(|record| record.role).unwrap_or(Role::Admin);
        Ok(Principal::User { id, role: claimed.min(cap) })
    }

    async fn verify(&self, token: &str) -> Result<Verified> {
        let now = self.clock.now();
        let check = || jwt::verify(token, &self.keys, &self.policy.tokens, now);
        let digest = service_token::digest(token);
        if let Some(verified) = self.verified.find(&digest, now) {
            return Ok(verified);
        }
        let mut outcome = check();
        if outcome == Err(Refused::UnknownKey) && self.verified.may_reload(now) {
            let keys = Arc::clone(&self.keys);
            match spawn_blocking(move || keys.reload()).await {
                Ok(Ok(())) => {
                    // A key may have been taken away, too.
                    self.verified.forget();
                    outcome = check();
                }
                Ok(Err(error)) => tracing::warn!(%error, "the key directory cannot be read"),
                Err(error) => tracing::warn!(%error, "the key directory cannot be read"),
            }
        }
        let verified = outcome.map_err(|why| refused(&why.to_string()))?;
        self.verified.remember(digest, verified.clone(), now);
        Ok(verified)
    }

    /// Whose files a request is about: a service says, everybody else is who the token says.
    /// With `as_admin`, an admin may say too.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a service names nobody.
    pub fn acting_for(
        &self,
        principal: &Principal,
        named: Option<UserId>,
        as_admin: bool,
    ) -> Result<UserId> {
        match (principal, named) {
            (Principal::Service { .. }, Some(named)) => Ok(named),
            (Principal::Service { .. }, None) => Err(Error::invalid(
                "user_required",
                "A service names the user it acts for: user_id or user_email.",
            )),
            (Principal::User { role, .. }, Some(named)) if as_admin && *role >= Role::Admin => {
                Ok(named)
            }
            (Principal::User { id, .. }, _) => Ok(id.clone()),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::Unauthenticated(why.to_owned())
}
