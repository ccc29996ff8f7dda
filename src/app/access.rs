//! From the credentials of a request to the principal behind it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

use super::{App, Error, Result};
use crate::{
    auth::{
        jwt::{self, Refused, Subject, Verified},
        service_token,
    },
    meta::{
        Asker,
        accounts::{Holder, ServiceToken, TokenState, TokenUse},
    },
    model::{
        id::TokenId,
        limits::{JWT_BYTES_MAX, OPAQUE_TOKEN_BYTES_MAX},
        name::{Folder, UserId},
        principal::{Principal, Role, TokenStamp},
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

/// Cache of credentials that were verified before. An entry lasts until its credential expires. All
/// entries are dropped when a token, a user or a key changes, before that change is answered.
#[derive(Default)]
pub struct Verifications {
    known: RwLock<Memory>,
    /// When the key directory was last read again, in Unix seconds.
    reloaded: AtomicU64,
}

#[derive(Default)]
struct Memory {
    credentials: HashMap<[u8; 32], Known>,
    /// Raised whenever all entries are dropped: a result looked up before then may be out of date.
    epoch: u64,
}

/// What a good credential proves.
#[derive(Clone)]
struct Known {
    principal: Principal,
    is_opaque: bool,
    /// The first moment at which the credential is no longer good.
    expires: UnixMillis,
}

/// Most credentials in the cache.
const VERIFICATIONS_MAX: usize = 16_384;

impl Verifications {
    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often all entries were dropped.
    fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// The entry of a credential, or else the epoch to pass to [`Verifications::remember`].
    fn find(&self, digest: &[u8; 32], now: UnixMillis) -> std::result::Result<Known, u64> {
        let memory = self.read();
        let known = memory.credentials.get(digest).filter(|known| now < known.expires);
        known.cloned().ok_or(memory.epoch)
    }

    fn remember(&self, digest: [u8; 32], known: Known, epoch: u64, now: UnixMillis) {
        let mut memory = self.write();
        if memory.epoch != epoch {
            return;
        }
        let credentials = &mut memory.credentials;
        if credentials.len() >= VERIFICATIONS_MAX {
            credentials.retain(|_, known| now < known.expires);
        }
        if credentials.len() >= VERIFICATIONS_MAX {
            credentials.clear();
        }
        credentials.insert(digest, known);
    }

    pub(super) fn forget(&self) {
        let mut memory = self.write();
        memory.credentials.clear();
        memory.epoch += 1;
    }

    /// Whether the key directory may be read again: at most once a second, since anybody can make
    /// up unknown keys.
    fn may_reload(&self, now: UnixMillis) -> bool {
        self.reloaded.swap(now.seconds(), Ordering::Relaxed) != now.seconds()
    }
}

impl App {
    /// Checks every credential of a request from an address. The first one, in order of precedence,
    /// determines the principal. A bad credential is refused even beside a good one. Returns `None`
    /// when no credential was sent.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn authenticate(
        &self,
        credentials: &[Credential],
        from: IpAddr,
    ) -> Result<Option<Principal>> {
        let now = self.clock.now();
        let mut speaking = None;
        for credential in credentials {
            let principal = match credential {
                Credential::Unusable(why) => return Err(refused(why)),
                Credential::Bearer(token) => {
                    let known = self.known(token, false, now).await?;
                    if known.is_opaque {
                        return Err(refused("an opaque token where a JWT is expected"));
                    }
                    known.principal
                }
                Credential::ServiceToken(token) => {
                    let known = self.known(token, true, now).await?;
                    if matches!(known.principal, Principal::User { .. }) {
                        return Err(refused("a user token where a service token is expected"));
                    }
                    known.principal
                }
            };
            if let Principal::Service { token, grant, .. } = &principal {
                if !grant.admits(from) {
                    return Err(refused("the token does not allow this address"));
                }
                self.uses.note(token.id, TokenUse { at: now, from });
            }
            speaking.get_or_insert(principal);
        }
        Ok(speaking)
    }

    /// What a credential proves. A credential seen before costs a digest and a look-up in memory.
    async fn known(&self, token: &str, may_be_opaque: bool, now: UnixMillis) -> Result<Known> {
        if token.len() > OPAQUE_TOKEN_BYTES_MAX.max(JWT_BYTES_MAX) {
            return Err(refused("the credential is too long"));
        }
        let digest = service_token::digest(token);
        let epoch = match self.verified.find(&digest, now) {
            Ok(known) => return Ok(known),
            Err(epoch) => epoch,
        };
        let opaque = if may_be_opaque { self.meta.service_token(&digest).await? } else { None };
        let known = match opaque {
            Some(record) => self.opaque(record, epoch, now).await?,
            None if token.matches('.').count() == 2 => self.jwt(token, &digest, epoch, now).await?,
            None => return Err(refused("unknown service token")),
        };
        self.verified.remember(digest, known.clone(), epoch, now);
        Ok(known)
    }

    async fn opaque(&self, record: ServiceToken, epoch: u64, now: UnixMillis) -> Result<Known> {
        let issued = record.created.seconds();
        self.check_record(&record, now)?;
        self.check_issue(Holder::Service(&record.name), issued).await?;
        let expires = record.ends().unwrap_or(UnixMillis(u64::MAX));
        let token = TokenStamp { id: record.id(), issued, epoch };
        let (name, grant) = (record.name, Arc::new(record.grant));
        let principal = Principal::Service { name, token, grant, acts_for: None };
        Ok(Known { principal, is_opaque: true, expires })
    }

    async fn jwt(
        &self,
        token: &str,
        digest: &[u8; 32],
        epoch: u64,
        now: UnixMillis,
    ) -> Result<Known> {
        let Verified { subject, mut expires, issued, jti, limited } =
            self.verify(token, now).await?;
        let digest = jti.as_deref().map_or(*digest, service_token::jti_digest);
        let record = self.meta.service_token(&digest).await?;
        let token = TokenStamp { id: TokenId::of(&digest), issued, epoch };
        let principal = match subject {
            // A user's token has a record only when its `jti` was revoked.
            Subject::User { id, role } => self.user(id, role, token, record).await?,
            Subject::Service { name } => {
                if let Some(record) = &record {
                    self.check_record(record, now)?;
                    expires = record.ends().map_or(expires, |end| end.min(expires));
                } else if limited {
                    return Err(refused("the record with the limits of the token is gone"));
                }
                self.check_issue(Holder::Service(&name), issued).await?;
                let grant = Arc::new(record.map(|record| record.grant).unwrap_or_default());
                Principal::Service { name, token, grant, acts_for: None }
            }
        };
        Ok(Known { principal, is_opaque: false, expires })
    }

    fn check_record(&self, record: &ServiceToken, now: UnixMillis) -> Result<()> {
        match record.state {
            TokenState::Revoked { .. } => Err(refused("the service token is revoked")),
            _ if record.is_good(now) => Ok(()),
            _ => Err(refused("the service token has ended")),
        }
    }

    /// Refuses a token that was issued before the tokens of its holder were revoked.
    async fn check_issue(&self, holder: Holder<'_>, issued: u64) -> Result<()> {
        if issued >= self.first_good_second(holder).await? {
            return Ok(());
        }
        Err(refused(match holder {
            Holder::User(_) => "the user was logged out",
            Holder::Service(_) | Holder::Services => "the tokens of this service were revoked",
        }))
    }

    /// Whether the sender of a body is still admitted when the body ends. Its token may expire
    /// meanwhile. A token that was revoked or replaced is refused, and so is a user who was
    /// disabled, logged out or deleted.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub async fn check_standing(&self, principal: &Principal) -> Result<()> {
        let token = principal.token();
        if token.epoch == self.verified.epoch() {
            return Ok(());
        }
        let record = self.meta.service_token_by_id(token.id).await?;
        match principal {
            Principal::User { id, role, .. } => {
                self.user(id.clone(), *role, token, record).await?;
                Ok(())
            }
            Principal::Service { name, .. } => {
                let now = self.clock.now();
                match record.map(|record| record.state) {
                    Some(TokenState::Revoked { .. }) => {
                        return Err(refused("the service token was revoked meanwhile"));
                    }
                    Some(TokenState::Superseded { until }) if until <= now => {
                        return Err(refused("the service token was replaced meanwhile"));
                    }
                    _ => {}
                }
                self.check_issue(Holder::Service(name), token.issued).await
            }
        }
    }

    /// The role is the one that the token claims, capped by the user's record.
    async fn user(
        &self,
        id: UserId,
        claimed: Role,
        token: TokenStamp,
        revocation: Option<ServiceToken>,
    ) -> Result<Principal> {
        if revocation.is_some_and(|record| matches!(record.state, TokenState::Revoked { .. })) {
            return Err(refused("the token is revoked"));
        }
        let record = self.meta.user(&id).await?;
        if record.as_ref().is_some_and(|record| record.disabled) {
            return Err(refused("the user is disabled"));
        }
        self.check_issue(Holder::User(&id), token.issued).await?;
        let cap = record.and_then(|record| record.role).unwrap_or(Role::Admin);
        Ok(Principal::User { id, role: claimed.min(cap), token })
    }

    async fn verify(&self, token: &str, now: UnixMillis) -> Result<Verified> {
        let check = || jwt::verify(token, &self.keys, &self.policy().tokens, now);
        let mut outcome = check();
        if outcome == Err(Refused::UnknownKey) && self.verified.may_reload(now) {
            // The reload may also find that a key was removed. The cache is then dropped, but not
            // for a `kid` that somebody made up.
            match self.with_keys(|keys, _| keys.reload()).await {
                Ok(()) => outcome = check(),
                Err(error) => tracing::warn!(%error, "the key directory cannot be read"),
            }
        }
        outcome.map_err(|why| refused(&why.to_string()))
    }

    /// Whether a service's token grants a folder of a user. Users are not limited in this way.
    ///
    /// # Errors
    /// [`Error::OutOfScope`].
    pub fn check_scope(
        &self,
        principal: &Principal,
        owner: &UserId,
        folder: &Folder,
    ) -> Result<()> {
        if !principal.reaches_user(owner) {
            return Err(Error::OutOfScope("user"));
        }
        if principal.reaches(owner, folder) { Ok(()) } else { Err(Error::OutOfScope("folder")) }
    }

    /// The principal, asking for the user whom another part of its request names. This applies to
    /// services; everybody else asks as the user of the token.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a service names two users.
    pub fn naming(&self, principal: &Principal, named: Option<UserId>) -> Result<Principal> {
        let detail = "The query names one user, and the body names another.";
        principal.naming(named).ok_or_else(|| Error::conflict("owner_mismatch", detail))
    }

    /// The user whose files a request is about. A service names that user; for everybody else it is
    /// the user of the token. With `as_admin`, an admin may name a user too.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a service names no user, [`Error::Conflict`] when it names two,
    /// [`Error::OutOfScope`] for a user that its token does not grant.
    pub fn acting_for(
        &self,
        principal: &Principal,
        named: Option<UserId>,
        as_admin: bool,
    ) -> Result<UserId> {
        match (principal, named) {
            (Principal::Service { .. }, named) => {
                let detail = "A service must name the user it acts for: user_id or user_email.";
                let missing = || Error::invalid("user_required", detail);
                let owner = self.naming(principal, named)?.named().cloned().ok_or_else(missing)?;
                let is_granted = principal.reaches_user(&owner);
                if is_granted { Ok(owner) } else { Err(Error::OutOfScope("user")) }
            }
            (Principal::User { role, .. }, Some(named)) if as_admin && *role >= Role::Admin => {
                Ok(named)
            }
            (Principal::User { id, .. }, _) => Ok(id.clone()),
        }
    }
}

/// The caller, in the form that the metadata store needs.
pub(super) fn asker(principal: &Principal) -> Asker {
    match principal {
        Principal::Service { .. } => Asker::Service,
        Principal::User { token, .. } => Asker::Owner { issued: token.issued },
    }
}

fn refused(why: &str) -> Error {
    Error::Unauthenticated(why.to_owned())
}
