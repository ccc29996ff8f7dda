//! The life of service tokens: made, listed, rotated, revoked.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{App, Error, Result};
use crate::{
    auth::{jwt, keyring::KeyRing, service_token},
    meta::{
        self,
        accounts::{Holder, ServiceToken, TokenKind, TokenState, TokenUse},
    },
    model::{
        grant::Grant,
        id::TokenId,
        limits::{SERVICE_TOKEN_DAYS, is_service_name},
        time::UnixMillis,
    },
    sys::random,
};

/// What an operator asks for.
pub struct NewToken {
    pub name: Box<str>,
    pub is_jwt: bool,
    pub grant: Grant,
    /// `None`: an opaque one never ends, a JWT after a year.
    pub lifetime: Option<Duration>,
}

/// A token that was just made; nobody is told the secret again.
pub struct Issued {
    pub secret: Zeroizing<String>,
    pub token: ServiceToken,
}

/// A token as an operator sees it.
pub struct Listed {
    pub token: ServiceToken,
    pub standing: &'static str,
    pub used: Option<TokenUse>,
}

const JWT_LIFETIME: Duration = Duration::from_hours(365 * 24);
const DAY: Duration = Duration::from_hours(24);
/// Records read at a time while one is looked for by name.
const PAGE: usize = 256;

impl App {
    /// Makes a token. Its record is durable before anybody can use it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or a life out of bounds.
    pub async fn issue_token(self: &Arc<Self>, new: NewToken) -> Result<Issued> {
        let issued = self.make_token(new).await?;
        self.meta.add_service_token(issued.token.clone()).await?;
        Ok(issued)
    }

    async fn make_token(&self, new: NewToken) -> Result<Issued> {
        let NewToken { name, is_jwt, grant, lifetime } = new;
        if !is_service_name(&name) {
            let detail = "A service's name has 1 to 255 bytes and no control characters.";
            return Err(Error::invalid("invalid_token_name", detail));
        }
        let longest = DAY * u32::try_from(*SERVICE_TOKEN_DAYS.end()).unwrap_or(u32::MAX);
        let bounds = Duration::from_secs(1)..=longest;
        if lifetime.is_some_and(|lifetime| !bounds.contains(&lifetime)) {
            let detail = "A service's token lives 1 second to 3650 days.";
            return Err(Error::invalid("invalid_expires_in", detail));
        }
        let created = self.issue_time(&name).await?;
        if is_jwt {
            return self.sign_token(name, grant, created, lifetime.unwrap_or(JWT_LIFETIME)).await;
        }
        let secret = service_token::generate();
        let token = ServiceToken {
            digest: service_token::digest(&secret),
            kind: TokenKind::Opaque,
            name,
            grant,
            created,
            expires: lifetime.map(|lifetime| created.after(lifetime)),
            state: TokenState::Active,
        };
        Ok(Issued { secret, token })
    }

    /// Now, or the first second that counts when the tokens of the service were just ended.
    async fn issue_time(&self, name: &str) -> Result<UnixMillis> {
        let first = self.first_good_second(name).await?;
        Ok(self.clock.now().max(UnixMillis(first.saturating_mul(1000))))
    }

    async fn sign_token(
        &self,
        name: Box<str>,
        grant: Grant,
        created: UnixMillis,
        lifetime: Duration,
    ) -> Result<Issued> {
        let jti: Box<str> = random::token_id().into();
        let (iat, exp) = (created.seconds(), created.after(lifetime).seconds());
        let token = ServiceToken {
            digest: service_token::jti_digest(&jti),
            kind: TokenKind::Jwt { jti: jti.clone() },
            name: name.clone(),
            grant,
            created,
            expires: Some(UnixMillis(exp.saturating_mul(1000))),
            state: TokenState::Active,
        };
        let sign = move |keys: &KeyRing, now| {
            let claims = jwt::ServiceClaims { sub: &name, roles: "service", iat, exp, jti: &jti };
            jwt::sign(&claims, keys, now, exp)
        };
        Ok(Issued { secret: Zeroizing::new(self.with_keys(sign).await?), token })
    }

