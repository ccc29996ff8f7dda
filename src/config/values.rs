//! Values of settings as a person writes them.

use std::{fmt::Display, str::FromStr, time::Duration};

pub fn non_empty(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text) }
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

pub fn count(text: &str) -> Result<usize, String> {
    // The limit of a semaphore, far above any use.
    within(number(text)?, 1, 1 << 24)
}

pub fn within<T: PartialOrd + Display + Copy>(number: T, least: T, most: T) -> Result<T, String> {
    let is_within = (&least..=&most).contains(&&number);
    is_within.then_some(number).ok_or_else(|| format!("must be {least} to {most}"))
}

pub fn number<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| "must be a whole number".into())
}

/// Splits a number and a unit, at the end of the digits.
fn with_unit<'a>(text: &'a str, what: &str) -> Result<(u64, &'a str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| format!("must be {what}"))?;
    Ok((number, text[end..].trim()))
}

const SIZE: &str = "a size such as 64KiB, 8MiB or 5GiB";

/// A size such as `512`, `64KiB` or `5GiB`; at least 1.
pub fn bytes(text: &str) -> Result<u64, String> {
    let bytes = Some(bytes_or_none(text)?).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("must be {SIZE}, and more than 0"))
}

/// As [`bytes()`], but `0` is allowed.
pub fn bytes_or_none(text: &str) -> Result<u64, String> {
    let (number, unit) = with_unit(text, SIZE)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("must be {SIZE}")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("must be {SIZE}, less than 16 EiB"))
}

/// As [`bytes()`], but at least `least` KiB; smaller values would break the daemon or be of no use.
pub fn at_least_kib(least: u64, text: &str) -> Result<u64, String> {
    let size = bytes(text)?;
    if size < least << 10 { Err(format!("must be at least {least}KiB")) } else { Ok(size) }
}

/// An address to listen on: `HOST:PORT`.
pub fn address(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let is_one = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if is_one { Ok(text.into()) } else { Err("must be HOST:PORT".into()) }
}

/// The beginning of other URLs: a path and a query with a signature are appended to it.
pub fn base_url(text: &str) -> Result<&str, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let has_host = host.is_some_and(|host| !host.is_empty() && !host.starts_with(['/', ':']));
    if has_host && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)) {
        return Ok(text);
    }
    Err("must be an http(s) URL with a host, without a query or a fragment".into())
}

const TIME: &str = "a time such as 500ms, 30s, 15m, 24h or 7d";

/// A time span such as `500ms`, `30s`, `15m`, `24h` or `7d`; more than zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span = Some(duration_or_none(text)?).filter(|span| !span.is_zero());
    span.ok_or_else(|| format!("must be {TIME}, and more than 0"))
}

/// As [`duration()`], but `0` is allowed, with or without a unit.
pub fn duration_or_none(text: &str) -> Result<Duration, String> {
    let (number, unit) = with_unit(text, TIME)?;
    let millis: u64 = match unit {
        "" if number == 0 => 1,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("must be {TIME}")),
    };
    // A hundred years: more than anybody needs, and safe to add to any time.
    let longest = 100 * 365 * 86_400_000;
    let millis = number.checked_mul(millis).filter(|millis| *millis <= longest);
    millis.map(Duration::from_millis).ok_or_else(|| format!("must be {TIME}, up to 100 years"))
}
