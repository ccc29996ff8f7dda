//! Users and service tokens on the reference engine.

use async_trait::async_trait;

use super::{Error, MemoryMetadata, Result, State, behind};
use crate::{
    meta::accounts::{
        Accounts, Holder, ServiceToken, TokenState, TokenUse, UserChange, UserRecord,
    },
    model::{id::TokenId, name::UserId, time::UnixMillis, upload::UploadState},
};

impl State {
    fn add_token(&mut self, token: ServiceToken) -> Result<()> {
        if self.tokens.contains_key(&token.id()) {
            return Err(Error::Exists);
        }
        self.tokens.insert(token.id(), token);
        Ok(())
    }

    pub(super) fn valid_from(&self, holder: Holder<'_>) -> u64 {
        self.valid_from.get(&format!("{holder:?}")).copied().unwrap_or(0)
    }

    fn end_tokens(&mut self, holder: Holder<'_>, second: u64) {
        let valid_from = self.valid_from.entry(format!("{holder:?}")).or_default();
        *valid_from = second.max(*valid_from);
    }
}

#[async_trait]
impl Accounts for MemoryMetadata {
    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>> {
        Ok(self.read().users.get(id).cloned())
    }

    async fn ensure_user(&self, id: &UserId, now: UnixMillis) -> Result<UserRecord> {
        self.step(|state| Ok(state.user(id, now).clone()))
    }

    async fn users(&self, after: Option<&UserId>, limit: usize) -> Result<Vec<UserRecord>> {
        let state = self.read();
        let users = state.users.range(behind(after.cloned()));
        Ok(users.map(|(_, user)| user.clone()).take(limit).collect())
    }

    async fn change_user(
        &self,
        id: &UserId,
        change: UserChange,
        now: UnixMillis,
    ) -> Result<UserRecord> {
        self.step(|state| {
            let user = state.user(id, now);
            change.apply(user);
            let user = user.clone();
            if let Some(second) = change.tokens_valid_from {
                state.end_tokens(Holder::User(id), second);
            }
            Ok(user)
        })
    }

    async fn remove_user(&self, id: &UserId, valid_from: u64) -> Result<()> {
        self.step(|state| {
            state.users.remove(id).ok_or(Error::NotFound)?;
            let is_open = |state: &UploadState| *state == UploadState::Open;
            let mut uploads = state.uploads.values();
            if uploads.any(|upload| upload.owner == *id && is_open(&upload.state))
                || state.files.values().any(|file| file.owner == *id)
            {
                return Err(Error::NotEmpty);
            }
            state.end_tokens(Holder::User(id), valid_from);
            Ok(())
        })
    }

    async fn service_token(&self, digest: &[u8; 32]) -> Result<Option<ServiceToken>> {
        let state = self.read();
        Ok(state.tokens.values().find(|token| token.digest == *digest).cloned())
    }

    async fn add_service_token(&self, token: ServiceToken) -> Result<()> {
        self.step(|state| state.add_token(token))
    }

    async fn has_service_tokens(&self) -> Result<bool> {
        Ok(!self.read().tokens.is_empty())
    }

    async fn service_token_by_id(&self, id: TokenId) -> Result<Option<ServiceToken>> {
        Ok(self.read().tokens.get(&id).cloned())
    }

    async fn service_tokens(
        &self,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<ServiceToken>> {
        let state = self.read();
        let tokens = state.tokens.range(behind(after));
        Ok(tokens.map(|(_, token)| token.clone()).take(limit).collect())
    }

    async fn supersede_service_token(
        &self,
        id: TokenId,
        until: UnixMillis,
        successor: ServiceToken,
    ) -> Result<()> {
        self.step(|state| {
            let token = state.tokens.get_mut(&id).ok_or(Error::NotFound)?;
            if token.state != TokenState::Active {
                return Err(Error::Changed);
            }
            token.state = TokenState::Superseded { until };
            state.add_token(successor)
        })
    }

    async fn revoke_service_token(&self, id: TokenId, at: UnixMillis) -> Result<ServiceToken> {
        self.step(|state| {
            let token = state.tokens.get_mut(&id).ok_or(Error::NotFound)?;
            if !matches!(token.state, TokenState::Revoked { .. }) {
                token.state = TokenState::Revoked { at };
            }
            Ok(token.clone())
        })
    }

    async fn tokens_valid_from(&self, holder: Holder<'_>) -> Result<u64> {
        Ok(self.read().valid_from(holder))
    }

    async fn end_tokens(&self, holder: Holder<'_>, valid_from: u64) -> Result<()> {
        self.step(|state| {
            state.end_tokens(holder, valid_from);
            Ok(())
        })
    }

    async fn token_use(&self, id: TokenId) -> Result<Option<TokenUse>> {
        Ok(self.read().uses.get(&id).copied())
    }

    async fn record_uses(&self, uses: Vec<(TokenId, TokenUse)>) -> Result<()> {
        self.step(|state| {
            state.uses.extend(uses);
            Ok(())
        })
    }

    async fn forget_expired_tokens(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        self.step(|state| {
            let limit = limit.min(state.tokens.len().saturating_sub(1));
            let tokens = state.tokens.values();
            let expired = tokens.filter(|token| token.may_be_forgotten(before));
            let expired: Vec<_> = expired.map(ServiceToken::id).take(limit).collect();
            for id in &expired {
                state.tokens.remove(id);
                state.uses.remove(id);
            }
            Ok(expired.len())
        })
    }
}
