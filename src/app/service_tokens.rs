//! The life of service tokens: made or registered, listed, rotated, revoked.

use std::{cmp::Reverse, ops::Range, sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{App, Error, Result};
use crate::{
    auth::{
        jwt::{self, Said},
        keyring::KeyRing,
        service_token,
    },
    meta::{
        self,
        accounts::{Holder, ServiceToken, TokenKind, TokenState, TokenUse},
    },
    model::{
        grant::Grant, id::TokenId, limits::SERVICE_TOKEN_DAYS, time::UnixMillis,
        token::is_service_name,
    },
    sys::random,
};

/// A token that an operator asks for.
pub struct NewToken {
    pub name: Box<str>,
    pub is_jwt: bool,
    pub grant: Grant,
    /// `None`: an opaque token never expires, a JWT expires after a year.
    pub lifetime: Option<Duration>,
}

/// A token that was just made. Its secret is not shown again.
pub struct Issued {
    pub secret: Zeroizing<String>,
    pub token: ServiceToken,
}

/// The result of a rotation.
pub struct Rotated {
    pub issued: Issued,
    pub previous: TokenId,
    /// The previous token is good until then.
    pub until: UnixMillis,
}

/// A token as an operator sees it.
pub struct Listed {
    pub token: ServiceToken,
    pub standing: Standing,
    pub used: Option<TokenUse>,
}

/// What ended with the tokens of a service, or of all services.
pub struct Ended {
    /// How many recorded tokens of the service were good until then; `None` for all services, and
    /// if they cannot be counted. Tokens that were issued elsewhere are not recorded.
    pub recorded: Option<usize>,
    /// The first second whose tokens are good.
    pub valid_from: u64,
}

/// Whether a token is good, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// Another token has replaced it, and both are good for a while.
    Superseding,
    Superseded,
    Expired,
    Revoked,
}

impl Standing {
    /// `first` is the first second whose tokens of this service are good.
    fn of(token: &ServiceToken, first: u64, now: UnixMillis) -> Self {
        match token.state {
            TokenState::Revoked { .. } => Self::Revoked,
            _ if token.created.seconds() < first => Self::Revoked,
            _ if token.expires.is_some_and(|expires| expires <= now) => Self::Expired,
            TokenState::Superseded { until } if until <= now => Self::Superseded,
            TokenState::Superseded { .. } => Self::Superseding,
            TokenState::Active => Self::Active,
        }
    }

    fn is_good(self) -> bool {
        matches!(self, Self::Active | Self::Superseding)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Superseding => "superseding",
            Standing::Superseded => "superseded",
            Standing::Expired => "expired",
            Standing::Revoked => "revoked",
        }
    }
}

const JWT_LIFETIME: Duration = Duration::from_hours(365 * 24);
const DAY: Duration = Duration::from_hours(24);
/// Records read at a time in the search for a name.
const PAGE: usize = 256;

/// Most token ids listed when several tokens have a name.
const TOLD_MAX: usize = 16;

/// The error for a name that several tokens have, none of which was rotated.
fn ambiguous(active: &[Listed]) -> Error {
    let ids = active.iter().take(TOLD_MAX).map(|listed| listed.token.id().to_string());
    let detail = format!(
        "{} active tokens have this name: {}. Name one by its id; token revoke --service revokes \
         them all.",
        active.len(),
        ids.collect::<Vec<_>>().join(", "),
    );
    Error::conflict("ambiguous_name", detail)
}

impl App {
    /// Makes a token. Its record is durable before anybody can use it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name or a lifetime out of bounds.
    pub async fn issue_token(&self, new: NewToken) -> Result<Issued> {
        let issued = self.make_token(new).await?;
        self.meta.add_service_token(issued.token.clone()).await?;
        Ok(issued)
    }

