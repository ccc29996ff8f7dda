//! The origins whose pages may send requests from a browser (CORS).

/// Origins as browsers write them: `https://app.example:8443` (RFC 6454 section 6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    #[default]
    None,
    Any,
    Of(Vec<String>),
}

impl Origins {
    /// Reads `*`, origins with commas between them, or nothing. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut origins = Vec::new();
        for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            let host = ["http://", "https://"].iter().find_map(|it| origin.strip_prefix(it));
            let is_host = |host: &str| {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                !host.is_empty() && host.bytes().all(|byte| plain(byte) || b".-:[]".contains(&byte))
            };
            if origin != "*" && !host.is_some_and(is_host) {
                return None;
            }
            origins.push(origin.to_owned());
        }
        match origins.as_slice() {
            [] => Some(Self::None),
            [any] if any == "*" => Some(Self::Any),
            all if all.iter().any(|origin| origin == "*") => None,
            _ => Some(Self::Of(origins)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let of = |text: &str| Origins::parse(text);
        assert_eq!(of(""), Some(Origins::None));
        assert_eq!(of("*"), Some(Origins::Any));
        let two = vec!["https://a.example".to_owned(), "http://[::1]:8443".to_owned()];
        assert_eq!(of("https://a.example, http://[::1]:8443"), Some(Origins::Of(two)));
        for wrong in ["a.example", "https://a/", "https://A", "ftp://a", "https://", "https://a,*"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
