//! What a path and its side file say about a file, in the form in which the daemon is told.

use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    http::{
        message::json,
        operator::import::{self, Described},
    },
    model::{
        key::{FileKey, Segments},
        limits::{JSON_DEPTH_MAX, META_BYTES_MAX},
        name::{FileName, Folder, UserId},
        time::UnixMillis,
    },
};

/// Members that may hold the time of creation.
const CREATED: [&str; 5] = ["created_at", "createdAt", "uploaded_at", "uploadedAt", "timestamp"];
/// Members whose values are known without them.
const KNOWN: [&str; 3] = ["key", "size", "blake3"];

/// Takes the user, the folder and the name from a path; there is no digest in it.
pub fn of_path(path: &str, modified: UnixMillis) -> Result<Described, String> {
    let key = FileKey::parse(path).ok_or("no file can have this key")?;
    let segments = key.segments().ok_or("its name is not of the form 8 hex digits, _, name")?;
    let Segments { user, folder, name, .. } = segments;
    UserId::parse(user).map_err(|why| format!("the user id {why}"))?;
    Folder::parse(folder).map_err(|why| format!("the folder {why}"))?;
    FileName::parse(name).map_err(|why| format!("the name {why}"))?;
    Ok(Described {
        key: path.into(),
        user: user.into(),
        folder: folder.into(),
        name: name.into(),
        mime: None,
        created: modified.0,
        sha256: None,
        meta: Map::new(),
    })
}

/// Adds what the side file of a file of `size` bytes says. Its user must fit the path. Its folder
/// and names are used if a file with this key can have them. Members that have no meaning here are
/// kept as the file's own `meta`, if they fit. If the side file has no digest, its size must be the
/// file's: nothing else would show that the file was truncated.
pub fn add(described: &mut Described, side: &[u8], size: u64) -> Result<(), String> {
    let mut members: Map<String, Value> =
        serde_json::from_slice(side).map_err(|error| format!("its side file: {error}"))?;
    let key = FileKey::parse(&described.key).ok_or("no file can have this key")?;
    let user = text(&mut members, "user_id")?;
    let folder = text(&mut members, "folder")?.and_then(|folder| Folder::parse(&folder).ok());
    let path_folder = Folder::parse(&described.folder).map_err(str::to_owned)?;
    if let Some(user) = user {
        let owner = UserId::parse(&user).ok().filter(|owner| key.fits(owner, &path_folder));
        owner.ok_or("its side file names another user")?;
        described.user = user;
    }
    let owner = UserId::parse(&described.user).map_err(str::to_owned)?;
    if let Some(folder) = folder.filter(|folder| key.fits(&owner, folder)) {
        described.folder = folder.as_str().into();
    }
    // Some side files hold the file's name on the disk here, which no user chose.
    let is_given = |name: &String| {
        FileName::parse(name).is_ok() && !described.key.ends_with(&format!("/{name}"))
    };
    let names = [text(&mut members, "filename")?, text(&mut members, "original_name")?];
    if let Some(name) = names.into_iter().flatten().find(is_given) {
        described.name = name;
    }
    // Anything but a media type says nothing; sent along, it could exceed the size of a request.
    described.mime = text(&mut members, "mime")?.and_then(import::media_type).map(String::from);
    described.sha256 = text(&mut members, "sha256")?.filter(|digest| !digest.is_empty());
    let said = members.get("size").and_then(Value::as_u64);
    if let Some(said) = said.filter(|said| described.sha256.is_none() && *said != size) {
        return Err(format!("its side file names another size, {said} bytes, and no sha256"));
    }
    for name in CREATED {
        if let Some(created) = members.get(name).and_then(time) {
            members.remove(name);
            described.created = created.0;
            break;
        }
    }
    members.retain(|name, _| !KNOWN.contains(&name.as_str()));
    described.meta = members;
    Ok(())
}

/// Drops a `meta` that is larger or deeper than allowed; answers whether it was.
pub fn let_go_of_large_meta(described: &mut Described) -> bool {
    let text = Value::Object(described.meta.clone()).to_string();
    let large = text.len() > META_BYTES_MAX || json::depth(text.as_bytes()) > JSON_DEPTH_MAX;
    if large {
        described.meta.clear();
    }
    large
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("its side file: {name} is not text")),
    }
}

