//! What is noted of keys besides the keys: `keys/schedule.json`.
//!
//! A key's entry is durable before the key, so a key never signs before its time; an entry without
//! a key means nothing and goes with the next change.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::sys::durable;

const NAME: &str = "schedule.json";

/// Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub kid: String,
    /// It is published before and signs from here on, until the next one does; `None` for never.
    pub signs_from: Option<u64>,
    /// No token that it signed lives longer.
    pub last_expiry: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    pub keys: Vec<Entry>,
}

impl Schedule {
    /// Nothing is noted of keys that came without it.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        durable::write_file(&dir.join(NAME), &text)
    }

    pub fn find(&self, kid: &str) -> Option<&Entry> {
        self.keys.iter().find(|entry| entry.kid == kid)
    }

    pub fn set(&mut self, entry: Entry) {
        self.keys.retain(|known| known.kid != entry.kid);
        self.keys.push(entry);
    }
}
