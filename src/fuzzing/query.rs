//! Query strings, compared with a second parser that reads byte by byte.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::text;
use crate::{
    http::message::query::Query,
    model::{
        key::FileKey,
        name::{FileName, Folder, UserId},
    },
};

/// An accepted query has exactly the values that are written in it, in whatever order and encoding.
/// No name that is made from them contains what names must not.
pub fn query(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let (query, pairs) = match (Query::parse(Some(input)), pairs(input)) {
        (Ok(query), Some(pairs)) => (query, pairs),
        (query, pairs) => {
            assert_eq!(query.is_ok(), pairs.is_some(), "{input}");
            return;
        }
    };
    let encoded = |(name, value): (&String, &String)| {
        let encode = |text: &String| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        format!("{}={}", encode(name), encode(value))
    };
    let again: Vec<_> = pairs.iter().rev().map(encoded).collect();
    let Ok(again) = Query::parse(Some(&again.join("&"))) else { panic!("{input} but encoded") };
    for (name, value) in &pairs {
        for query in [&query, &again] {
            assert_eq!(query.exact(name), Some(value.as_str()), "{input}");
            assert_eq!(query.text(name), query.exact(name).filter(|it| !it.is_empty()), "{input}");
        }
        names(value);
    }
    let limit = pairs.get("limit").filter(|limit| !limit.is_empty()).map(|limit| number(limit));
    match query.number("limit", "invalid_limit") {
        Ok(found) => assert_eq!(found, limit.flatten(), "{input}"),
        Err(_) => assert_eq!(limit, Some(None), "{input}"),
    }
    if let Ok(folder) = query.folder() {
        let said = pairs.get("folder").map_or("", String::as_str);
        let segments: Vec<&str> = said.split('/').filter(|segment| !segment.is_empty()).collect();
        assert_eq!(folder.as_str(), segments.join("/"));
    }
}

/// The pairs by name; `None` if they can be read in more than one way or not at all.
fn pairs(query: &str) -> Option<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pairs.len() == 32 || pairs.insert(decoded(name)?, decoded(value)?).is_some() {
            return None;
        }
    }
    Some(pairs)
}

fn decoded(text: &str) -> Option<String> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                (u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?, behind)
            }
            (b'%', _) => return None,
            (b'+', behind) => (b' ', behind),
            (byte, behind) => (*byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

fn number(text: &str) -> Option<u64> {
    let add = |number: u64, digit: char| {
        number.checked_mul(10)?.checked_add(u64::from(digit.to_digit(10)?))
    };
    text.chars().try_fold(0, add).filter(|_| !text.is_empty())
}

/// Checks the value as each kind of name that it can be.
fn names(value: &str) {
    let user = UserId::parse(value).map(|user| user.as_str().to_owned());
    let name = FileName::parse(value).map(|name| name.as_str().to_owned());
    let folder = Folder::parse(value).map(|folder| folder.as_str().to_owned());
    let key = FileKey::parse(value).map(|key| key.as_str().to_owned());
    for name in [user.ok(), name.ok(), folder.ok(), key].into_iter().flatten() {
        assert!(!name.chars().any(|c| c.is_control() || c == '\\'), "{name:?}");
        assert!(name.is_empty() || name.split('/').all(|it| !matches!(it, "" | "." | "..")));
    }
}
