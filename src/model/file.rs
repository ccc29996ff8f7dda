//! A file in the index, and the totals of many.

use serde_json::{Map, Value};

use super::{
    digest::{ContentHash, Sha256},
    id::FileId,
    key::FileKey,
    limits::META_BYTES_MAX,
    name::{FileName, Folder, UserId},
};

/// One file of one user. Never changes once recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Contains the creation time, and with it the file's place in a list.
    pub id: FileId,
    pub owner: UserId,
    pub folder: Folder,
    pub name: FileName,
    pub key: FileKey,
    pub mime: Box<str>,
    pub size: u64,
    pub blake3: ContentHash,
    pub sha256: Sha256,
    pub meta: CallerMeta,
}

/// The caller's own `meta`: a JSON object as text, or empty for none. Kept, never interpreted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallerMeta(pub Box<str>);

impl CallerMeta {
    /// These members, and those of `default` that have other names; `None` when the result is
    /// larger than [`META_BYTES_MAX`].
    pub fn before(self, default: &Self) -> Option<Self> {
        if self.0.is_empty() || default.0.is_empty() {
            return Some(if self.0.is_empty() { default.clone() } else { self });
        }
        let members = |meta: &Self| serde_json::from_str::<Map<_, _>>(&meta.0).unwrap_or_default();
        let mut all = members(default);
        all.extend(members(&self));
        let text = Value::Object(all).to_string();
        (text.len() <= META_BYTES_MAX).then(|| Self(text.into()))
    }
}

/// The count and size of the files in a folder and everything beneath it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_count_before_those_of_before_within_the_bound() {
        let meta = |text: &str| CallerMeta(text.into());
        let both = |one: &str, other: &str| meta(one).before(&meta(other)).map(|all| all.0);
        assert_eq!(both("", ""), Some("".into()));
        assert_eq!(both(r#"{"k":1}"#, "").as_deref(), Some(r#"{"k":1}"#));
        assert_eq!(both("", r#"{"k":1}"#).as_deref(), Some(r#"{"k":1}"#));
        let all = both(r#"{"a":null,"k":{"x":2}}"#, r#"{"b":0.1,"k":1}"#).unwrap();
        let wanted = serde_json::json!({"a": null, "b": 0.1, "k": {"x": 2}});
        assert_eq!(serde_json::from_str::<Value>(&all).unwrap(), wanted);
        let half = |name: &str| format!(r#"{{"{name}":"{}"}}"#, "x".repeat(META_BYTES_MAX / 2));
        assert_eq!(both(&half("a"), &half("b")), None);
        assert!(both(&half("a"), &half("a")).is_some());
    }
}
