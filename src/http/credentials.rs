//! Where credentials are carried: `X-Service-Token`, `Authorization: Bearer`, `auth_token`.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, COOKIE, HeaderName},
};
use zeroize::Zeroizing;

use crate::app::access::Credential;

const SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-service-token");
const COOKIE_NAME: &str = "auth_token";

/// Every credential of a request, the one that speaks first.
pub fn carried(headers: &HeaderMap) -> Vec<Credential> {
    let mut carried = in_headers(headers);
    carried.extend(cookie(headers));
    carried
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
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, token)| token.trim_matches('"'));
    let token = tokens.next()?;
    if tokens.next().is_some() {
        return Some(Credential::Unusable("the cookie auth_token comes twice"));
    }
    Some(Credential::Bearer(Zeroizing::new(token.to_owned())))
}
