//! Names that clients choose: user ids, folders, file names. The daemon uses none of them as a file
//! path.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{FOLDER_SEGMENTS_MAX, NAME_BYTES_MAX};

/// Why a name is refused, as the end of a sentence that begins with "the file name …".
pub type Refused = &'static str;

/// Rules that user ids, folder segments and file names share.
fn check(name: &str) -> Result<(), Refused> {
    if name.is_empty() {
        return Err("must not be empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("must be at most 255 bytes");
    }
    if name == "." || name == ".." {
        return Err("must not be '.' or '..'");
    }
    if name.contains('\\') {
        return Err("must not contain '\\'");
    }
    if name.chars().any(char::is_control) {
        return Err("must not contain control characters");
    }
    Ok(())
}

/// A user: 1-255 bytes of UTF-8, none of `/ \ # ? %`, no control characters, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserId(Box<str>);

impl UserId {
    /// # Errors
    /// The rule that `id` breaks.
    pub fn parse(id: &str) -> Result<Self, Refused> {
        check(id)?;
        if id.contains(['/', '#', '?', '%']) {
            return Err("must not contain any of / # ? %");
        }
        Ok(Self(id.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file's own name: 1-255 bytes, no `/`, `\` or control character, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileName(Box<str>);

impl FileName {
    /// # Errors
    /// The rule that `name` breaks.
    pub fn parse(name: &str) -> Result<Self, Refused> {
        check(name)?;
        if name.contains('/') {
            return Err("must not contain '/'");
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a file lies in its user's tree: `a/b/c` without outer slashes, empty for the top.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Folder(Box<str>);

impl Folder {
    /// Removes leading, trailing and doubled slashes.
    ///
    /// # Errors
    /// The rule that `path` breaks.
    pub fn parse(path: &str) -> Result<Self, Refused> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.len() > FOLDER_SEGMENTS_MAX {
            return Err("is one too many: a folder has at most 32");
        }
        segments.iter().try_for_each(|segment| check(segment))?;
        Ok(Self(segments.join("/").into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the top folder, which contains all files of a user.
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    /// Every folder whose list shows a file of this one: the top, each ancestor, and itself.
    pub fn lineage(&self) -> impl Iterator<Item = Folder> + '_ {
        let top = std::iter::once(Folder::default());
        let ancestors = self.0.match_indices('/').map(|(at, _)| Self(self.0[..at].into()));
        let own = (!self.is_top()).then(|| self.clone());
        top.chain(ancestors).chain(own)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_follow_the_contract() {
        for good in ["user123", "user@example.com", "a b", "auth0|1", "ü", &"x".repeat(255)] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "a/b", "a\\b", "a#", "a?", "a%41", "a\nb", "\u{7f}", &long] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_fold_slashes_and_refuse_dots() {
        assert_eq!(Folder::parse("//main///pictures/").unwrap().as_str(), "main/pictures");
        assert_eq!(Folder::parse("").unwrap().as_str(), "");
        assert!(Folder::parse(&vec!["d"; 32].join("/")).is_ok());
        for bad in ["a/../b", "./a", "..", "a/\0", &vec!["d"; 33].join("/")] {
            assert!(Folder::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_lineage_runs_from_the_top_to_the_folder() {
        let names = |path: &str| -> Vec<String> {
            Folder::parse(path).unwrap().lineage().map(|f| f.as_str().to_owned()).collect()
        };
        assert_eq!(names(""), [""]);
        assert_eq!(names("a/b/c"), ["", "a", "a/b", "a/b/c"]);
    }
}
