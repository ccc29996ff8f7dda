//! Where settings come from: file, credentials of systemd, environment, flags; the later wins. All
//! faults are reported together.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue, Error};
use zeroize::Zeroizing;

use super::{Config, KNOBS, Knob};

const PREFIX: &str = "STREAMLINED_";
/// Variables that are not settings: the path of the file, and those of the client in this binary.
const NO_SETTINGS: [&str; 5] = ["CONFIG", "SERVER", "TOKEN", "CA", "CLIENT_CERTIFICATE"];

/// The settings on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
}

/// A setting as it was set last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Empty for a secret.
    pub value: String,
    /// Where it was set: a line of the file, a variable, a flag.
    pub place: String,
}

/// The settings that were set anywhere; the others have their defaults.
pub type Origins = BTreeMap<&'static str, Said>;

/// Fills a configuration and records the origin of each setting.
///
/// # Errors
/// Every fault, each with its place: unknown names, bad values, an unreadable file.
pub fn load(
    flags: &Flags,
    environment: &BTreeMap<OsString, OsString>,
) -> Result<(Config, Origins), Vec<String>> {
    let mut load = Load { config: Config::new(), origins: Origins::new(), faults: Vec::new() };
    let variable = |name: &str| environment.get(&OsString::from(name));
    let from_environment = variable("STREAMLINED_CONFIG").map(PathBuf::from);
    match (&flags.config, from_environment) {
        (Some(path), _) => load.file(path),
        (None, Some(path)) if path.as_os_str().is_empty() => {
            load.faults.push("STREAMLINED_CONFIG: is empty; name a file or unset it".into());
        }
        (None, Some(path)) => load.file(&path),
        (None, None) => {}
    }
    if let Some(directory) = variable("CREDENTIALS_DIRECTORY") {
        load.credentials(Path::new(directory));
    }
    load.environment(environment);
    if let Some(data_dir) = &flags.data_dir {
        load.text("data_dir", data_dir.to_str(), "--data-dir");
    }
    if let Some(listen) = &flags.listen {
        load.text("listen", Some(listen), "--listen");
    }
    load.pairs();
    if load.faults.is_empty() { Ok((load.config, load.origins)) } else { Err(load.faults) }
}

struct Load {
    config: Config,
    origins: Origins,
    faults: Vec<String>,
}

impl Load {
    fn set(&mut self, knob: &Knob, value: &str, place: &str) {
        let shown = if knob.secret { String::new() } else { value.to_owned() };
        match (knob.set)(&mut self.config, value) {
            Ok(()) => {
                let said = Said { value: shown, place: place.to_owned() };
                self.origins.insert(knob.name, said);
            }
            Err(why) if knob.secret => self.faults.push(format!("{place}: {} {why}", knob.name)),
            Err(why) => self.faults.push(format!("{place}: {} {why}, not {shown:?}", knob.name)),
        }
    }

    fn text(&mut self, name: &str, value: Option<&str>, place: &str) {
        match (Knob::named(name), value) {
            (None, _) => {
                let meant = nearest(name).map(|meant| format!("; did you mean {meant}?"));
                let meant = meant.unwrap_or_default();
                self.faults.push(format!("{place}: there is no setting {name}{meant}"));
            }
            (Some(_), None) => self.faults.push(format!("{place}: {name} is not UTF-8")),
            (Some(knob), Some(value)) => self.set(knob, value, place),
        }
    }

