//! Side files of the previous server, from the tree to the daemon.

use serde_json::{Map, Value};

use super::{NOW, text};
use crate::{
    app::{Error, import::ForeignFile},
    cli::import::side,
    http::operator::import::{self, Described},
    model::{digest::Sha256, key::FileKey},
};

/// The first line is a path, the rest its side file. The side file adds to what the path says, or
/// is refused with the place of the fault. What is added is what the side file says, and the file
/// keeps its key and its owner.
pub fn import(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (path, side) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Some(path) = text(path) else { return };
    let Ok(mut described) = side::of_path(path, NOW) else { return };
    assert!(taken(path, &described).is_ok(), "what a path says is no file");
    let members = serde_json::from_slice::<Map<String, Value>>(side);
    if let Err(why) = side::add(&mut described, side, side.len() as u64) {
        assert!(why.starts_with("its side file"), "{why}");
        assert!(members.is_ok() || why.contains(" at line "), "{why}");
        assert!(!why.chars().any(char::is_control), "a terminal would obey {why:?}");
        return;
    }
    let members = members.expect("what was added is an object");
    let is_large = side::let_go_of_large_meta(&mut described);
    let said = described.sha256.as_deref();
    let file = match taken(path, &described) {
        Ok(file) => file,
        Err(Error::Invalid { code: "invalid_sha256", .. }) => {
            assert!(said.is_some_and(|said| Sha256::parse(said).is_none()));
            return;
        }
        Err(error) => panic!("what a side file says is no file: {error}"),
    };
    assert_eq!(file.sha256, said.and_then(Sha256::parse));
    assert_eq!(said, members.get("sha256").and_then(Value::as_str).filter(|it| !it.is_empty()));
    if let Some(user) = members.get("user_id").and_then(Value::as_str) {
        assert_eq!(file.owner.as_str(), user);
    }
    let meta = Some(&*file.meta.0).filter(|meta| !meta.is_empty());
    let meta: Map<String, Value> = meta.map_or_else(Map::new, |meta| {
        serde_json::from_str(meta).expect("what is stored is an object")
    });
    assert!(is_large.then_some(meta.len()).is_none_or(|members| members == 0));
    for (name, value) in &meta {
        assert_eq!(Some(value), members.get(name), "{name} is another");
    }
}

/// The file as the daemon reads it from what the import command sends.
fn taken(path: &str, described: &Described) -> Result<ForeignFile, Error> {
    let sent = serde_json::to_string(described).expect("a description");
    let described = serde_json::from_str(&sent).expect("the same description");
    let file = import::foreign(described)?;
    assert_eq!(file.key.as_str(), path);
    let [user, folder] = FileKey::parse(path)
        .and_then(|key| key.segments().map(|it| [it.user.to_owned(), it.folder.to_owned()]))
        .expect("a key with its words");
    assert!(is_written_as(file.owner.as_str(), &user), "another's file");
    assert!(is_written_as(file.folder.as_str(), &folder), "in another folder");
    Ok(file)
}

/// Whether `name` equals `written`, except for characters that a key cannot contain.
fn is_written_as(name: &str, written: &str) -> bool {
    let is_one = |c: char| c == '_' || "#?%<>:\"|*`".contains(c);
    name.chars().count() == written.chars().count()
        && name.chars().zip(written.chars()).all(|(a, b)| a == b || is_one(a) && is_one(b))
}
