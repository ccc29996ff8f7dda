//! Where credentials are carried: `X-Service-Token`, `Authorization: Bearer`, `auth_token`.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN},
    http::{request::Parts, uri::Authority},
};
use zeroize::Zeroizing;

use crate::app::access::Credential;

const SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-service-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const COOKIE_NAME: &[u8] = b"auth_token";

/// Every credential of a request, the one that speaks first. Browsers find us at `public_url`.
pub fn carried(head: &Parts, public_url: &str) -> Vec<Credential> {
    let mut carried = in_headers(&head.headers);
    carried.extend(cookie(&head.headers).map(|cookie| {
        // Browsers add cookies to what other pages make them send.
        if !head.method.is_safe() && is_foreign(head, public_url) {
            return Credential::Unusable("a cookie on another origin's request");
        }
        cookie
    }));
    carried
}

/// Fetch Metadata (W3C, section 2.3), which browsers send over TLS and to loopback only. Where it
/// does not say that the page is ours, and elsewhere, the page's `Origin` must be: one beside us on
/// the same site, or on another port, is not, and a word that we do not know says nothing.
fn is_foreign(head: &Parts, public_url: &str) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes);
    let site = sites.next();
    match site.filter(|_| sites.next().is_none()) {
        Some(b"same-origin" | b"none") => return false,
        Some(b"cross-site") => return true,
        _ => {}
    }
    // A browser tells the origin of every page that writes; what is none may tell nothing.
    let Some(origin) = head.headers.get(ORIGIN) else { return site.is_some() };
    let Some(origin) = origin.to_str().ok().and_then(authority) else { return true };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = head.uri.authority().map(Authority::as_str).or(host);
    // A proxy may name the port that browsers leave out.
    let asked = asked.map(|asked| {
        asked.strip_suffix(":443").or_else(|| asked.strip_suffix(":80")).unwrap_or(asked)
    });
    ![asked, authority(public_url)]
        .into_iter()
        .flatten()
        .any(|own| own.eq_ignore_ascii_case(origin))
}

/// Host of a URL, and port where it is not the scheme's own, as browsers write it; nothing of the
/// origin `null`.
fn authority(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let own_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    Some(authority.strip_suffix(own_port).unwrap_or(authority))
}

/// Those that a client sends on purpose.
pub fn in_headers(headers: &HeaderMap) -> Vec<Credential> {
    let service = single(headers, &SERVICE_TOKEN).map(|value| match value {
        Ok(token) => Credential::ServiceToken(Zeroizing::new(token.to_owned())),
        Err(why) => Credential::Unusable(why),
    });
    let bearer = single(headers, &AUTHORIZATION).map(|value| match value.map(bearer_token) {
        Ok(Some(token)) => Credential::Bearer(Zeroizing::new(token.to_owned())),
        Ok(None) => Credential::Unusable("another scheme than Bearer"),
        Err(why) => Credential::Unusable(why),
    });
    service.into_iter().chain(bearer).collect()
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, &'static str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Err("a credential header comes twice"));
    }
    Some(first.to_str().map(str::trim).map_err(|_| "a credential is not ASCII"))
}

/// RFC 6750 section 2.1; the scheme in any case.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<Credential> {
    let values = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let mut tokens = values
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_NAME)?.strip_prefix(b"="))
        // Pages that log out leave it so.
        .filter(|token| !token.is_empty() && *token != b"\"\"");
    let token = tokens.next()?;
    if tokens.next().is_some() {
        return Some(Credential::Unusable("the cookie auth_token comes twice"));
    }
    Some(match std::str::from_utf8(token) {
        Ok(token) => Credential::Bearer(Zeroizing::new(token.trim_matches('"').to_owned())),
        Err(_) => Credential::Unusable("a credential is not ASCII"),
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn the_port_that_browsers_leave_out_may_be_named_to_us() {
        let is_ours = |host: &str, origin: &str| {
            let asked = Request::post("/").header(HOST, host).header(ORIGIN, origin).body(());
            !is_foreign(&asked.unwrap().into_parts().0, "")
        };
        assert!(is_ours("files.example:80", "http://files.example"));
        assert!(is_ours("files.example:443", "https://files.example"));
        assert!(is_ours("files.example:8443", "https://files.example:8443"));
        assert!(!is_ours("files.example:8443", "https://files.example"));
        assert!(!is_ours("files.example:80", "http://example"));
    }
}