    fn file(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => return self.faults.push(format!("{}: {error}", path.display())),
        };
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            // Settings read from a file that is not TOML would only repeat its faults. For the same
            // reason only the first fault of each line is reported; the others on the line follow
            // from it.
            let place = |error: &Error| error.span().map_or(1, |span| line(span.start));
            let mut lines = BTreeMap::new();
            for error in &errors {
                lines.entry(place(error)).or_insert(error);
            }
            let told = |(at, error): (usize, &Error)| {
                format!("{}:{at}: {}", path.display(), error.message())
            };
            self.faults.extend(lines.into_iter().map(told));
            return;
        }
        let mut settings: Vec<_> = table.get_ref().iter().collect();
        settings.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in settings {
            let place = format!("{}:{}", path.display(), line(name.span().start));
            match scalar(value.get_ref()) {
                Some(value) => self.text(name.get_ref(), Some(&value), &place),
                None => self.faults.push(format!(
                    "{place}: {} must be a string, a whole number, true or false",
                    name.get_ref(),
                )),
            }
        }
    }

    /// `$CREDENTIALS_DIRECTORY/NAME` for every secret and every file of TLS (systemd.exec(5)).
    fn credentials(&mut self, directory: &Path) {
        for name in ["tls_certificate", "tls_key", "tls_client_ca"] {
            let path = directory.join(name);
            if path.exists() {
                self.text(name, path.to_str(), "CREDENTIALS_DIRECTORY");
            }
        }
        for knob in KNOBS.iter().filter(|knob| knob.secret) {
            let path = directory.join(knob.name);
            match fs::read_to_string(&path).map(Zeroizing::new) {
                Ok(value) => self.set(knob, value.trim_end(), &path.display().to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => self.faults.push(format!("{}: {error}", path.display())),
            }
        }
    }

    /// Reports settings that mean nothing without another one.
    fn pairs(&mut self) {
        let pairs = [
            ("tls_certificate", "tls_key"),
            ("tls_key", "tls_certificate"),
            ("tls_client_ca", "tls_key"),
        ];
        for (name, other) in pairs {
            if let Some(said) = self.origins.get(name)
                && !self.origins.contains_key(other)
            {
                self.faults.push(format!("{}: {name} needs {other}", said.place));
            }
        }
    }

    fn environment(&mut self, environment: &BTreeMap<OsString, OsString>) {
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            match name.strip_prefix(PREFIX) {
                None => {}
                Some(other) if NO_SETTINGS.contains(&other) || is_of_kubernetes(other, value) => {}
                Some(setting) => self.text(&setting.to_ascii_lowercase(), value.to_str(), name),
            }
        }
    }
}

/// Whether Kubernetes sets this variable, for the address of a Service named `streamlined`. None of
/// these is the name of a setting.
fn is_of_kubernetes(name: &str, value: &OsStr) -> bool {
    let is_url = value.to_str().is_some_and(|value| value.contains("://"));
    let begins =
        ["SERVICE_HOST", "SERVICE_PORT", "PORT_"].iter().any(|word| name.starts_with(word));
    begins || name == "PORT" && is_url
}

