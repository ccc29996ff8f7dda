//! Every setting: name, default, meaning, bound. [`layers`] reads them, [`document`] prints them.

pub mod document;
pub mod layers;
pub mod reload;
mod values;

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use zeroize::Zeroizing;

pub use self::values::{address, bytes, bytes_or_none, duration, duration_or_none};
use self::values::{at_least_kib, base_url, boolean, count, non_empty, number, within};
use crate::{
    model::{grant, origins::Origins, principal::Audience, token},
    sys::log,
};

/// The configuration of a daemon. Its `Default` has no setting filled in; see [`Config::new`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: String,
    pub public_url: Option<String>,
    pub public_read: bool,
    pub jwt_issuer: String,
    pub jwt_audience: String,
    pub service_token: Option<Zeroizing<String>>,
    pub log: String,
    pub file_bytes_max: u64,
    pub part_bytes_max: Option<u64>,
    pub quota_bytes: u64,
    pub upload_ttl: Duration,
    pub reclaim_grace: Duration,
    pub scrub_every: Duration,
    pub scrub_bytes_per_second: u64,
    pub metrics: Audience,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_client_ca: Option<PathBuf>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub requests_max: usize,
    pub requests_per_principal_max: usize,
    pub requests_per_second_max: Option<u32>,
    pub requests_per_connection_max: u64,
    pub streams_per_connection_max: u32,
    pub head_bytes_max: u32,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub body_bytes_per_second_min: u64,
    pub drain_timeout: Duration,
    pub allowed_origins: Origins,
    pub trusted_proxies: Vec<IpNet>,
    pub audit_file_bytes: u64,
    pub audit_keep: Duration,
    pub meta_cache_bytes: u64,
    pub journal_bytes: u64,
    pub pack_bytes_max: u64,
}

impl Config {
    /// A configuration in which every setting has its default.
    pub fn new() -> Self {
        let mut config = Self::default();
        for knob in KNOBS.iter().filter(|knob| !knob.default.is_empty()) {
            // No default is refused; a test checks that.
            let _ = (knob.set)(&mut config, knob.default);
        }
        config
    }
}

/// One setting: `name` in the file, `STREAMLINED_NAME` in the environment.
pub struct Knob {
    pub name: &'static str,
    /// The default as it would be written; empty if there is none.
    pub default: &'static str,
    /// What the setting means, in the words of the README's table.
    pub help: &'static str,
    /// Whether the value is a secret, which is never shown.
    pub secret: bool,
    set: Set,
    /// For a setting that is only read at the start: whether two configurations differ in it.
    /// `None` for a setting that may change while the daemon serves.
    differs: Option<fn(&Config, &Config) -> bool>,
}

type Set = fn(&mut Config, &str) -> Result<(), String>;

impl Knob {
    /// The setting with this name.
    fn named(name: &str) -> Option<&'static Self> {
        KNOBS.iter().find(|knob| knob.name == name)
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn at_start(self, differs: fn(&Config, &Config) -> bool) -> Self {
        Self { differs: Some(differs), ..self }
    }

    /// The form of a value, in the words of the refusal of any other; `None` if any text is taken.
    pub fn expected(&self) -> Option<String> {
        let nonsense = "\u{1}";
        (self.set)(&mut Config::default(), nonsense).err()
    }
}

const fn knob(name: &'static str, default: &'static str, help: &'static str, set: Set) -> Knob {
    Knob { name, default, help, secret: false, set, differs: None }
}

/// Stores a value, or says why it is refused.
fn set<T>(field: &mut T, value: Result<impl Into<T>, impl Into<String>>) -> Result<(), String> {
    *field = value.map_err(Into::into)?.into();
    Ok(())
}

