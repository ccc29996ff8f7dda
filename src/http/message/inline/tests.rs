use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

const PART: &[Step] = &[Step::Member("chunkBase64")];
const COMPLETE: &[Step] = &[Step::Member("parts"), Step::Item, Step::Member("data")];

/// Pushes a document in pieces of `piece` bytes.
fn split(path: &'static [Step], text: &str, piece: usize) -> Result<(Value, Vec<u8>), Refused> {
    let (mut splitter, mut content) = (Splitter::new(path), Vec::new());
    for piece in text.as_bytes().chunks(piece) {
        splitter.push(piece, &mut content)?;
    }
    splitter.finish().map(|document| (document, content))
}

#[test]
fn members_come_in_any_order_and_at_any_cut() {
    for text in [
        r#"{"uploadId":"u","partNumber":1,"chunkBase64":"aGVsbG8="}"#,
        r#" { "chunkBase64" : "aGVsbG8=" , "uploadId":"u","partNumber":1 } "#,
        r#"{"chunkBase64":"aGVs\nbG8\u003d","uploadId":"u","partNumber":1,"x":{"chunkBase64":1}}"#,
        "{\"chunkBase64\":\"aGVs\r\nb G8=\n\",\"uploadId\":\"u\",\"partNumber\":1}",
        r#"{"chunk\u0042ase64":"aGVsbG8=","uploadId":"u","partNumber":1}"#,
    ] {
        for piece in 1..=text.len() {
            let (document, content) = split(PART, text, piece).unwrap();
            assert_eq!(content, b"hello", "{text} by {piece}");
            assert_eq!((&document["uploadId"], &document["partNumber"]), (&json!("u"), &json!(1)));
        }
    }
}

#[test]
fn slashes_may_be_escaped_and_items_concatenate() {
    let (_, content) = split(PART, r#"{"chunkBase64":"\/\/\/\/"}"#, 1).unwrap();
    assert_eq!(content, [0xff; 3]);
    let text = r#"{"uploadId":"u","parts":[{"data":"aGU="},{"n":2,"data":"bGxv"}],
        "data":"no","meta":{"parts":[{"data":"left alone"}]}}"#;
    for piece in 1..=text.len() {
        let (document, content) = split(COMPLETE, text, piece).unwrap();
        assert_eq!(content, b"hello");
        assert_eq!(document["meta"]["parts"][0]["data"], "left alone");
    }
}

#[test]
fn wrong_content_is_refused() {
    for bad in [
        "a",
        "aGVsbG8",
        "aGVsbG8==",
        "aGU=aGU=",
        "aGVsbG8=x",
        "=",
        "aG-_",
        "aG\\tVs",
        "aGV!",
        "\\u00e9",
        "\\x",
        "aGVsbG9=",
        "data:text/plain;base64,aGU=",
    ] {
        for piece in [1, 3, 100] {
            let text = format!(r#"{{"chunkBase64":"{bad}"}}"#);
            assert_eq!(split(PART, &text, piece).map(drop), Err(Refused::Base64), "{bad}");
        }
    }
}

#[test]
fn what_is_not_json_is_refused_at_the_end() {
    for bad in [
        "",
        "{",
        r#"{"chunkBase64":"aGU="#,
        r#"{"chunkBase64":"aGU="}}"#,
        "{]",
        "nul",
        r#"{"chunkBase64" "aGU="}"#,
        r#"{"a":"\x"}"#,
    ] {
        assert!(matches!(split(PART, bad, 7), Err(Refused::Json(_))), "{bad}");
    }
    assert_eq!(split(PART, &"[".repeat(65), 9).map(drop), Err(Refused::TooDeep));
    let wide = format!(r#"{{"a":"{}"}}"#, "x".repeat(JSON_BYTES_MAX));
    assert_eq!(split(PART, &wide, 4096).map(drop), Err(Refused::TooLarge));
}

#[test]
fn what_came_before_the_content_is_known_early() {
    #[derive(Deserialize)]
    struct Early {
        id: Option<String>,
    }
    let mut splitter = Splitter::new(COMPLETE);
    splitter.push(br#"{"id":"u","parts":[{"data":"aGVs"#, &mut Vec::new()).unwrap();
    assert!(splitter.found_content());
    assert_eq!(splitter.so_far::<Early>().unwrap().id.as_deref(), Some("u"));
}

proptest! {
    #[test]
    fn any_content_survives(
        bytes in prop::collection::vec(any::<u8>(), 0..5000),
        line in 1usize..100,
        piece in 1usize..5000,
    ) {
        let encoded = STANDARD.encode(&bytes);
        let lines: Vec<&str> =
            encoded.as_bytes().chunks(line).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let text = json!({"a": [1, "\"\\"], "chunkBase64": lines.join("\n")}).to_string();
        let (document, content) = split(PART, &text, piece).unwrap();
        prop_assert_eq!(content, bytes);
        prop_assert_eq!(document, json!({"a": [1, "\"\\"], "chunkBase64": ""}));
    }

    #[test]
    fn any_text_splits_or_is_refused(text in ".{0,200}", piece in 1usize..50) {
        let _ = split(PART, &text, piece);
        let _ = split(COMPLETE, &text, piece);
    }
}
