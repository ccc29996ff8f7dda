//! `Content-Disposition`: how a browser is to treat a content, and what to call it (RFC 6266).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{app::link::Disposition, model::name::FileName};

/// What RFC 8187 section 3.2.1 lets stand unencoded.
const ATTRIBUTE_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// RFC 6266: a plain name for old clients and, where it says less, the whole one as RFC 8187.
pub fn content_disposition(name: &FileName, disposition: Disposition) -> String {
    let name = name.as_str();
    let plain = |c: char| {
        let printable = c == ' ' || c.is_ascii_graphic();
        if printable && !matches!(c, '"' | '\\' | '%') { c } else { '_' }
    };
    let fallback: String = name.chars().map(plain).collect();
    let word = disposition.as_str();
    if fallback == name {
        return format!("{word}; filename=\"{fallback}\"");
    }
    let encoded = utf8_percent_encode(name, ATTRIBUTE_CHAR);
    format!("{word}; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}
