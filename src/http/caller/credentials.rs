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

/// Every credential of a request, in the order of precedence. Browsers reach the daemon at
/// `public_url`.
pub fn carried(head: &Parts, public_url: &str) -> Vec<Credential> {
    let mut carried = in_headers(&head.headers);
    carried.extend(cookie(&head.headers).map(|cookie| {
        // Browsers add cookies to the requests that other pages make them send.
        if !head.method.is_safe() && is_foreign(head, public_url) {
            return Credential::Unusable("a cookie on a request from another origin");
        }
        cookie
    }));
    carried
}

/// Whether the page that sent the request is of another origin. `Sec-Fetch-Site` (W3C Fetch
/// Metadata, section 2.3) decides first; browsers send it only over TLS and to loopback.
/// `same-origin` and `none` are ours, `cross-site` is foreign. An unknown value says nothing. If
/// the header does not decide, the page's `Origin` must be ours: another host of the same site, or
/// another port, is foreign.
fn is_foreign(head: &Parts, public_url: &str) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes);
    let site = sites.next();
    match site.filter(|_| sites.next().is_none()) {
        Some(b"same-origin" | b"none") => return false,
        Some(b"cross-site") => return true,
        _ => {}
    }
    // A browser sends the origin of every page that writes. Other clients need not send it.
    let Some(origin) = head.headers.get(ORIGIN) else { return site.is_some() };
    let Some(origin) = origin.to_str().ok().and_then(authority) else { return true };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = head.uri.authority().map(Authority::as_str).or(host);
    // A proxy may name the default port, which browsers leave out.
    let asked = asked.map(|asked| {
        asked.strip_suffix(":443").or_else(|| asked.strip_suffix(":80")).unwrap_or(asked)
    });
    ![asked, authority(public_url)]
        .into_iter()
        .flatten()
        .any(|own| own.eq_ignore_ascii_case(origin))
}

/// The host of a URL, and its port unless that is the default port of the scheme, as browsers write
/// it; `None` for the origin `null`.
fn authority(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let own_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    Some(authority.strip_suffix(own_port).unwrap_or(authority))
}

/// The credentials that a client sends on purpose: all but the cookie.
pub fn in_headers(headers: &HeaderMap) -> Vec<Credential> {
    let service = single(headers, &SERVICE_TOKEN).map(|value| match value {
        Ok(token) => Credential::ServiceToken(Zeroizing::new(token.to_owned())),
        Err(why) => Credential::Unusable(why),
    });
    let bearer = single(headers, &AUTHORIZATION).map(|value| match value.map(bearer_token) {
        Ok(Some(token)) => Credential::Bearer(Zeroizing::new(token.to_owned())),
        Ok(None) => Credential::Unusable("an Authorization scheme other than Bearer"),
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

/// The token of a Bearer header (RFC 6750 section 2.1). The scheme is case-insensitive.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<Credential> {
    let values = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let mut tokens = values
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE_NAME)?.strip_prefix(b"="))
        // Pages that log out leave an empty cookie.
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