    /// Tokens in order of their ids, after `after`, at most `limit`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for token in self.meta.service_tokens(after, limit).await? {
            listed.push(self.listed(token).await?);
        }
        Ok(listed)
    }

    /// A token by its id, or by the name of its service when that has one good token only.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for a name that several have.
    pub async fn token(&self, id_or_name: &str) -> Result<Listed> {
        if let Some(id) = TokenId::parse(id_or_name)
            && let Some(token) = self.meta.service_token_by_id(id).await?
        {
            return self.listed(token).await;
        }
        let (mut named, mut after) = (Vec::new(), None);
        loop {
            let page = self.meta.service_tokens(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id());
            named.extend(page.into_iter().filter(|token| *token.name == *id_or_name));
        }
        let mut good = Vec::new();
        for token in named {
            let listed = self.listed(token).await?;
            if listed.standing == "active" {
                good.push(listed);
            }
        }
        if good.len() > 1 {
            let detail = "Several tokens have this name; say which one by its id.";
            return Err(Error::conflict("ambiguous_name", detail));
        }
        good.pop().ok_or(Error::NotFound("token"))
    }

    async fn listed(&self, token: ServiceToken) -> Result<Listed> {
        let now = self.clock.now();
        let ended = token.created.seconds() < self.first_good_second(&token.name).await?;
        let standing = match token.state {
            TokenState::Revoked { .. } => "revoked",
            _ if ended => "revoked",
            _ if token.expires.is_some_and(|expires| expires <= now) => "expired",
            TokenState::Superseded { until } if until <= now => "superseded",
            TokenState::Superseded { .. } => "superseding",
            TokenState::Active => "active",
        };
        let used = self.last_use(token.id()).await?;
        Ok(Listed { token, standing, used })
    }

    /// Makes a successor with the same name, grant and length of life. The token before it stays
    /// good for `grace`.
    ///
    /// # Errors
    /// As [`App::token`]; [`Error::Conflict`] for one that has ended or was rotated before.
    pub async fn rotate_token(
        self: &Arc<Self>,
        id_or_name: &str,
        grace: Duration,
    ) -> Result<(Issued, UnixMillis)> {
        let Listed { token, standing, .. } = self.token(id_or_name).await?;
        let over = || Error::conflict("token_ended", "The token has ended or was rotated before.");
        if standing != "active" {
            return Err(over());
        }
        let lifetime = token.expires.map(|expires| {
            Duration::from_millis(expires.0.saturating_sub(token.created.0))
                .max(Duration::from_secs(1))
        });
        let is_jwt = matches!(token.kind, TokenKind::Jwt { .. });
        let new =
            NewToken { name: token.name.clone(), is_jwt, grant: token.grant.clone(), lifetime };
        let issued = self.make_token(new).await?;
        let until = self.clock.now().after(grace);
        let (app, id, successor) = (Arc::clone(self), token.id(), issued.token.clone());
        self.detached(async move {
            let outcome = app.meta.supersede_service_token(id, until, successor).await;
            app.verified.forget();
            outcome.map_err(|error| match error {
                meta::Error::Changed => over(),
                error => error.into(),
            })
        })
        .await?;
        Ok((issued, until))
    }

    /// Ends a token from the next request on.
    ///
    /// # Errors
    /// As [`App::token`]; a name finds only a token that is still good.
    pub async fn revoke_token(self: &Arc<Self>, id_or_name: &str) -> Result<Listed> {
        let id = self.token(id_or_name).await?.token.id();
        let app = Arc::clone(self);
        let revoked = self.detached(async move {
            let outcome = app.meta.revoke_service_token(id, app.clock.now()).await;
            app.verified.forget();
            Ok(outcome?)
        });
        self.listed(revoked.await?).await
    }

    /// Ends the JWT of a `jti`, whether it was recorded or not.
    ///
    /// # Errors
    /// What the store says.
    pub async fn revoke_jti(self: &Arc<Self>, jti: &str) -> Result<Listed> {
        let now = self.clock.now();
        let tombstone = ServiceToken {
            digest: service_token::jti_digest(jti),
            kind: TokenKind::Jwt { jti: jti.into() },
            name: "".into(),
            grant: Grant::default(),
            created: now,
            expires: None,
            state: TokenState::Revoked { at: now },
        };
        let app = Arc::clone(self);
        let revoked = self.detached(async move {
            let id = tombstone.id();
            let outcome = match app.meta.add_service_token(tombstone.clone()).await {
                Ok(()) => Ok(tombstone),
                Err(meta::Error::Exists) => app.meta.revoke_service_token(id, now).await,
                Err(error) => Err(error),
            };
            app.verified.forget();
            Ok(outcome?)
        });
        self.listed(revoked.await?).await
    }

    /// Ends every token of a service, or of all services, that was issued before a time; before
    /// now, when none is named. Answers the first second whose tokens are good.
    ///
    /// # Errors
    /// What the store says.
    pub async fn end_service_tokens(
        self: &Arc<Self>,
        name: Option<Box<str>>,
        before: Option<UnixMillis>,
    ) -> Result<u64> {
        let valid_from = match before {
            Some(before) => before.0.div_ceil(1000),
            None => self.next_second(),
        };
        let app = Arc::clone(self);
        self.detached(async move {
            let holder = name.as_deref().map_or(Holder::Services, Holder::Service);
            let outcome = app.meta.end_tokens(holder, valid_from).await;
            app.verified.forget();
            Ok(outcome?)
        })
        .await?;
        Ok(valid_from)
    }

    /// The first second none of whose tokens can have been issued yet.
    pub(super) fn next_second(&self) -> u64 {
        self.clock.now().seconds() + 1
    }
}
