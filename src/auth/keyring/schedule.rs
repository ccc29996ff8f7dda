//! What is recorded about keys besides the keys themselves: `keys/schedule.json`.
//!
//! A key's entry is durable before the key, so that no key signs before its time. An entry without
//! a key means nothing.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::sys::durable;

const NAME: &str = "schedule.json";

/// Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub kid: String,
    /// The key is published before this time and signs from it on, until the next key does; `None`:
    /// the key never signs.
    pub signs_from: Option<u64>,
    /// No token that it signed expires later.
    pub last_expiry: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    pub keys: Vec<Entry>,
}

impl Schedule {
    /// The schedule of a directory. If there is none, nothing is recorded about its keys.
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
