//! Users and service tokens.

use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::model::{grant::Grant, id::TokenId, name::UserId, principal::Role, time::UnixMillis};

/// A user. Appears the first time a service names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub created: UnixMillis,
    /// Caps the role a token claims; `None` leaves it as claimed.
    pub role: Option<Role>,
    /// Bytes, where it differs from the configured default.
    pub quota: Option<u64>,
    pub disabled: bool,
    /// Public read passes the user's files by.
    pub private: bool,
    /// Bytes that open uploads may still turn into files.
    pub reserved: u64,
}

impl UserRecord {
    /// A user with every default.
    pub fn new(id: UserId, created: UnixMillis) -> Self {
        Self { id, created, role: None, quota: None, disabled: false, private: false, reserved: 0 }
    }

    /// Holds `asked` more bytes than it has stored and reserved to its quota, or to `default`.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub fn check_quota(&self, stored: u64, asked: u64, default: u64) -> Result<()> {
        let limit = self.quota.unwrap_or(default);
        let used = stored.saturating_add(self.reserved);
        if asked > 0 && used.saturating_add(asked) > limit {
            return Err(Error::Quota { limit, used, asked });
        }
        Ok(())
    }
}

/// What a service shows. Is stored as it stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// A random text, of which only the digest is known.
    Opaque,
    /// A JWT, by its `jti`.
    Jwt { jti: Box<str> },
}

/// How far the life of a token has come, besides its expiry. Is stored as it stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenState {
    Active,
    /// Another one took its place; until then both are good.
    Superseded {
        until: UnixMillis,
    },
    Revoked {
        at: UnixMillis,
    },
}

/// A service token. Is stored as it stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// Of the token when it is opaque, of its `jti` when it is a JWT.
    pub digest: [u8; 32],
    pub kind: TokenKind,
    /// Of the service.
    pub name: Box<str>,
    pub grant: Grant,
    pub created: UnixMillis,
    pub expires: Option<UnixMillis>,
    pub state: TokenState,
}

impl ServiceToken {
    pub fn id(&self) -> TokenId {
        TokenId::of(&self.digest)
    }

    /// The first moment at which it is no longer good; `None` for never.
    pub fn ends(&self) -> Option<UnixMillis> {
        match self.state {
            TokenState::Active => self.expires,
            TokenState::Superseded { until } => {
                Some(self.expires.map_or(until, |expires| expires.min(until)))
            }
            TokenState::Revoked { at } => Some(at),
        }
    }

    /// Whether its record says nothing that a JWT does not say itself, as that expired before a
    /// time. Of an opaque one nothing else says that it is not good: without its record its text
    /// is that of a new one, without limits and without an end, to whoever registers it.
    pub fn may_be_forgotten(&self, before: UnixMillis) -> bool {
        let is_jwt = matches!(self.kind, TokenKind::Jwt { .. });
        is_jwt && self.expires.is_some_and(|expires| expires < before)
    }

    /// Whether it is good at `now`. A revoked one never is, whatever a clock says that steps back.
    pub fn is_good(&self, now: UnixMillis) -> bool {
        !matches!(self.state, TokenState::Revoked { .. }) && self.ends().is_none_or(|end| now < end)
    }
}

/// When and from where a token was used last. Is stored as it stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    pub at: UnixMillis,
    pub from: IpAddr,
}

/// Whose tokens a time bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// Every service.
    Services,
    Service(&'a str),
    User(&'a UserId),
}

/// What becomes of a member that need not be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edit<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<T> Edit<T> {
    pub fn apply(self, member: Option<T>) -> Option<T> {
        match self {
            Self::Keep => member,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Edit<U> {
        match self {
            Self::Keep => Edit::Keep,
            Self::Clear => Edit::Clear,
            Self::Set(value) => Edit::Set(change(value)),
        }
    }

    /// The new value of a member that is always there; `None` where it stays.
    pub fn or_default(self) -> Option<T>
    where
        T: Default,
    {
        match self {
            Self::Keep => None,
            Self::Clear => Some(T::default()),
            Self::Set(value) => Some(value),
        }
    }
}

/// What of a user's record changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    pub role: Edit<Role>,
    pub quota: Edit<u64>,
    /// `None` leaves it as it is, here and below.
    pub disabled: Option<bool>,
    pub private: Option<bool>,
    /// As [`Accounts::end_tokens`] has it.
    pub tokens_valid_from: Option<u64>,
}

impl UserChange {
    /// Changes what the record itself holds.
    pub(super) fn apply(&self, user: &mut UserRecord) {
        user.role = self.role.apply(user.role);
        user.quota = self.quota.apply(user.quota);
        user.disabled = self.disabled.unwrap_or(user.disabled);
        user.private = self.private.unwrap_or(user.private);
    }
}

/// See the module. The promises of [`super::Metadata`] hold here too.
#[async_trait]
pub trait Accounts: Send + Sync {
    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>>;
    /// The record of `id`, made now if there is none.
    async fn ensure_user(&self, id: &UserId, now: UnixMillis) -> Result<UserRecord>;
    /// Users in order of their ids, after `after`, at most `limit`.
    async fn users(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<UserRecord>>;
    /// Changes a user's record, made at `now` if there is none.
    async fn change_user(
        &self,
        id: &UserId,
        change: UserChange,
        now: UnixMillis,
    ) -> Result<UserRecord>;
    /// Forgets a user. Tokens issued before `valid_from` stay refused.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotEmpty`] when it has files or open uploads.
    async fn remove_user(&self, id: &UserId, valid_from: u64) -> Result<()>;

    /// The token of this digest; the digests are compared in constant time.
    async fn service_token(&self, digest: &[u8; 32]) -> Result<Option<ServiceToken>>;
    /// # Errors
    /// [`Error::Exists`] when the digest is known.
    async fn add_service_token(&self, token: ServiceToken) -> Result<()>;
    async fn has_service_tokens(&self) -> Result<bool>;
    async fn service_token_by_id(&self, id: TokenId) -> Result<Option<ServiceToken>>;
    /// Service tokens in order of their ids, after `after`, at most `limit`.
    async fn service_tokens(
        &self,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<ServiceToken>>;
    /// Adds a successor and lets the token before it end at `until`, in one step.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Changed`] when it was superseded or revoked
    /// before; [`Error::Exists`] when the successor's digest is known.
    async fn supersede_service_token(
        &self,
        id: TokenId,
        until: UnixMillis,
        successor: ServiceToken,
    ) -> Result<()>;
    /// Ends a token for good and answers it; one that was revoked before keeps its time.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn revoke_service_token(&self, id: TokenId, at: UnixMillis) -> Result<ServiceToken>;

    /// The Unix second before which no token of `holder` that is still good was issued; 0 when
    /// nothing was ended.
    async fn tokens_valid_from(&self, holder: Holder<'_>) -> Result<u64>;
    /// Ends all tokens of `holder` that were issued before a Unix second; never moves it back.
    async fn end_tokens(&self, holder: Holder<'_>, valid_from: u64) -> Result<()>;

    async fn token_use(&self, id: TokenId) -> Result<Option<TokenUse>>;
    /// Notes the last uses of many tokens at once.
    async fn record_uses(&self, uses: Vec<(TokenId, TokenUse)>) -> Result<()>;
    /// Forgets tokens of which [`ServiceToken::may_be_forgotten`], at most `limit`, with their
    /// uses, and answers how many. One record always stays, as a store without any is a new one.
    async fn forget_expired_tokens(&self, before: UnixMillis, limit: usize) -> Result<usize>;
}
