//! What a request's head must say before it is looked at any further: one host, and at most one
//! transfer coding. So no proxy in front sees another request than the daemon does. hyper refuses
//! the rest: lengths that are no number or differ, codings that do not end in chunked, broken
//! chunks, line folding.

use hyper::{
    Version,
    header::{HOST, HeaderValue, TRANSFER_ENCODING},
    http::{
        request::Parts,
        uri::{Authority, Scheme},
    },
};

use crate::app::Error;

/// # Errors
/// [`Error::Invalid`] for a head that two readers could understand in two ways.
pub fn check(head: &Parts) -> Result<(), Error> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        let detail = "Transfer-Encoding must be chunked, sent once.";
        return Err(Error::invalid("encoded_content", detail));
    }
    let ours = |scheme: &Scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme);
    if !head.uri.scheme().is_none_or(ours) || !has_one_host(head) {
        let detail = "A request must name one host: a Host header, or :authority in HTTP/2.";
        return Err(Error::invalid("invalid_host", detail));
    }
    Ok(())
}

/// Whether the head names its host once (RFC 9112 section 3.2, RFC 9113 section 8.3.1). Which host
/// it is does not matter here.
fn has_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let plain = |authority: &Authority| !authority.as_str().contains('@');
    let is_host =
        |host: &HeaderValue| Authority::try_from(host.as_bytes()).is_ok_and(|it| plain(&it));
    let well_formed = host.is_none_or(|host| host.is_empty() || is_host(host))
        && head.uri.authority().is_none_or(plain);
    let named = match head.version {
        Version::HTTP_11 => host.is_some(),
        Version::HTTP_2 => {
            let authority = head.uri.authority().map(Authority::as_str);
            authority.zip(host).is_none_or(|(authority, host)| host == authority)
        }
        _ => true,
    };
    named && well_formed && second.is_none()
}