/// All settings.
pub const KNOBS: &[Knob] = &[
    knob("data_dir", "data", "Directory that holds all data.", |config, text| {
        set(&mut config.data_dir, non_empty(text))
    })
    .at_start(|one, other| one.data_dir != other.data_dir),
    knob(
        "listen",
        "127.0.0.1:8000",
        "Address and port to listen on; port 0 picks a free port.",
        |config, text| set(&mut config.listen, address(text)),
    )
    .at_start(|one, other| one.listen != other.listen),
    knob(
        "public_url",
        "",
        "Base of signed URLs; if not set, http://LISTEN, or https://LISTEN with TLS.",
        |config, text| set(&mut config.public_url, base_url(text).map(str::to_owned)),
    ),
    knob(
        "public_read",
        "false",
        "Serve /storage/… to anybody, without a credential.",
        |config, text| set(&mut config.public_read, boolean(text)),
    ),
    knob(
        "jwt_issuer",
        "streamlined",
        "Claim iss of user tokens: set in new ones and required of all.",
        |config, text| set(&mut config.jwt_issuer, non_empty(text)),
    ),
    knob(
        "jwt_audience",
        "streamlined",
        "Claim aud of user tokens: set in new ones and required of all.",
        |config, text| set(&mut config.jwt_audience, non_empty(text)),
    ),
    knob("service_token", "", "Existing opaque service token to register.", |config, text| {
        let is_one = token::is_acceptable_token(text);
        let token = is_one.then(|| Zeroizing::new(text.to_owned()));
        let fault = "must be 16 to 512 visible ASCII characters, and not a JWT";
        set(&mut config.service_token, token.ok_or(fault))
    })
    .secret(),
    knob("log", "info", "Log filter, such as info or streamlined=debug.", |config, text| {
        let fault =
            |why: String| format!("must be a filter such as info or streamlined=debug ({why})");
        set(&mut config.log, log::parse(non_empty(text)?).map(|_| text).map_err(fault))
    }),
    knob(
        "file_bytes_max",
        "5GiB",
        "Largest size of a file; a larger one is refused with 413.",
        |config, text| set(&mut config.file_bytes_max, bytes(text)),
    ),
    knob(
        "part_bytes_max",
        "",
        "Largest size of a part; file_bytes_max if not set.",
        |config, text| set(&mut config.part_bytes_max, bytes(text)),
    ),
    knob(
        "quota_bytes",
        "500GiB",
        "How much a user may store unless the user has its own quota; more is refused with 413.",
        |config, text| set(&mut config.quota_bytes, bytes(text)),
    ),
    knob(
        "upload_ttl",
        "24h",
        "How long an upload stays open without receiving bytes.",
        |config, text| set(&mut config.upload_ttl, duration(text)),
    ),
    knob(
        "reclaim_grace",
        "1h",
        "How long content that no file refers to is kept.",
        |config, text| set(&mut config.reclaim_grace, duration(text)),
    ),
    knob(
        "scrub_every",
        "30d",
        "How often all content is read and checked; 1m to 365d.",
        |config, text| {
            let every = duration(text)?;
            let sensible = Duration::from_mins(1)..=Duration::from_hours(365 * 24);
            let fault = "must be 1m to 365d: otherwise damage is found too late";
            set(&mut config.scrub_every, sensible.contains(&every).then_some(every).ok_or(fault))
        },
    ),
    knob(
        "scrub_bytes_per_second",
        "16MiB",
        "Most bytes per second that this check reads; at least 64KiB.",
        |config, text| set(&mut config.scrub_bytes_per_second, at_least_kib(64, text)),
    ),
    knob(
        "metrics",
        "nobody",
        "Who may read /metrics on the port: nobody, admins or anybody; the admin socket serves it.",
        |config, text| {
            let audience = match text {
                "nobody" => Ok(Audience::Nobody),
                "admins" => Ok(Audience::Admins),
                "anybody" => Ok(Audience::Anybody),
                _ => Err("must be nobody, admins or anybody"),
            };
            set(&mut config.metrics, audience)
        },
    ),
    knob(
        "tls_certificate",
        "",
        "PEM file with the certificate chain; turns TLS on.",
        |config, text| set(&mut config.tls_certificate, non_empty(text).map(PathBuf::from)),
    ),
    knob("tls_key", "", "PEM file with the private key of tls_certificate.", |config, text| {
        set(&mut config.tls_key, non_empty(text).map(PathBuf::from))
    }),
    knob(
        "tls_client_ca",
        "",
        "PEM file with certificate authorities; clients need a certificate signed by one of them.",
        |config, text| set(&mut config.tls_client_ca, non_empty(text).map(PathBuf::from)),
    ),
    knob(
        "connections_max",
        "16384",
        "Most open connections; more are refused with 503.",
        |config, text| set(&mut config.connections_max, count(text)),
    ),
    knob(
        "connections_per_address_max",
        "4096",
        "Most open connections per address, except trusted proxies; more are refused with 503.",
        |config, text| set(&mut config.connections_per_address_max, count(text)),
    ),
    knob(
        "requests_max",
        "4096",
        "Most requests in progress; more are refused with 503.",
        |config, text| set(&mut config.requests_max, count(text)),
    ),
    knob(
        "requests_per_principal_max",
        "2048",
        "Most requests in progress per user or service; more are refused with 429.",
        |config, text| set(&mut config.requests_per_principal_max, count(text)),
    ),
    knob(
        "requests_per_second_max",
        "",
        "Most requests per second per user or service; more are refused with 429.",
        |config, text| {
            let max = Some(number::<u32>(text)?).filter(|max| *max > 0);
            set(&mut config.requests_per_second_max, max.ok_or("must be at least 1"))
        },
    ),
    knob(
        "requests_per_connection_max",
        "100000",
        "Most requests on one connection, which is then closed gracefully.",
        |config, text| {
            set(&mut config.requests_per_connection_max, within(number(text)?, 1, u64::MAX))
        },
    ),
    knob(
        "streams_per_connection_max",
        "64",
        "Most concurrent requests on one HTTP/2 connection; further streams are refused.",
        |config, text| {
            set(&mut config.streams_per_connection_max, within(number(text)?, 1, 1_u32 << 16))
        },
    ),
    knob(
        "head_bytes_max",
        "64KiB",
        "Largest head of a request, 8KiB to 1MiB; a larger one is refused with 431.",
        |config, text| {
            let bounds = 8 << 10..=1 << 20;
            let bytes = bytes(text).ok().filter(|bytes| bounds.contains(bytes));
            let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
            set(&mut config.head_bytes_max, bytes.ok_or("must be 8KiB to 1MiB"))
        },
    ),
    knob(
        "header_timeout",
        "30s",
        "Longest wait for a request's head, including the TLS handshake; then the connection \
         closes.",
        |config, text| set(&mut config.header_timeout, duration(text)),
    ),
    knob(
        "idle_timeout",
        "60s",
        "How long a connection without a request stays open.",
        |config, text| set(&mut config.idle_timeout, duration(text)),
    ),
    knob(
        "body_idle_timeout",
        "60s",
        "Longest pause of a client that sends a body (then 408) or reads an answer (then cut off).",
        |config, text| set(&mut config.body_idle_timeout, duration(text)),
    ),
    knob(
        "body_bytes_per_second_min",
        "1KiB",
        "Lowest speed, averaged over body_idle_timeout, of a client that sends a body (else 408) \
         or reads an answer (else cut off); 0 for no limit.",
        |config, text| {
            let speed = if text == "0" { Ok(0) } else { bytes(text) };
            set(&mut config.body_bytes_per_second_min, speed)
        },
    ),
    knob(
        "drain_timeout",
        "30s",
        "How long a stop waits for requests in progress.",
        |config, text| set(&mut config.drain_timeout, duration(text)),
    ),
    knob(
        "allowed_origins",
        "",
        "Origins, separated by commas, whose pages may send requests (CORS); * for any origin.",
        |config, text| {
            let fault = "must be origins such as https://app.example, separated by commas, or *";
            set(&mut config.allowed_origins, Origins::parse(text).ok_or(fault))
        },
    ),
    knob(
        "trusted_proxies",
        "",
        "Networks of proxies, separated by commas, whose X-Forwarded-For or Forwarded is trusted.",
        |config, text| {
            let networks = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            let networks = networks.map(grant::network).collect::<Result<Vec<_>, _>>();
            let fault = "must be networks such as 10.0.0.0/8, separated by commas";
            set(&mut config.trusted_proxies, networks.map_err(|_| fault))
        },
    ),
    knob(
        "audit_file_bytes",
        "64MiB",
        "Size at which a new file of the audit log is begun; at least 64KiB.",
        |config, text| set(&mut config.audit_file_bytes, at_least_kib(64, text)),
    )
    .at_start(|one, other| one.audit_file_bytes != other.audit_file_bytes),
    knob("audit_keep", "365d", "How long files of the audit log are kept.", |config, text| {
        set(&mut config.audit_keep, duration(text))
    })
    .at_start(|one, other| one.audit_keep != other.audit_keep),
    knob(
        "meta_cache_bytes",
        "32MiB",
        "Size of the cache of the index; at least 1024KiB.",
        |config, text| set(&mut config.meta_cache_bytes, at_least_kib(1024, text)),
    )
    .at_start(|one, other| one.meta_cache_bytes != other.meta_cache_bytes),
    knob(
        "journal_bytes",
        "64MiB",
        "Growth of the journal, or the size of the last snapshot if that is more, after which the \
         index is saved; at least 16KiB.",
        |config, text| set(&mut config.journal_bytes, at_least_kib(16, text)),
    )
    .at_start(|one, other| one.journal_bytes != other.journal_bytes),
    knob(
        "pack_bytes_max",
        "64KiB",
        "Largest content that is stored together with others in a pack; at most 128KiB.",
        |config, text| {
            let size = if text == "0" { 0 } else { bytes(text)? };
            let size = Some(size).filter(|size| *size <= 128 << 10);
            let fault = "must be at most 128KiB: it is held in memory";
            set(&mut config.pack_bytes_max, size.ok_or(fault))
        },
    )
    .at_start(|one, other| one.pack_bytes_max != other.pack_bytes_max),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_defaults_are_good() {
        for knob in KNOBS.iter().filter(|knob| !knob.default.is_empty()) {
            assert_eq!((knob.set)(&mut Config::new(), knob.default), Ok(()), "{}", knob.name);
        }
    }

    #[test]
    fn every_field_is_the_setting_of_its_name() {
        let (fields, table) = include_str!("mod.rs").split_once("\nimpl Config").unwrap();
        let name = |line: &'static str| Some(line.strip_prefix("    pub ")?.split_once(':')?.0);
        let fields: Vec<&str> = fields.lines().filter_map(name).collect();
        assert_eq!(fields, KNOBS.iter().map(|knob| knob.name).collect::<Vec<_>>());
        for field in fields {
            let (_, knob) = table.split_once(&format!("\"{field}\",")).unwrap();
            let set = knob.split_once("config.").unwrap().1;
            assert!(set.starts_with(&format!("{field},")), "{field}");
        }
    }

    #[test]
    fn the_readme_lists_every_setting() {
        let row = |knob: &Knob| format!("| `{}` | {} | {} |", knob.name, knob.default, knob.help);
        let table: Vec<String> = KNOBS.iter().map(row).collect();
        assert!(include_str!("../../README.md").contains(&table.join("\n")), "{table:#?}");
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let mut config = Config::new();
        for (name, value) in [
            ("upload_ttl", "0s"),
            ("upload_ttl", "9999999d"),
            ("scrub_every", "59s"),
            ("scrub_every", "0"),
            ("scrub_every", "0d"),
            ("scrub_every", "off"),
            ("scrub_every", "366d"),
            ("scrub_bytes_per_second", "0"),
            ("quota_bytes", "0"),
            ("file_bytes_max", "99999999999TiB"),
            ("pack_bytes_max", "1MiB"),
            ("listen", "8000"),
            ("listen", ":1"),
            ("log", "a=b=c"),
            ("log", "eq\0\0w\n\u{7a8}=}%i"),
            ("public_url", "ftp://x"),
            ("public_url", "http://x?y"),
            ("public_url", "http://x/#y"),
            ("requests_max", "0"),
            ("requests_per_connection_max", "0"),
            ("streams_per_connection_max", "0"),
            ("streams_per_connection_max", "65537"),
            ("head_bytes_max", "8191"),
            ("head_bytes_max", "2MiB"),
            ("metrics", "everybody"),
            ("tls_key", ""),
            ("allowed_origins", "app.example"),
            ("allowed_origins", "https://app.example/"),
            ("allowed_origins", "https://a.example,*"),
            ("trusted_proxies", "10.0.0.0/33"),
            ("trusted_proxies", "10.0.0.1 10.0.0.2"),
            ("service_token", "too short"),
            ("service_token", "with spaces in between"),
            ("service_token", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
        ] {
            let knob = Knob::named(name).unwrap();
            assert!((knob.set)(&mut config, value).is_err(), "{name} {value}");
        }
        assert!(config == Config::new());
    }
}
