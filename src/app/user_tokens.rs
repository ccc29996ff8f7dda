//! Tokens for users.

use super::{App, Error, Result};
use crate::{
    auth::{jwt, keyring::KeyRing},
    meta::accounts::Holder,
    model::{limits::USER_TOKEN_HOURS, name::UserId, principal::Role},
    sys::random,
};

/// A user token and its life in seconds.
pub struct UserToken {
    pub token: String,
    pub expires_in: u64,
}

impl App {
    /// Makes a token for a user, and creates the user when a service names it for the first time.
    /// The token's role is at most `cap`.
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
        let issued = self.issue_time(Holder::User(user), now).await?.seconds();
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
            jwt::sign_meanwhile(&claims, keys, now, expires)
        };
        Ok(UserToken { token: self.with_keys(sign).await?, expires_in })
    }
}