/// RFC 3339, also without a zone (as Python writes UTC), or seconds or milliseconds since 1970.
fn time(value: &Value) -> Option<UnixMillis> {
    /// Below it, a number is seconds (up to the year 5138); from it on, milliseconds (from 1973
    /// on).
    const SECONDS_MAX: f64 = 1e11;
    if let Some(number) = value.as_f64() {
        let millis = if number < SECONDS_MAX { number * 1000.0 } else { number };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        return (millis >= 0.0).then_some(UnixMillis(millis as u64));
    }
    let text = value.as_str()?.replacen(' ', "T", 1);
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let at = parse(&text).or_else(|| parse(&format!("{text}Z")))?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(path: &str, side: &Value) -> Result<Described, String> {
        let mut described = of_path(path, UnixMillis(7))?;
        add(&mut described, side.to_string().as_bytes(), 3)?;
        Ok(described)
    }

    #[test]
    fn a_side_file_says_more_than_the_path() {
        let side = json!({
            "original_name": "a|b?.txt", "filename": "0000abcd_a_b_.txt", "mime": "text/plain",
            "sha256": "ff", "user_id": "u|1", "folder": "/x?/y/",
            "created_at": "2024-01-02T03:04:05",
            "size": 3, "project": "p", "n": null,
        });
        let found = described("storage/u_1/x_/y/0000abcd_a_b_.txt", &side).unwrap();
        let named = (found.user.as_str(), found.folder.as_str(), found.name.as_str());
        assert_eq!(named, ("u|1", "x?/y", "a|b?.txt"));
        assert_eq!(
            (found.mime.as_deref(), found.sha256.as_deref()),
            (Some("text/plain"), Some("ff"))
        );
        assert_eq!(found.created, 1_704_164_645_000);
        assert_eq!(Value::Object(found.meta), json!({"project": "p", "n": null}));
    }

    #[test]
    fn what_a_side_file_leaves_out_the_path_says() {
        let side = json!({"folder": "elsewhere", "filename": "../x", "created_at": "once"});
        let found = described("storage/u/x/0000abcd_n", &side).unwrap();
        let named = (found.user.as_str(), found.folder.as_str(), found.name.as_str());
        assert_eq!((named, found.created), (("u", "x", "n"), 7));
        assert_eq!((found.mime, found.sha256), (None, None));
    }

    #[test]
    fn meta_that_the_daemon_would_not_read_stays_behind() {
        for (levels, is_kept) in [(JSON_DEPTH_MAX - 1, true), (JSON_DEPTH_MAX, false)] {
            let side = format!(r#"{{"a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
            let mut described = of_path("storage/u/0000abcd_n", UnixMillis(7)).unwrap();
            add(&mut described, side.as_bytes(), 3).unwrap();
            assert_eq!(let_go_of_large_meta(&mut described), !is_kept);
            assert_eq!(described.meta.contains_key("a"), is_kept);
        }
    }

    #[test]
    fn paths_and_side_files_that_fit_nothing_are_refused() {
        for path in ["storage/x", "storage/u/x", "storage/u/abcd_x", "storage/a%b/0000abcd_x"] {
            assert!(described(path, &json!({})).is_err(), "{path}");
        }
        for side in [
            json!({"user_id": "v"}),
            json!({"sha256": ["x"]}),
            json!({"size": 4}),
            json!([]),
            json!("x"),
        ] {
            assert!(described("storage/u/0000abcd_x", &side).is_err(), "{side}");
        }
        // With a digest, the size need not match.
        let told = json!({"size": 4, "sha256": "00"});
        assert!(described("storage/u/0000abcd_x", &told).is_ok());
    }

    #[test]
    fn times_come_in_several_forms() {
        for (value, millis) in [
            (json!("2024-01-02T03:04:05Z"), 1_704_164_645_000),
            (json!("2024-01-02T04:04:05.5+01:00"), 1_704_164_645_500),
            (json!("2024-01-02 03:04:05.123456"), 1_704_164_645_123),
            (json!(1_704_164_645), 1_704_164_645_000),
            (json!(1_704_164_645.25), 1_704_164_645_250),
            (json!(1_704_164_645_123_u64), 1_704_164_645_123),
        ] {
            assert_eq!(time(&value), Some(UnixMillis(millis)), "{value}");
        }
        for value in [json!("yesterday"), json!(-1), json!(null), json!("1960-01-01T00:00:00Z")] {
            assert_eq!(time(&value), None, "{value}");
        }
    }
}
