//! Who is asking and what they may do: roles, the identity behind a request, the rules.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    grant::{Action, Grant},
    id::TokenId,
    key::FileKey,
    name::{Folder, UserId},
};

/// Roles, low to high. Each role may do what the lower ones may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Reads the user's own files.
    Viewer,
    /// Uploads too.
    Analyst,
    /// Deletes too. The default role of `generate-token`.
    Researcher,
    /// Reads and deletes everybody's files.
    Admin,
    /// Another program, which acts for any user that it names.
    Service,
}

impl Role {
    pub const ALL: [Role; 5] =
        [Role::Viewer, Role::Analyst, Role::Researcher, Role::Admin, Role::Service];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Analyst => "analyst",
            Role::Researcher => "researcher",
            Role::Admin => "admin",
            Role::Service => "service",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(text))
    }
}

/// The token that proved the identity of the caller, and what it takes to check later whether the
/// token is still good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenStamp {
    pub id: TokenId,
    /// The Unix second of its issue; 0 when the token does not say.
    pub issued: u64,
    /// How often tokens, users or keys had changed when the token was checked. As long as this
    /// number is the same, the token is good.
    pub epoch: u64,
}

/// The identity that a valid credential proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A program: the name that its token was issued to, what that token grants, and the user for
    /// whom the program asks, if it named one.
    Service { name: Box<str>, token: TokenStamp, grant: Arc<Grant>, acts_for: Option<UserId> },
    /// A user, with the role that its token and its record leave it (never [`Role::Service`]).
    User { id: UserId, role: Role, token: TokenStamp },
}

impl Principal {
    pub fn role(&self) -> Role {
        match self {
            Principal::Service { .. } => Role::Service,
            Principal::User { role, .. } => *role,
        }
    }

    pub fn token(&self) -> TokenStamp {
        match self {
            Principal::Service { token, .. } | Principal::User { token, .. } => *token,
        }
    }

    /// The user for whom a service says that it asks.
    pub fn named(&self) -> Option<&UserId> {
        match self {
            Principal::Service { acts_for, .. } => acts_for.as_ref(),
            Principal::User { .. } => None,
        }
    }

    /// The same service, asking for this user; `None` when it asks for another user already. A user
    /// asks for itself, whomever it names.
    pub fn naming(&self, user: Option<UserId>) -> Option<Self> {
        let mut same = self.clone();
        if let (Principal::Service { acts_for, .. }, Some(user)) = (&mut same, user)
            && *acts_for.get_or_insert_with(|| user.clone()) != user
        {
            return None;
        }
        Some(same)
    }

    /// The same principal without the user for whom it asks. The caller must compare that user with
    /// the owner itself.
    #[must_use]
    pub fn naming_nobody(&self) -> Self {
        let mut same = self.clone();
        if let Principal::Service { acts_for, .. } = &mut same {
            *acts_for = None;
        }
        same
    }

    /// Whether files and uploads of `owner` exist for this principal at all. A service that asks
    /// for one user gets nothing of another user, even by a key or an id that the first user handed
    /// it.
    pub fn sees(&self, owner: &UserId) -> bool {
        match self {
            Principal::Service { acts_for, .. } => acts_for.as_ref().is_none_or(|it| it == owner),
            Principal::User { id, role, .. } => id == owner || *role >= Role::Admin,
        }
    }

    /// What the principal's token is limited to; `None` for users, who are limited by their role
    /// alone.
    fn grant(&self) -> Option<&Grant> {
        match self {
            Principal::Service { grant, .. } => Some(grant),
            Principal::User { .. } => None,
        }
    }

    /// Whether its token grants this kind of request.
    pub fn may(&self, action: Action) -> bool {
        self.grant().is_none_or(|grant| grant.allows(action))
    }

    /// Whether its token grants this user at all.
    pub fn reaches_user(&self, owner: &UserId) -> bool {
        self.grant().is_none_or(|grant| grant.reaches_user(owner))
    }

    /// Whether its token grants this folder of this user.
    pub fn reaches(&self, owner: &UserId, folder: &Folder) -> bool {
        self.reaches_user(owner) && self.grant().is_none_or(|grant| grant.reaches_folder(folder))
    }

    /// Whether its token may grant the file with this key, as far as the key tells.
    pub fn may_reach(&self, key: &FileKey) -> bool {
        self.grant().is_none_or(|grant| grant.may_reach(key))
    }

    /// Whether an upload session of `owner` may be continued, completed or aborted.
    pub fn may_touch_upload(&self, owner: &UserId) -> bool {
        match self {
            Principal::Service { .. } => self.sees(owner),
            Principal::User { id, .. } => id == owner,
        }
    }
}

/// `service:NAME` or `user:ID`, for the log.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Service { name, .. } => write!(f, "service:{name}"),
            Principal::User { id, .. } => write!(f, "user:{id}"),
        }
    }
}

/// Who may see something that belongs to no user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    #[default]
    Nobody,
    /// Admins, and services whose token grants administration.
    Admins,
    Anybody,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, role: Role) -> Principal {
        Principal::User { id: UserId::parse(id).unwrap(), role, token: TokenStamp::default() }
    }

    #[test]
    fn roles_order_and_parse() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }

    #[test]
    fn only_admins_and_services_see_others() {
        let owner = UserId::parse("owner").unwrap();
        assert!(user("owner", Role::Viewer).sees(&owner));
        assert!(!user("other", Role::Researcher).sees(&owner));
        assert!(user("other", Role::Admin).sees(&owner));
        assert!(!user("other", Role::Admin).may_touch_upload(&owner));
        let token = TokenStamp::default();
        let (name, grant) = ("s".into(), Arc::default());
        let service = Principal::Service { name, token, grant, acts_for: None };
        assert!(service.may_touch_upload(&owner));
        let other = UserId::parse("other").unwrap();
        let for_other = service.naming(Some(other.clone())).unwrap();
        assert!(!for_other.sees(&owner) && !for_other.may_touch_upload(&owner));
        assert!(for_other.sees(&other) && for_other.may_touch_upload(&other));
        assert_eq!(for_other.naming(Some(owner)), None);
        assert_eq!(for_other.naming(Some(other)).as_ref(), Some(&for_other));
        assert_eq!(for_other.naming_nobody(), service);
    }
}
