//! The transaction in which a step reads and writes.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use sled::IVec;

use super::{codec, records::Records};
use crate::meta::{Error, Result};

/// Most bytes of a record's key and value together. The longest names that a record can hold add up
/// to less. `SEGMENT_BYTES` in `open/directory.rs` says why there is a bound.
pub const RECORD_BYTES_MAX: usize = 32 << 10;

/// What a commit writes: keys and their new values, `None` for a removal.
pub type Writes = BTreeMap<Vec<u8>, Option<IVec>>;

/// What one step reads and writes. A read looks at the step's own writes first, then at those of
/// the batch, then at what is stored.
pub struct Txn<'a> {
    records: &'a Records,
    batch: &'a Writes,
    own: Writes,
}

impl Txn<'_> {
    /// Runs a step, and adds its writes to `batch` unless it fails.
    pub fn run<T>(
        records: &Records,
        batch: &mut Writes,
        step: impl FnOnce(&mut Txn<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut txn = Txn { records, batch, own: Writes::new() };
        let outcome = step(&mut txn)?;
        let own = txn.own;
        batch.extend(own);
        Ok(outcome)
    }

    pub fn read(&self, key: &[u8]) -> Result<Option<IVec>> {
        match self.own.get(key).or_else(|| self.batch.get(key)) {
            Some(written) => Ok(written.clone()),
            None => self.records.read(key),
        }
    }

    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        self.read(key)?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Every entry under `prefix`, in order.
    pub fn scan(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, IVec>> {
        let mut found = BTreeMap::new();
        for entry in self.records.scan_prefix(prefix) {
            let (key, value) = entry?;
            found.insert(key, value);
        }
        for writes in [self.batch, &self.own] {
            let newer = writes.range(prefix.to_vec()..);
            for (key, value) in newer.take_while(|(key, _)| key.starts_with(prefix)) {
                match value {
                    Some(value) => found.insert(key.clone(), value.clone()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found)
    }

    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, record: &T) -> Result<()> {
        let bytes = codec::encode(record)?;
        if key.len() + bytes.len() > RECORD_BYTES_MAX {
            return Err(Error::Corrupt(format!("a record of {} bytes", bytes.len())));
        }
        self.write(key, bytes);
        Ok(())
    }

    pub fn write(&mut self, key: Vec<u8>, value: impl Into<IVec>) {
        self.own.insert(key, Some(value.into()));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }
}