/// The setting whose name is most similar to `name`, if one is similar enough.
fn nearest(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.8;
    let alike = KNOBS.iter().map(|knob| (strsim::jaro_winkler(knob.name, name), knob.name));
    let best = alike.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= ALIKE).then_some(best.1)
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, Flags) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        (file, flags)
    }

    #[test]
    fn the_later_layer_wins() {
        let text = "listen = '0.0.0.0:1'\nquota_bytes = '2KiB'\npublic_read = true\n\
                    requests_max = 7\nupload_ttl = '15m'";
        let (_file, mut flags) = file(text);
        flags.listen = Some("[::1]:3".into());
        let variables = [("STREAMLINED_LISTEN", "h:2"), ("STREAMLINED_PUBLIC_READ", "off")];
        let (config, _) = load(&flags, &environment(&variables)).ok().unwrap();
        assert_eq!(config.listen, "[::1]:3");
        assert!(!config.public_read);
        assert_eq!((config.quota_bytes, config.requests_max), (2048, 7));
        assert_eq!(config.upload_ttl, Duration::from_mins(15));
        assert_eq!(config.jwt_issuer, Config::new().jwt_issuer);
    }

    #[test]
    fn all_faults_come_together_with_their_places() {
        let (_file, flags) = file("lisen = 'a:1'\nquota_bytes = 'much'\n[table]\n");
        let variables = [("STREAMLINED_SERVICE_TOKEN", "sh ort"), ("STREAMLINED_FOO", "1")];
        let faults = load(&flags, &environment(&variables)).err().unwrap();
        let wanted = [
            ":1: there is no setting lisen; did you mean listen?",
            ":2: quota_bytes must be",
            ":3: table must be",
            "STREAMLINED_FOO: there is no setting foo",
            "STREAMLINED_SERVICE_TOKEN: service_token",
        ];
        assert_eq!(faults.len(), wanted.len(), "{faults:?}");
        for (fault, wanted) in faults.iter().zip(wanted) {
            assert!(fault.contains(wanted), "{fault}");
        }
        assert!(!faults.concat().contains("sh ort"));
        let (_file, flags) = file("a = = b\nlisten = 'a:1'\nlog = 'info\n");
        let faults = load(&flags, &environment(&[])).err().unwrap();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].contains(":1: ") && faults.last().unwrap().contains(":3: "),
            "{faults:?}"
        );
        let flags = Flags { config: Some("/nonexistent".into()), ..Flags::default() };
        assert!(load(&flags, &environment(&[])).is_err());
        let nothing = environment(&[("STREAMLINED_CONFIG", "")]);
        let faults = load(&Flags::default(), &nothing).err().unwrap();
        assert!(faults.len() == 1 && faults[0].starts_with("STREAMLINED_CONFIG: "), "{faults:?}");
        let (_file, flags) = file("listen = 'a:1'\nquota_bytes 5GiB\n");
        let faults = load(&flags, &environment(&[])).err().unwrap();
        assert!(faults.len() == 1 && faults[0].contains(":2: "), "{faults:?}");
    }

    #[test]
    fn every_setting_tells_where_it_comes_from() {
        let (_file, mut flags) = file("\nquota_bytes = '2KiB'\nlisten = 'a:1'");
        flags.data_dir = Some("d".into());
        let variables = [
            ("STREAMLINED_LISTEN", "h:2"),
            ("STREAMLINED_SERVICE_TOKEN", "0123456789abcdef"),
            ("STREAMLINED_SERVER", "the client's"),
            ("STREAMLINED_TOKEN", "the client's"),
            ("STREAMLINED_CA", "the client's"),
            ("STREAMLINED_CLIENT_CERTIFICATE", "the client's"),
            ("STREAMLINED_SERVICE_HOST", "10.0.0.1"),
            ("STREAMLINED_SERVICE_PORT_HTTP", "8000"),
            ("STREAMLINED_PORT", "tcp://10.0.0.1:8000"),
            ("STREAMLINED_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ];
        let (_, origins) = load(&flags, &environment(&variables)).ok().unwrap();
        let said = |name: &str| (origins[name].value.as_str(), origins[name].place.as_str());
        assert_eq!(said("listen"), ("h:2", "STREAMLINED_LISTEN"));
        assert_eq!(said("data_dir"), ("d", "--data-dir"));
        assert_eq!(said("service_token"), ("", "STREAMLINED_SERVICE_TOKEN"));
        assert!(said("quota_bytes").1.ends_with(":2") && said("quota_bytes").0 == "2KiB");
        assert_eq!(origins.len(), 4);
        let meant = environment(&[("STREAMLINED_PORT", "8000")]);
        assert!(load(&Flags::default(), &meant).is_err());
    }

    #[test]
    fn secrets_come_from_the_credentials_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("service_token"), "0123456789abcdef\n").unwrap();
        let variables = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
        let load = || load(&Flags::default(), &environment(&variables));
        assert_eq!(load().ok().unwrap().0.service_token.unwrap().as_str(), "0123456789abcdef");
        fs::write(dir.path().join("tls_key"), "").unwrap();
        assert_eq!(load().err().unwrap(), ["CREDENTIALS_DIRECTORY: tls_key needs tls_certificate"]);
        fs::write(dir.path().join("tls_certificate"), "").unwrap();
        assert_eq!(load().ok().unwrap().0.tls_key, Some(dir.path().join("tls_key")));
    }

    #[test]
    fn half_a_pair_is_refused_where_it_stands() {
        let faults = |text: &str| {
            let (_file, flags) = file(text);
            load(&flags, &environment(&[])).err().unwrap_or_default()
        };
        for (text, wanted) in [
            ("\ntls_certificate = 'c'", ":2: tls_certificate needs tls_key"),
            ("tls_key = 'k'", ":1: tls_key needs tls_certificate"),
            ("tls_client_ca = 'a'", ":1: tls_client_ca needs tls_key"),
        ] {
            let faults = faults(text);
            assert!(faults.len() == 1 && faults[0].ends_with(wanted), "{faults:?}");
        }
        let whole = "tls_certificate = 'c'\ntls_key = 'k'\ntls_client_ca = 'a'";
        assert!(faults(whole).is_empty());
    }
}
