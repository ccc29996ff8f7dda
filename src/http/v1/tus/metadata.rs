//! `Upload-Metadata`: pairs of a key and its value in base64.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{app::Error, model::upload::Upload};

/// # Errors
/// [`Error::Invalid`] for a key that is empty or comes twice, and for a value that is not UTF-8 in
/// base64.
pub fn parse(header: &str) -> Result<Map<String, Value>, Error> {
    let mut pairs = Map::new();
    if header.trim().is_empty() {
        return Ok(pairs);
    }
    for pair in header.split(',') {
        let pair = pair.trim();
        let (key, encoded) = pair.split_once(' ').unwrap_or((pair, ""));
        let decoded = STANDARD.decode(encoded.trim()).ok();
        let value = decoded.and_then(|value| String::from_utf8(value).ok());
        let value = value.ok_or_else(|| invalid("has a value that is not UTF-8 in base64"))?;
        if key.is_empty() {
            return Err(invalid("has an empty key"));
        }
        if pairs.insert(key.to_owned(), Value::String(value)).is_some() {
            return Err(invalid("names a key twice"));
        }
    }
    Ok(pairs)
}

/// The pairs of an upload, whichever protocol began it. Those with a meaning come from the upload's
/// own fields: what another protocol keeps under the same key in `meta` is left out.
pub fn print(upload: &Upload) -> String {
    let own = [
        ("filename", upload.name.as_str()),
        ("filetype", upload.mime.as_deref().unwrap_or_default()),
        ("folder", upload.folder.as_str()),
    ];
    let said = own.iter().filter(|(_, value)| !value.is_empty());
    let mut pairs: Vec<String> = said.map(|(key, value)| pair(key, value)).collect();
    let meta: Map<String, Value> = serde_json::from_str(&upload.meta.0).unwrap_or_default();
    // What was sent by another protocol need not be a valid key here.
    let is_key = |key: &str| {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        !key.is_empty() && key.bytes().all(fits) && own.iter().all(|(own, _)| *own != key)
    };
    for (key, value) in meta.iter().filter(|(key, _)| is_key(key)) {
        pairs.push(match value {
            Value::String(text) => pair(key, text),
            other => pair(key, &other.to_string()),
        });
    }
    pairs.join(",")
}

fn pair(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} {}", STANDARD.encode(value)) }
}

fn invalid(why: &str) -> Error {
    Error::invalid("invalid_upload_metadata", format!("Upload-Metadata {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_what_is_none_is_refused() {
        let pairs = parse("filename w7wudHh0, empty,a YQ==").unwrap();
        assert_eq!(
            Value::Object(pairs),
            serde_json::json!({"filename": "ü.txt", "empty": "", "a": "a"})
        );
        assert!(parse("").unwrap().is_empty());
        for bad in ["a !", "a YQ", "a YQ==,a YQ==", ",", "a YQ==,", "a /w==", "a YQ== YQ=="] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
