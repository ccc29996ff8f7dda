//! Users and service tokens.

use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::model::{grant::Grant, id::TokenId, name::UserId, principal::Role, time::UnixMillis};

/// A user. The record is created the first time a service names the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub created: UnixMillis,
    /// Caps the role a token claims; `None` leaves it as claimed.
    pub role: Option<Role>,
    /// Quota in bytes, where it differs from the configured default.
    pub quota: Option<u64>,
    pub disabled: bool,
    /// Public read does not serve the user's files.
    pub private: bool,
    /// Bytes that the user's open uploads reserve.
    pub reserved: u64,
}

impl UserRecord {
    /// A user with every default.
    pub fn new(id: UserId, created: UnixMillis) -> Self {
        Self { id, created, role: None, quota: None, disabled: false, private: false, reserved: 0 }
    }

    /// Checks that `asked` bytes, on top of those that the user has stored and reserved, fit the
    /// user's quota, or `default` if the record sets none.
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

/// The kind of credential that a service presents. Stored exactly as declared here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// A random text, of which only the digest is stored.
    Opaque,
    /// A JWT, identified by its `jti`.
    Jwt { jti: Box<str> },
}

/// The state of a token, apart from its expiry. Stored exactly as declared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenState {
    Active,
    /// A successor took its place. Until then both tokens are valid.
    Superseded {
        until: UnixMillis,
    },
    Revoked {
        at: UnixMillis,
    },
}

/// A service token. Stored exactly as declared here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// The digest of the token if it is opaque, of its `jti` if it is a JWT.
    pub digest: [u8; 32],
    pub kind: TokenKind,
    /// The name of the service.
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

    /// The first moment at which the token is no longer valid; `None` if it never ends.
    pub fn ends(&self) -> Option<UnixMillis> {
        match self.state {
            TokenState::Active => self.expires,
            TokenState::Superseded { until } => {
                Some(self.expires.map_or(until, |expires| expires.min(until)))
            }
            TokenState::Revoked { at } => Some(at),
        }
    }

    /// Whether the record may be removed, because it says nothing that the token does not say
    /// itself: the token is a JWT that expired before `before`. Only the record of an opaque token
    /// says that the token is no longer valid. Without it, whoever registers the same text gets a
    /// new token without limits and without an end.
    pub fn may_be_forgotten(&self, before: UnixMillis) -> bool {
        let is_jwt = matches!(self.kind, TokenKind::Jwt { .. });
        is_jwt && self.expires.is_some_and(|expires| expires < before)
    }

    /// Whether the token is valid at `now`. A revoked token never is, even if the clock steps back.
    pub fn is_good(&self, now: UnixMillis) -> bool {
        !matches!(self.state, TokenState::Revoked { .. }) && self.ends().is_none_or(|end| now < end)
    }
}

/// When and from where a token was last used. Stored exactly as declared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    pub at: UnixMillis,
    pub from: IpAddr,
}

/// Whose tokens [`Accounts::end_tokens`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// Every service.
    Services,
    Service(&'a str),
    User(&'a UserId),
}

/// A change of an optional member.
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

    /// The new value of a member that is not optional: [`Edit::Clear`] sets its default. `None` if
    /// the value stays.
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

/// A change of a user's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    pub role: Edit<Role>,
    pub quota: Edit<u64>,
    /// `None` leaves the value as it is, here and below.
    pub disabled: Option<bool>,
    pub private: Option<bool>,
    /// As the argument of [`Accounts::end_tokens`].
    pub tokens_valid_from: Option<u64>,
}

impl UserChange {
    /// Applies the changes of the record itself, which does not hold `tokens_valid_from`.
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
    /// The record of `id`, which is created at `now` if there is none.
    async fn ensure_user(&self, id: &UserId, now: UnixMillis) -> Result<UserRecord>;
    /// Users in order of their ids, after `after`, at most `limit`.
    async fn users(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<UserRecord>>;
    /// Changes a user's record, which is created at `now` if there is none.
    async fn change_user(
        &self,
        id: &UserId,
        change: UserChange,
        now: UnixMillis,
    ) -> Result<UserRecord>;
    /// Removes a user. Tokens issued before `valid_from` stay refused.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotEmpty`] when the user has files or open uploads.
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
    /// Adds a successor and lets the old token end at `until`, in one step.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Changed`] when the old token was superseded or revoked before;
    /// [`Error::Exists`] when the successor's digest is known.
    async fn supersede_service_token(
        &self,
        id: TokenId,
        until: UnixMillis,
        successor: ServiceToken,
    ) -> Result<()>;
    /// Revokes a token for good and returns it. A token that was revoked before keeps the time of
    /// its revocation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn revoke_service_token(&self, id: TokenId, at: UnixMillis) -> Result<ServiceToken>;

    /// Tokens of `holder` that were issued before this Unix second are no longer valid; 0 when no
    /// tokens were ended.
    async fn tokens_valid_from(&self, holder: Holder<'_>) -> Result<u64>;
    /// Ends all tokens of `holder` that were issued before the Unix second `valid_from`. The
    /// recorded second never moves back.
    async fn end_tokens(&self, holder: Holder<'_>, valid_from: u64) -> Result<()>;

    async fn token_use(&self, id: TokenId) -> Result<Option<TokenUse>>;
    /// Records the last uses of many tokens at once.
    async fn record_uses(&self, uses: Vec<(TokenId, TokenUse)>) -> Result<()>;
    /// Removes the records of tokens that [may be forgotten](ServiceToken::may_be_forgotten), at
    /// most `limit`, and of their uses, and returns how many tokens these were. One record always
    /// stays, because a store without any token counts as new.
    async fn forget_expired_tokens(&self, before: UnixMillis, limit: usize) -> Result<usize>;
}
