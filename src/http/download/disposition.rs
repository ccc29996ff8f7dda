//! `Content-Disposition` (RFC 6266): how a browser is to treat content, and what to call it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{app::link::Disposition, model::name::FileName};

/// All characters but those that RFC 8187 section 3.2.1 leaves unencoded.
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

/// RFC 6266: a plain name for old clients and, if characters are lost in it, the whole name encoded
/// as in RFC 8187.
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
