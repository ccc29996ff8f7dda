//! The client's address of a request behind proxies: compared with another reading of the chain,
//! and behind honest proxies whose client sends headers of its choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName, HeaderValue},
};
use ipnet::IpNet;

use super::text;
use crate::http::caller::client;

const NAMES: [HeaderName; 2] = [FORWARDED, HeaderName::from_static("x-forwarded-for")];

/// Lines are the peer, the trusted networks, a host, and then alternately values of `Forwarded` and
/// of `X-Forwarded-For`.
pub fn client_address(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut next = || text(lines.next().unwrap_or_default());
    let (Some(peer), Some(networks), Some(host)) = (next(), next(), next()) else { return };
    let Ok(peer) = peer.parse::<IpAddr>() else { return };
    let mut headers = HeaderMap::new();
    // Zones (RFC 4007) are read where a port may follow, and mean nothing here.
    let lines = lines.filter(|line| !line.contains(&b'%')).take(16);
    for (at, line) in lines.enumerate() {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(NAMES[at % NAMES.len()].clone(), value);
        }
    }
    let networks: Vec<IpNet> =
        networks.split(',').filter_map(|it| it.trim().parse().ok()).collect();
    let found = client::address(peer, &headers, &networks);
    assert_eq!(found.ok(), last_of_the_trusted(peer.to_canonical(), &headers, &networks));
    behind_proxies(peer.to_canonical(), host, &headers);
}

/// The first address from the right that is not a trusted proxy; `None` if that is no address.
fn last_of_the_trusted(peer: IpAddr, headers: &HeaderMap, networks: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| networks.iter().any(|network| network.contains(&address));
    if !is_trusted(peer) {
        return Some(peer);
    }
    let mut found = Vec::new();
    for name in NAMES.iter().filter(|name| headers.contains_key(*name)) {
        let values = headers.get_all(name).iter().map(|value| value.to_str().ok());
        let values = values.collect::<Option<Vec<_>>>()?;
        let hops = if *name == FORWARDED {
            values.into_iter().map(nodes).collect::<Option<Vec<_>>>()?.concat()
        } else {
            values.join(",").split(',').map(|hop| address(hop.trim())).collect()
        };
        let unknown = hops.iter().rev().find(|hop| !hop.is_some_and(is_trusted));
        found.push((*unknown.or(hops.first())?)?);
    }
    match found[..] {
        [] => Some(peer),
        [one] => Some(one),
        [one, other, ..] => (one == other).then_some(one),
    }
}

/// The `for` of each element, read character by character.
fn nodes(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let (mut nodes, mut of_element) = (Vec::new(), Vec::new());
    let (mut pair, mut is_quoted) = (String::new(), false);
    for c in line.chars().chain([',']) {
        is_quoted ^= c == '"';
        if is_quoted || !matches!(c, ',' | ';') {
            pair.push(c);
            continue;
        }
        let said = std::mem::take(&mut pair);
        if let Some((name, value)) = said.trim().split_once('=')
            && name.eq_ignore_ascii_case("for")
        {
            let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
            of_element.push(address(if is_quoted { &value[1..value.len() - 1] } else { value }));
        }
        if c == ',' {
            nodes.push(if let [node] = of_element[..] { node } else { None });
            of_element.clear();
        }
    }
    (!is_quoted && !line.contains('\\')).then_some(nodes)
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` and `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, port),
        _ => (text, "0"),
    };
    let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
    port.parse::<u16>().ok().filter(|_| is_number)?;
    let address = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

/// Two proxies report a client, in either header, behind what the client sent itself and with the
/// host that it asked for: the client is never taken for another address.
fn behind_proxies(client: IpAddr, host: &str, said: &HeaderMap) {
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let networks: [IpNet; 1] = ["10.0.0.0/8".parse().expect("a network")];
    if client::is_trusted(client, &networks) {
        return;
    }
    let node = if client.is_ipv6() { format!("[{client}]") } else { client.to_string() };
    let escaped = host.replace('\\', "\\\\").replace('"', "\\\"");
    let told = [
        format!("for=\"{node}:80\";host=\"{escaped}\";proto=https, for=10.0.0.2"),
        format!("{client}, 10.0.0.2"),
    ];
    let is_honest = said.is_empty() && escaped == host;
    for (name, told) in NAMES.into_iter().zip(told) {
        let values = said.get_all(&name).iter().map(|value| value.as_bytes().to_vec());
        let lines: Vec<_> = values.chain([told.into_bytes()]).collect();
        for lines in [lines.clone(), vec![lines.join(&b", "[..])]] {
            let mut headers = said.clone();
            headers.remove(&name);
            for line in lines {
                let Ok(value) = HeaderValue::from_bytes(&line) else { return };
                headers.append(&name, value);
            }
            let found = client::address(PEER, &headers, &networks).ok();
            assert!(found.is_none_or(|found| found == client), "it chose {found:?}: {headers:?}");
            assert!(found.is_some() || !is_honest || !host.is_ascii(), "{headers:?}");
        }
    }
}
