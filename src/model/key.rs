//! File keys: `storage/{user_id}/{folder/}{8 hex}_{filename}`, the permanent name that clients have
//! for a file.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    limits::{FOLDER_SEGMENTS_MAX, NAME_BYTES_MAX},
    name::{FileName, Folder, UserId},
};

const PREFIX: &str = "storage/";
/// `storage/`, a user, the deepest folder, the salt and a name, with their slashes.
const KEY_BYTES_MAX: usize =
    PREFIX.len() + (FOLDER_SEGMENTS_MAX + 2) * (NAME_BYTES_MAX + 1) + "12345678_".len();
/// Clients paste keys into URLs unescaped, so these become `_`. The backtick is among them because
/// no server on hyper accepts it unescaped.
const UNSAFE_IN_URLS: [char; 10] = ['#', '?', '%', '<', '>', ':', '"', '|', '*', '`'];

/// A key in its only form: decoded, below `storage/`, without empty or dot segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileKey(Box<str>);

impl FileKey {
    /// The key of a new file. `salt` makes it unique among files of the same name. Spaces at its
    /// end become `_` too, because URL parsers drop them when the key is pasted into a URL.
    pub fn new(owner: &UserId, folder: &Folder, salt: u32, name: &FileName) -> Self {
        let Self(key) = Self::compose(owner, folder, salt, name);
        let kept = key.trim_end_matches(' ');
        let spaces = "_".repeat(key.len() - kept.len());
        Self(format!("{kept}{spaces}").into())
    }

    /// The key of a record that stores only the salt. It must never change, whatever the keys of
    /// new files look like.
    pub fn compose(owner: &UserId, folder: &Folder, salt: u32, name: &FileName) -> Self {
        let slash = if folder.as_str().is_empty() { "" } else { "/" };
        let (folder, name) = (folder.as_str(), name.as_str());
        let key = format!("{PREFIX}{owner}/{folder}{slash}{salt:08x}_{name}");
        Self(key.replace(UNSAFE_IN_URLS, "_").into())
    }

    /// Reads a key from a client. Path traversal ends here: `None` is a key that no file can have.
    pub fn parse(key: &str) -> Option<Self> {
        let tail = key.strip_prefix(PREFIX)?;
        let well_formed = key.len() <= KEY_BYTES_MAX
            && tail.contains('/')
            && tail.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
            && !tail.chars().any(|c| c.is_control() || c == '\\');
        well_formed.then(|| Self(key.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The salt that [`FileKey::compose`] put in, if the last segment has that form.
    pub fn salt(&self) -> Option<u32> {
        let hex = self.segments()?.salt;
        u32::from_str_radix(hex, 16).ok()
    }

    /// The segments of a key, if it has the form that [`FileKey::compose`] gives.
    pub fn segments(&self) -> Option<Segments<'_>> {
        let (user, rest) = self.0.strip_prefix(PREFIX)?.split_once('/')?;
        let (folder, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let (salt, name) = last.split_once('_')?;
        let is_salt = salt.len() == 8 && salt.bytes().all(|digit| digit.is_ascii_hexdigit());
        (is_salt && !name.is_empty()).then_some(Segments { user, folder, salt, name })
    }

    /// Whether a file of this owner in this folder may have this key. Servers differ in which
    /// characters they keep, so all characters that [`FileKey::compose`] replaces count as the
    /// same.
    pub fn fits(&self, owner: &UserId, folder: &Folder) -> bool {
        self.segments().is_some_and(|segments| {
            kept(segments.user) == kept(owner.as_str())
                && kept(segments.folder) == kept(folder.as_str())
        })
    }
}

/// A name as it stands in keys: the characters that are unsafe in URLs are replaced.
pub(super) fn kept(name: &str) -> String {
    name.replace(UNSAFE_IN_URLS, "_")
}

/// The segments of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments<'a> {
    pub user: &'a str,
    pub folder: &'a str,
    pub salt: &'a str,
    pub name: &'a str,
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compose(user: &str, folder: &str, name: &str) -> String {
        let (user, folder) = (UserId::parse(user).unwrap(), Folder::parse(folder).unwrap());
        FileKey::compose(&user, &folder, 0x1a2b, &FileName::parse(name).unwrap()).0.into()
    }

    #[test]
    fn keys_are_safe_to_paste_and_read_back() {
        assert_eq!(compose("u@x.io", "", "a b.txt"), "storage/u@x.io/00001a2b_a b.txt");
        assert_eq!(
            compose("a|b", "q?/100%", "<\"x\":*#>"),
            "storage/a_b/q_/100_/00001a2b___x_____",
        );
        let key = FileKey::parse(&compose("u", "d", "n")).unwrap();
        assert_eq!(key.salt(), Some(0x1a2b));
    }

    #[test]
    fn no_new_key_ends_in_a_space() {
        for (name, end) in [("a b", "a b"), ("a b  ", "a b__"), (" ", "_"), (" a ", " a_")] {
            let (owner, name) = (UserId::parse("u ").unwrap(), FileName::parse(name).unwrap());
            let key = FileKey::new(&owner, &Folder::parse(" d ").unwrap(), 0x1a2b, &name);
            assert_eq!(key.as_str(), format!("storage/u / d /00001a2b_{end}"));
            assert!(key.fits(&owner, &Folder::parse(" d ").unwrap()));
        }
    }

    #[test]
    fn keys_of_another_server_fit_their_owner_and_folder() {
        let fits = |key: &str, user: &str, folder: &str| {
            let (user, folder) = (UserId::parse(user).unwrap(), Folder::parse(folder).unwrap());
            FileKey::parse(key).unwrap().fits(&user, &folder)
        };
        assert!(fits("storage/u/a/b/0000abCD_n", "u", "a/b"));
        assert!(fits("storage/a|b/q?/0000abcd_n", "a|b", "q_"), "kept there and replaced here");
        assert!(!fits("storage/u/a/b/0000abcd_n", "u", "a"));
        assert!(!fits("storage/u/0000abcd_n", "v", ""));
        for bad in ["storage/u/abcd_n", "storage/u/+000abcd_n", "storage/u/0000abcd_"] {
            assert_eq!(FileKey::parse(bad).unwrap().segments(), None, "{bad}");
        }
    }

    #[test]
    fn no_key_leaves_its_tree() {
        for bad in [
            "",
            "storage",
            "storage/",
            "storage/u",
            "storage//x",
            "storage/u/../x",
            "/storage/u/x",
            "storage/u/./x",
            "storage/u/x/",
            "storage/u/a\0",
            "storage/u/a\\b",
            "etc/passwd",
        ] {
            assert_eq!(FileKey::parse(bad), None, "{bad:?}");
        }
        assert!(FileKey::parse(&format!("storage/u/{}", "a/".repeat(9000))).is_none());
    }

    #[test]
    fn the_longest_names_still_make_a_key() {
        let long = "x".repeat(255);
        let folder = vec![long.as_str(); 32].join("/");
        assert!(FileKey::parse(&compose(&long, &folder, &long)).is_some());
    }
}
