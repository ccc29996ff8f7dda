//! The address of the client: the peer's own, or the one that a trusted proxy reports.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
};
use ipnet::IpNet;

use crate::app::Error;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Walks the hops from the peer towards the client for as long as they are trusted proxies. Hops
/// further away were reported by somebody who is not trusted.
///
/// # Errors
/// [`Error::Invalid`] when `Forwarded` and `X-Forwarded-For` disagree, because a proxy sets one of
/// them and passes the other through. Also when a hop is not an address: a guessed address could
/// open what is closed to the real one.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Error> {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| is_trusted(address, trusted);
    if !is_trusted(peer) {
        return Ok(peer);
    }
    let walk = |hops: Vec<&str>, parse: fn(&str) -> Option<IpAddr>| {
        let mut client = peer;
        for hop in hops.into_iter().rev() {
            if !is_trusted(client) {
                break;
            }
            client = parse(hop.trim()).ok_or_else(unclear)?;
        }
        Ok::<_, Error>(client)
    };
    let hops = |name: &HeaderName, elements: fn(&str) -> Option<Vec<&str>>| {
        let values = headers.get_all(name).iter();
        let lists = values.map(|value| value.to_str().ok().and_then(elements).ok_or_else(unclear));
        lists.collect::<Result<Vec<_>, Error>>().map(|lists| lists.concat())
    };
    let forwarded = hops(&FORWARDED, elements)?;
    let x_forwarded = hops(&X_FORWARDED_FOR, |text| Some(text.split(',').collect()))?;
    let both = !forwarded.is_empty() && !x_forwarded.is_empty();
    let by_forwarded = walk(forwarded, forwarded_for)?;
    let by_x_forwarded = walk(x_forwarded, plain)?;
    if both && by_forwarded != by_x_forwarded {
        return Err(unclear());
    }
    Ok(if by_forwarded == peer { by_x_forwarded } else { by_forwarded })
}

/// Whether the address is a trusted proxy's.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

fn unclear() -> Error {
    let detail = "Forwarded or X-Forwarded-For does not clearly name one client address.";
    Error::invalid("unclear_client", detail)
}

/// An IP address with an optional port. An IPv6 address may stand in brackets, and must if a port
/// follows: without brackets, the two would read as another address.
fn plain(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|socket: SocketAddr| socket.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(in_brackets);
    address.map(|address| address.to_canonical())
}

/// The elements of a `Forwarded` header (RFC 7239 section 4). A quoted string may hold what the
/// client chose, because a proxy puts the requested host there. `None` if a quote stays open, since
/// a quote of the proxy would then close it, and if there are escapes.
fn elements(text: &str) -> Option<Vec<&str>> {
    let is_clear = text.matches('"').count().is_multiple_of(2) && !text.contains('\\');
    is_clear.then(|| split_outside_quotes(text, ',').collect())
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// The address in the `for` of an element; `None` unless there is exactly one `for`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_outside_quotes(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    let (Some((_, node)), None) = (nodes.next(), nodes.next()) else { return None };
    plain(node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(peer: &str, headers: &[(HeaderName, &'static str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        address(peer.parse().unwrap(), &map, &trusted).ok().map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let x = |value| (X_FORWARDED_FOR, value);
        let f = |value| (FORWARDED, value);
        for (peer, headers, wanted) in [
            ("192.0.2.1", &[x("198.51.100.7")][..], Some("192.0.2.1")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &[x("198.51.100.7")], Some("198.51.100.7")),
            ("::ffff:10.0.0.1", &[x("198.51.100.7:4711")], Some("198.51.100.7")),
            // What the client itself sent stands further left.
            ("10.0.0.1", &[x("10.9.9.9, 198.51.100.7")], Some("198.51.100.7")),
            ("10.0.0.1", &[x("1.1.1.1, 198.51.100.7, 10.0.0.2")], Some("198.51.100.7")),
            ("10.0.0.1", &[x("1.1.1.1"), x("198.51.100.7")], Some("198.51.100.7")),
            ("10.0.0.1", &[x("garbage, 198.51.100.7")], Some("198.51.100.7")),
            ("10.0.0.1", &[x("garbage")], None),
            ("10.0.0.1", &[x("")], None),
            ("10.0.0.1", &[x("[2001:db9::1]:80")], Some("2001:db9::1")),
            ("2001:db8::1", &[f("for=\"[2001:db9::9]:1\";proto=https")], Some("2001:db9::9")),
            ("10.0.0.1", &[f("by=10.0.0.1; For=198.51.100.7, for=10.0.0.3")], Some("198.51.100.7")),
            ("10.0.0.1", &[x("2001:db9::1")], Some("2001:db9::1")),
            ("10.0.0.1", &[x("2001:db9::1:54321")], None),
            ("10.0.0.1", &[f("for=unknown")], None),
            ("10.0.0.1", &[f("proto=https")], None),
            ("10.0.0.1", &[f("for=198.51.100.7;for=1.1.1.1")], None),
            // The client chose the host that its proxy reports.
            ("10.0.0.1", &[f("for=198.51.100.7;host=\"a,for=1.1.1.1;x=\"")], Some("198.51.100.7")),
            ("10.0.0.1", &[f("for=1.1.1.1;x=\", for=198.51.100.7;host=\"a\"")], None),
            ("10.0.0.1", &[f("for=1.1.1.1;x=\", for=198.51.100.7;host=\"a\\\"b\"")], None),
            // A proxy that sets one of the headers passes the other through.
            ("10.0.0.1", &[f("for=10.1.1.1"), x("198.51.100.7")], None),
            ("10.0.0.1", &[f("for=198.51.100.7"), x("198.51.100.7")], Some("198.51.100.7")),
        ] {
            assert_eq!(client(peer, headers).as_deref(), wanted, "{peer} {headers:?}");
        }
    }

    #[test]
    fn what_is_no_text_matters_only_from_a_trusted_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(b"\xff").unwrap());
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(address(peer, &headers, &[]).ok(), Some(peer));
        assert!(address(peer, &headers, &[peer.into()]).is_err());
    }
}
