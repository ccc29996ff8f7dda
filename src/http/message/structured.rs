//! Structured fields (RFC 9651) of one item. A field that is malformed, of another type or present
//! twice counts as absent, as the draft on resumable uploads requires for the fields read here.

use hyper::{HeaderMap, header::HeaderName};
use sfv::{BareItem, Item, Parser};

/// A non-negative integer.
pub fn integer(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    match item(headers, name)? {
        BareItem::Integer(number) => u64::try_from(i64::from(number)).ok(),
        _ => None,
    }
}

pub fn boolean(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    match item(headers, name)? {
        BareItem::Boolean(truth) => Some(truth),
        _ => None,
    }
}

fn item(headers: &HeaderMap, name: &HeaderName) -> Option<BareItem> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    // Two lines make a list.
    if lines.next().is_some() {
        return None;
    }
    Parser::new(line.as_bytes()).parse::<Item>().ok().map(|item| item.bare_item)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("upload-offset");

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NAME, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn integers_are_read_or_passed_over() {
        for (line, wanted) in [
            ("0", Some(0)),
            ("00042", Some(42)),
            ("7;unknown=\"x\";y", Some(7)),
            ("999999999999999", Some(999_999_999_999_999)),
            ("1000000000000000", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("?1", None),
            ("\"1\"", None),
            ("1, 2", None),
            ("1 2", None),
            ("1;", None),
            ("", None),
        ] {
            assert_eq!(integer(&headers(&[line]), &NAME), wanted, "{line}");
        }
        assert_eq!(integer(&headers(&["1", "1"]), &NAME), None);
        assert_eq!(integer(&headers(&[]), &NAME), None);
    }

    #[test]
    fn truths_are_read_or_passed_over() {
        for (line, wanted) in [
            ("?1", Some(true)),
            (" ?0 ", Some(false)),
            ("?1;a", Some(true)),
            ("1", None),
            ("true", None),
            ("?2", None),
            ("?1?1", None),
        ] {
            assert_eq!(boolean(&headers(&[line]), &NAME), wanted, "{line}");
        }
    }
}