    async fn make_token(&self, new: NewToken) -> Result<Issued> {
        let NewToken { name, is_jwt, grant, lifetime } = new;
        if !is_service_name(&name) || service_token::looks_like_one(&name) {
            let detail = "A service's name must have 1 to 255 bytes and no control characters, \
                          must not end in /rotate, and must not be a token.";
            return Err(Error::invalid("invalid_token_name", detail));
        }
        let longest = DAY * u32::try_from(*SERVICE_TOKEN_DAYS.end()).unwrap_or(u32::MAX);
        let bounds = Duration::from_secs(1)..=longest;
        if lifetime.is_some_and(|lifetime| !bounds.contains(&lifetime)) {
            let detail = "A service token must be valid for 1 second to 3650 days.";
            return Err(Error::invalid("invalid_expires_in", detail));
        }
        let created = self.issue_time(Holder::Service(&name), self.clock.now()).await?;
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
            expires: lifetime.map(|lifetime| self.clock.now().after(lifetime)),
            state: TokenState::Active,
        };
        Ok(Issued { secret, token })
    }

    async fn sign_token(
        &self,
        name: Box<str>,
        grant: Grant,
        created: UnixMillis,
        lifetime: Duration,
    ) -> Result<Issued> {
        let jti: Box<str> = random::token_id().into();
        let (iat, exp) = (created.seconds(), self.clock.now().after(lifetime).seconds());
        let limited = grant != Grant::default();
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
            let roles = "service";
            let claims = jwt::ServiceClaims { sub: &name, roles, iat, exp, jti: &jti, limited };
            jwt::sign(&claims, keys, now, exp)
        };
        Ok(Issued { secret: Zeroizing::new(self.with_keys(sign).await?), token })
    }

    /// Whether the publicly known token would be accepted.
    pub async fn admits_public_token(&self) -> Result<bool> {
        let public = self.meta.service_token(&service_token::digest(service_token::PUBLIC)).await?;
        let Some(public) = public else { return Ok(false) };
        let standing = self.listed(public).await?.standing;
        Ok(matches!(standing, Standing::Active | Standing::Superseding))
    }

    /// Registers an opaque service token under a name. A token that is known already stays as it
    /// is. Returns the token with its standing.
    ///
    /// # Errors
    /// When the record cannot be made durable.
    pub async fn register_service_token(&self, token: &str, name: &str) -> Result<Listed> {
        let record = ServiceToken {
            digest: service_token::digest(token),
            kind: TokenKind::Opaque,
            name: name.into(),
            grant: Grant::default(),
            created: self.issue_time(Holder::Service(name), self.clock.now()).await?,
            expires: None,
            state: TokenState::Active,
        };
        let id = record.id();
        match self.meta.add_service_token(record).await {
            Ok(()) | Err(meta::Error::Exists) => self.token(&id.to_string()).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Whether any token exists, good or not.
    pub async fn has_service_tokens(&self) -> Result<bool> {
        Ok(self.meta.has_service_tokens().await?)
    }

    /// At most `limit` tokens after `after`, in order of their ids.
    pub async fn list_tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for token in self.meta.service_tokens(after, limit).await? {
            listed.push(self.listed(token).await?);
        }
        Ok(listed)
    }

    /// A token by its id, or by the name of its service. By name this is the token that was not
    /// rotated yet, else the one whose grace time ends last.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for a name that several tokens have, none of which
    /// was rotated.
    pub async fn token(&self, id_or_name: &str) -> Result<Listed> {
        let mut found = self.find_tokens(id_or_name).await?;
        Ok(found.swap_remove(0))
    }

    /// The token of an id, or the good tokens of a name: the one of [`App::token`] first, then
    /// those whose grace time is not over. Never empty.
    async fn find_tokens(&self, id_or_name: &str) -> Result<Vec<Listed>> {
        if let Some(id) = TokenId::parse(id_or_name)
            && let Some(token) = self.meta.service_token_by_id(id).await?
        {
            return Ok(vec![self.listed(token).await?]);
        }
        let (mut active, mut rotated) = (Vec::new(), Vec::new());
        for token in self.recorded(id_or_name).await? {
            let listed = self.listed(token).await?;
            match listed.standing {
                Standing::Active => active.push(listed),
                Standing::Superseding => rotated.push(listed),
                Standing::Superseded | Standing::Expired | Standing::Revoked => {}
            }
        }
        if active.len() > 1 {
            return Err(ambiguous(&active));
        }
        rotated.sort_by_key(|listed| Reverse(listed.token.ends()));
        active.append(&mut rotated);
        if active.is_empty() { Err(Error::NotFound("token")) } else { Ok(active) }
    }

    /// The recorded tokens of a service.
    async fn recorded(&self, name: &str) -> Result<Vec<ServiceToken>> {
        let (mut tokens, mut after) = (Vec::new(), None);
        loop {
            let page = self.meta.service_tokens(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(tokens) };
            after = Some(last.id());
            tokens.extend(page.into_iter().filter(|token| *token.name == *name));
        }
    }

    async fn listed(&self, token: ServiceToken) -> Result<Listed> {
        let now = self.clock.now();
        let first = self.first_good_second(Holder::Service(&token.name)).await?;
        let standing = Standing::of(&token, first, now);
        let used = self.last_use(token.id()).await?;
        Ok(Listed { token, standing, used })
    }

    /// Makes a successor with the same name, grant and lifetime. The previous token stays good for
    /// `grace`.
    ///
    /// # Errors
    /// As [`App::token`]; [`Error::Conflict`] for a token that has ended or was rotated before.
    pub async fn rotate_token(
        self: &Arc<Self>,
        id_or_name: &str,
        grace: Duration,
    ) -> Result<Rotated> {
        let Listed { token, standing, .. } = self.token(id_or_name).await?;
        let over = || Error::conflict("token_ended", "The token has ended or was rotated before.");
        if standing != Standing::Active {
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
        let (previous, successor) = (token.id(), issued.token.clone());
        self.changing_access(|app| async move {
            let superseded = app.meta.supersede_service_token(previous, until, successor).await;
            superseded.map_err(|error| match error {
                meta::Error::Changed => over(),
                error => error.into(),
            })
        })
        .await?;
        Ok(Rotated { issued, previous, until })
    }

    /// Revokes a token from the next request on. A name also revokes the previous tokens whose
    /// grace time is not over. Returns all tokens that were revoked, the one of [`App::token`]
    /// first.
    ///
    /// # Errors
    /// As [`App::token`].
    pub async fn revoke_token(self: &Arc<Self>, id_or_name: &str) -> Result<Vec<Listed>> {
        let found = self.find_tokens(id_or_name).await?;
        let revoked = self.changing_access(|app| async move {
            let (now, mut revoked) = (app.clock.now(), Vec::new());
            for listed in found {
                revoked.push(app.meta.revoke_service_token(listed.token.id(), now).await?);
            }
            Ok(revoked)
        });
        let mut listed = Vec::new();
        for token in revoked.await? {
            listed.push(self.listed(token).await?);
        }
        Ok(listed)
    }

    /// Revokes the JWT of a `jti`, whether it was recorded or not. The text may also be the whole
    /// JWT, with whatever surrounded it where it was copied. The result names its `jti`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a JWT without a `jti`, for an opaque token, and for text that cannot
    /// be a `jti`.
    pub async fn revoke_jti(self: &Arc<Self>, text: &str) -> Result<Listed> {
        let mut said = service_token::words(text).map(jwt::read_unverified);
        let read = match said.find(|said| *said != Said::NoToken) {
            Some(Said::Token(Some(jti))) => Some(jti),
            Some(Said::Token(None)) => {
                let detail = "That is a JWT without a jti; revoke all tokens of its service.";
                return Err(Error::invalid("invalid_revocation", detail));
            }
            Some(Said::NoToken) | None => None,
        };
        let is_read = read.is_some();
        let own = read.unwrap_or_else(|| text.trim().to_owned());
        self.check_is_no_token(&own).await?;
        // Text that is neither a token nor a `jti` would be accepted, and would revoke nothing.
        let is_around =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`');
        if !is_read && (own.is_empty() || own.contains(is_around)) {
            let detail = "A jti must have no spaces, quotes or control characters; to revoke a \
                          JWT whose jti has some, send the JWT itself.";
            return Err(Error::invalid("invalid_revocation", detail));
        }
        let jti = own.as_str();
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
        let revoked = self.changing_access(|app| async move {
            let id = tombstone.id();
            match app.meta.add_service_token(tombstone.clone()).await {
                Ok(()) => Ok(tombstone),
                Err(meta::Error::Exists) => Ok(app.meta.revoke_service_token(id, now).await?),
                Err(error) => Err(error.into()),
            }
        });
        self.listed(revoked.await?).await
    }

    /// Refuses text that contains a token where a name is asked for: the name would be stored, and
    /// stand in the audit log.
    async fn check_is_no_token(&self, name: &str) -> Result<()> {
        let mut is_token = service_token::looks_like_one(name);
        for word in service_token::words(name) {
            is_token |= jwt::read_unverified(word) != Said::NoToken;
            is_token |= self.meta.service_token(&service_token::digest(word)).await?.is_some();
        }
        if is_token {
            let detail = "That is a token itself. Revoke it by its id, which token list shows.";
            return Err(Error::invalid("invalid_revocation", detail));
        }
        Ok(())
    }

    /// Revokes every token of a service, or of all services, that was issued before a time; without
    /// a time, before now.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time that is still to come, and for a token in place of a name;
    /// [`Error::Busy`] when no later second is left to name.
    pub async fn end_service_tokens(
        self: &Arc<Self>,
        name: Option<Box<str>>,
        before: Option<UnixMillis>,
    ) -> Result<Ended> {
        if let Some(name) = &name {
            self.check_is_no_token(name).await?;
        }
        let holder = name.as_deref().map_or(Holder::Services, Holder::Service);
        let first = self.first_good_second(holder).await;
        let valid_from = match before {
            Some(before) if before <= self.clock.now() => before.0.div_ceil(1000),
            // It could never be taken back, and would refuse every token that is issued until then.
            Some(_) => {
                let detail = "before must be a Unix second that has passed.";
                return Err(Error::invalid("invalid_revocation", detail));
            }
            None => self.next_second(holder).await?,
        };
        let ending = name.clone();
        self.changing_access(|app| async move {
            let holder = ending.as_deref().map_or(Holder::Services, Holder::Service);
            Ok(app.meta.end_tokens(holder, valid_from).await?)
        })
        .await?;
        // Counted last: a record that cannot be read must not prevent the end.
        let recorded = match (&name, first) {
            (Some(name), Ok(first)) => self.count_good(name, first..valid_from).await.ok(),
            _ => None,
        };
        Ok(Ended { recorded, valid_from })
    }

    /// How many recorded tokens of a service were issued in these seconds and have not ended by
    /// themselves.
    async fn count_good(&self, name: &str, issued: Range<u64>) -> Result<usize> {
        let (tokens, now) = (self.recorded(name).await?, self.clock.now());
        let is_good = |token: &&ServiceToken| {
            let created = token.created.seconds();
            created < issued.end && Standing::of(token, issued.start, now).is_good()
        };
        Ok(tokens.iter().filter(is_good).count())
    }
}
