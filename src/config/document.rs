//! Settings as text: an example of the file, and the settings in force.

use std::fmt::Write;

use super::{KNOBS, Knob, layers::Origins};

const HEAD: &str = "\
# Settings of streamlined, all at their defaults. A later source overrides an earlier one: this
# file, credentials of systemd (service_token and the TLS files), variables STREAMLINED_NAME, flags.
# `config check` reports every fault; `config show` prints the settings in force and where each was
# set.
";

/// A configuration file that holds every setting as a comment, with its default.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    for knob in KNOBS {
        let value = if knob.default.is_empty() {
            String::new()
        } else {
            format!(" {}", written(knob.default))
        };
        let expected = knob.expected().map(|expected| format!(" It {expected}."));
        let expected = expected.unwrap_or_default();
        let unset = if knob.default.is_empty() { " Not set by default." } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", comment(&format!("{}{expected}{unset}", knob.help)));
        let _ = writeln!(text, "#{} ={value}", knob.name);
    }
    text
}

/// The settings in force, one a line, each with its origin.
pub fn in_force(origins: &Origins) -> String {
    let line = |knob: &Knob| {
        let said = origins.get(knob.name);
        let place = said.map_or("default", |said| said.place.as_str());
        let value = said.map_or(knob.default, |said| said.value.as_str());
        match said {
            _ if knob.secret && said.is_some() => format!("# {} is hidden  # {place}\n", knob.name),
            None if value.is_empty() => format!("# {} is not set\n", knob.name),
            _ => format!("{} = {}  # {place}\n", knob.name, written(value)),
        }
    };
    KNOBS.iter().map(line).collect()
}

/// A value as TOML.
fn written(value: &str) -> String {
    let is_bare = matches!(value, "true" | "false") || value.parse::<u32>().is_ok();
    if is_bare { value.into() } else { toml::Value::from(value).to_string() }
}

/// Text as comment lines.
fn comment(text: &str) -> String {
    const COLUMNS: usize = 98;
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column == 0 || column + 1 + word.len() > COLUMNS {
            lines.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        column += 1 + word.len();
        lines.push(' ');
        lines.push_str(word);
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::config::{
        Config,
        layers::{self, Flags},
    };

    fn loaded(text: &str) -> (Config, Origins) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        layers::load(&flags, &BTreeMap::new()).map_err(|faults| faults.join("\n")).ok().unwrap()
    }

    #[test]
    fn the_example_changes_nothing_and_its_lines_can_be_taken_as_they_are() {
        let example = example();
        assert!(loaded(&example).1.is_empty());
        let settings =
            example.lines().filter(|line| line.starts_with('#') && !line.starts_with("# "));
        assert_eq!(settings.clone().count(), KNOBS.len());
        let said: String = settings
            .filter(|line| !line.ends_with('='))
            .map(|line| line[1..].to_owned() + "\n")
            .collect();
        let (config, origins) = loaded(&said);
        assert!(config == Config::new());
        assert_eq!(origins.len(), KNOBS.iter().filter(|knob| !knob.default.is_empty()).count());
        assert!(example.lines().all(|line| line.chars().count() <= 100));
        assert!(
            example.contains("# Largest size of a file; a larger one is refused with 413. It must")
        );
    }

    #[test]
    fn what_is_in_force_can_be_read_again() {
        let (config, origins) =
            loaded("log = 'a\\\"b'\nquota_bytes = 5\nservice_token = '0123456789abcdef'");
        let text = in_force(&origins);
        assert!(!text.contains("0123456789abcdef") && text.contains("# service_token is hidden"));
        assert!(text.contains("listen = \"127.0.0.1:8000\"  # default\n"), "{text}");
        assert!(text.contains("# public_url is not set\n"), "{text}");
        assert!(text.contains("quota_bytes = 5  # ") && text.contains(":2\n"), "{text}");
        let (again, _) = loaded(&text);
        assert!(again == Config { service_token: None, ..config });
    }
}
