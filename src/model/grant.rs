//! What a service token may do, for whom, where, and from which addresses.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    key::{FileKey, kept},
    name::{Folder, UserId},
};

/// Longest grant, as text.
pub const GRANT_BYTES_MAX: usize = 4 << 10;

/// The kind of request that an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Lists, metadata, content, links.
    Read,
    Upload,
    Delete,
    /// Making tokens for users.
    Tokens,
    /// Users, service tokens, keys.
    Admin,
}

impl Action {
    pub const ALL: [Action; 5] =
        [Action::Read, Action::Upload, Action::Delete, Action::Tokens, Action::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Upload => "upload",
            Action::Delete => "delete",
            Action::Tokens => "tokens",
            Action::Admin => "admin",
        }
    }
}

/// One user, or all users whose ids begin alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Users {
    One(UserId),
    Beginning(Box<str>),
}

/// What a token is limited to. An empty list limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    actions: Vec<Action>,
    users: Vec<Users>,
    folders: Vec<Folder>,
    networks: Vec<IpNet>,
}

impl Grant {
    /// Reads scopes (`read`, `upload`, `delete`, `tokens`, `admin`, `user:ID`, `user:PREFIX*`,
    /// `folder:PATH`) and networks (`10.0.0.0/8`, or one address).
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse<'a>(
        scopes: impl IntoIterator<Item = &'a str>,
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut grant = Self::default();
        let mut bytes = 0;
        for scope in scopes {
            bytes += scope.len();
            grant.add_scope(scope)?;
        }
        for text in networks {
            bytes += text.len();
            grant.networks.push(network(text)?);
        }
        if bytes > GRANT_BYTES_MAX {
            return Err("The scopes and networks of a token must be at most 4 KiB of text.".into());
        }
        if grant.actions.contains(&Action::Admin) && grant.is_of_some() {
            return Err("admin is for all users and folders: it takes no user: and no folder: \
                        beside it."
                .into());
        }
        Ok(grant)
    }

    fn add_scope(&mut self, scope: &str) -> Result<(), String> {
        if let Some(action) = Action::ALL.into_iter().find(|action| action.as_str() == scope) {
            self.actions.push(action);
        } else if let Some(prefix) = scope.strip_prefix("user:").and_then(|u| u.strip_suffix('*')) {
            self.users.push(Users::Beginning(prefix.into()));
        } else if let Some(id) = scope.strip_prefix("user:") {
            let id = UserId::parse(id).map_err(|why| format!("The user of a scope {why}."))?;
            self.users.push(Users::One(id));
        } else if let Some(path) = scope.strip_prefix("folder:") {
            let folder = Folder::parse(path)
                .map_err(|why| format!("A segment of a scope's folder {why}."))?;
            self.folders.push(folder);
        } else {
            return Err(format!(
                "{scope:?} is not a scope: read, upload, delete, tokens, admin, user:ID, \
                 user:PREFIX* or folder:PATH."
            ));
        }
        Ok(())
    }

    /// Whether the grant allows an action. Administration concerns all users, so a token that is
    /// limited to users or folders never has it, not even one from before this combination was
    /// refused.
    pub fn allows(&self, action: Action) -> bool {
        let is_granted = self.actions.is_empty() || self.actions.contains(&action);
        is_granted && !(action == Action::Admin && self.is_of_some())
    }

    /// Whether the grant is limited to users or folders.
    fn is_of_some(&self) -> bool {
        !self.users.is_empty() || !self.folders.is_empty()
    }

    pub fn reaches_user(&self, id: &UserId) -> bool {
        let matches = |users: &Users| match users {
            Users::One(one) => one == id,
            Users::Beginning(prefix) => id.as_str().starts_with(&**prefix),
        };
        self.users.is_empty() || self.users.iter().any(matches)
    }

    /// Whether `folder` is a granted folder or lies beneath one.
    pub fn reaches_folder(&self, folder: &Folder) -> bool {
        let within = |granted: &Folder| folder.lineage().any(|ancestor| ancestor == *granted);
        self.folders.is_empty() || self.folders.iter().any(within)
    }

    /// Whether a file with this key may belong to a granted user and lie in a granted folder, as
    /// far as the key tells. This can be told without a look into the index.
    pub fn may_reach(&self, key: &FileKey) -> bool {
        let Some(segments) = key.segments() else { return true };
        let (user, folder) = (kept(segments.user), kept(segments.folder));
        let is_of = |users: &Users| match users {
            Users::One(one) => kept(one.as_str()) == user,
            Users::Beginning(prefix) => user.starts_with(&kept(prefix)),
        };
        let is_within = |granted: &Folder| {
            let behind = folder.strip_prefix(&kept(granted.as_str()));
            behind.is_some_and(|it| granted.is_top() || it.is_empty() || it.starts_with('/'))
        };
        (self.users.is_empty() || self.users.iter().any(is_of))
            && (self.folders.is_empty() || self.folders.iter().any(is_within))
    }

    pub fn admits(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&from))
    }

    /// The scopes from which [`Grant::parse`] makes this grant again; the networks are not
    /// included.
    pub fn scopes(&self) -> Vec<String> {
        let actions = self.actions.iter().map(|action| action.as_str().to_owned());
        let users = self.users.iter().map(|users| match users {
            Users::One(id) => format!("user:{id}"),
            Users::Beginning(prefix) => format!("user:{prefix}*"),
        });
        let folders = self.folders.iter().map(|folder| format!("folder:{}", folder.as_str()));
        actions.chain(users).chain(folders).collect()
    }

    pub fn networks(&self) -> Vec<String> {
        self.networks.iter().map(IpNet::to_string).collect()
    }
}

