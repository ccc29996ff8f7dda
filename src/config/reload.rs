//! Which changes of a configuration need a restart.

use super::{Config, KNOBS, Knob};

/// The names of the settings that differ and are only read at the start.
pub fn needs_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    let differs = |knob: &&Knob| knob.differs.is_some_and(|differs| differs(running, read));
    KNOBS.iter().filter(differs).map(|knob| knob.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_and_cannot_be_taken_over_is_named() {
        let running = Config::new();
        let fixed = [
            ("data_dir", "d"),
            ("listen", "h:1"),
            ("audit_file_bytes", "1MiB"),
            ("audit_keep", "1d"),
            ("meta_cache_bytes", "1MiB"),
            ("journal_bytes", "1MiB"),
            ("pack_bytes_max", "0"),
        ];
        assert_eq!(KNOBS.iter().filter(|knob| knob.differs.is_some()).count(), fixed.len());
        for (name, value) in fixed {
            let mut read = Config { quota_bytes: 1, ..running.clone() };
            assert!(needs_restart(&running, &read).is_empty());
            let knob = Knob::named(name).unwrap();
            (knob.set)(&mut read, value).unwrap();
            assert_eq!(needs_restart(&running, &read), [name]);
        }
    }
}
