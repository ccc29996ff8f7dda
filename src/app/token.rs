//! Tokens that the daemon hands out, and the opaque ones it registers.

use super::{
    App, Error, Result,
    service_tokens::{Listed, Standing},
};
use crate::{
    auth::{jwt, keyring::KeyRing, service_token},
    meta::{
        self,
        accounts::{Holder, ServiceToken, TokenKind, TokenState},
    },
    model::{grant::Grant, limits::USER_TOKEN_HOURS, name::UserId, principal::Role},
    sys::random,
};

/// A user token and its life in seconds.
pub struct UserToken {
    pub token: String,
    pub expires_in: u64,
}

impl App {
    /// Makes a token for a user, and the user when a service names it for the first time. Its role
    /// is at most `cap`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a life outside 1 to 720 hours, [`Error::Conflict`] for a disabled
    /// user.
    pub async fn generate_token(&self, user: &UserId, hours: u64, cap: Role) -> Result<UserToken> {
        if !USER_TOKEN_HOURS.contains(&hours) {
            let detail = "expires_hours must be a whole number from 1 to 720.";
            return Err(Error::invalid("invalid_expires_hours", detail));
        }
        let now = self.clock.now();
        let record = self.meta.ensure_user(user, now).await?;
        if record.disabled {
            return Err(Error::conflict("user_disabled", "The user is disabled."));
        }
        let expires_in = hours * 3600;
        // Within the second in which the user was logged out, the next one counts.
        let valid_from = self.meta.tokens_valid_from(Holder::User(user)).await?;
        let issued = now.seconds().max(valid_from);
        let role = record.role.unwrap_or(Role::Researcher).min(cap);
        let (user, tokens) = (user.clone(), self.policy().tokens.clone());
        let expires = now.seconds() + expires_in;
        let sign = move |keys: &KeyRing, now| {
            let claims = jwt::UserClaims {
                user_id: user.as_str(),
                sub: user.as_str(),
                roles: role.as_str(),
                iss: &tokens.issuer,
                aud: &tokens.audience,
                iat: issued,
                exp: expires,
                jti: &random::token_id(),
            };
            jwt::sign(&claims, keys, now, expires)
        };
        Ok(UserToken { token: self.with_keys(sign).await?, expires_in })
    }

    /// Whether the token that everybody knows would be let in.
    ///
    /// # Errors
    /// What the store says.
    pub async fn admits_public_token(&self) -> Result<bool> {
        let public = self.meta.service_token(&service_token::digest(service_token::PUBLIC)).await?;
        let Some(public) = public else { return Ok(false) };
        let standing = self.token(&public.id().to_string()).await?.standing;
        Ok(matches!(standing, Standing::Active | Standing::Superseding))
    }

    /// Registers an opaque service token under a name; one that is known stays as it is. Answers
    /// how it stands.
    ///
    /// # Errors
    /// When the record cannot be made durable.
    pub async fn register_service_token(&self, token: &str, name: &str) -> Result<Listed> {
        let record = ServiceToken {
            digest: service_token::digest(token),
            kind: TokenKind::Opaque,
            name: name.into(),
            grant: Grant::default(),
            // Within the second in which those of its name were ended, the next one counts.
            created: self.issue_time(name).await?,
            expires: None,
            state: TokenState::Active,
        };
        let id = record.id();
        match self.meta.add_service_token(record).await {
            Ok(()) | Err(meta::Error::Exists) => self.token(&id.to_string()).await,
            Err(error) => Err(error.into()),
        }
    }
}