/// A network in CIDR form, or a single address.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8."))?;
    Ok(network.trunc())
}

/// All scopes and networks, for people.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.scopes();
        words.extend(self.networks());
        if words.is_empty() { f.write_str("everything") } else { f.write_str(&words.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(scopes: &[&str], networks: &[&str]) -> Grant {
        Grant::parse(scopes.iter().copied(), networks.iter().copied()).unwrap()
    }

    #[test]
    fn an_empty_grant_limits_nothing() {
        let all = grant(&[], &[]);
        assert!(Action::ALL.into_iter().all(|action| all.allows(action)));
        assert!(all.reaches_user(&UserId::parse("u").unwrap()));
        assert!(all.reaches_folder(&Folder::default()));
        assert!(all.admits("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn each_word_limits_its_own_kind() {
        let words = ["read", "user:anna", "user:lab-*", "folder:a/b"];
        let grant = grant(&words, &["10.1.2.3/8", "2001:db8::/32", "192.0.2.7"]);
        let allowed: Vec<_> = Action::ALL.into_iter().filter(|a| grant.allows(*a)).collect();
        assert_eq!(allowed, [Action::Read]);
        let user = |id| grant.reaches_user(&UserId::parse(id).unwrap());
        assert!(user("anna") && user("lab-") && user("lab-1"));
        assert!(!user("anna2") && !user("lab") && !user("ann"));
        let folder = |path| grant.reaches_folder(&Folder::parse(path).unwrap());
        assert!(folder("a/b") && folder("a/b/c"));
        assert!(!folder("a") && !folder("a/bc") && !folder(""));
        let from = |address: &str| grant.admits(address.parse().unwrap());
        assert!(from("10.255.0.1") && from("2001:db8::9") && from("192.0.2.7"));
        assert!(from("::ffff:10.0.0.1"), "the same address in the other notation");
        assert!(!from("11.0.0.1") && !from("192.0.2.8") && !from("::1"));
        assert_eq!(grant.scopes(), words);
        assert_eq!(grant.networks(), ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);
    }

    #[test]
    fn a_key_tells_whose_it_is_and_where_but_for_what_it_does_not_keep() {
        let may = |words: &[&str], key: &str| {
            grant(words, &[]).may_reach(&FileKey::parse(&format!("storage/{key}")).unwrap())
        };
        let words = ["user:a:b", "user:lab*", "folder:a?/b"];
        for of_them in ["a_b/a_/b/0000abcd_n", "a:b/a_/b/c/0000abcd_n", "labs/a_/b/0000abcd_n"] {
            assert!(may(&words, of_them), "{of_them}");
            assert!(may(&[], of_them) && may(&["folder:"], of_them));
        }
        for of_others in [
            "ab/a_/b/0000abcd_n",
            "a_bc/a_/b/0000abcd_n",
            "la/a_/b/0000abcd_n",
            "lab/a_/bc/0000abcd_n",
            "lab/a_/0000abcd_n",
            "lab/0000abcd_n",
        ] {
            assert!(!may(&words, of_others), "{of_others}");
        }
    }

    #[test]
    fn who_is_limited_to_users_or_folders_administers_nothing() {
        for some in ["user:anna", "user:lab-*", "folder:a"] {
            let limited = grant(&[some], &[]);
            let allowed = |action: &Action| limited.allows(*action);
            assert!(Action::ALL[..4].iter().all(allowed) && !limited.allows(Action::Admin));
            assert!(Grant::parse(["admin", some], []).unwrap_err().contains("admin"), "{some}");
            assert!(Grant::parse([some, "read", "admin"], []).is_err(), "{some}");
            // A grant that was stored when the combination was accepted keeps its other actions.
            let stored = Grant { actions: vec![Action::Read, Action::Admin], ..limited };
            assert!(stored.allows(Action::Read) && !stored.allows(Action::Admin), "{some}");
        }
        assert!(grant(&["admin"], &["10.0.0.0/8"]).allows(Action::Admin));
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for scope in ["", "write", "Read", "user:", "user:a/b", "folder:a/../b", "folder"] {
            assert!(Grant::parse([scope], []).is_err(), "{scope}");
        }
        for network in ["", "10.0.0.0/33", "10.0.0", "example.org", "::/129"] {
            assert!(Grant::parse([], [network]).is_err(), "{network}");
        }
        let many = vec!["folder:0123456789"; 300];
        assert!(Grant::parse(many, []).is_err());
    }
}
