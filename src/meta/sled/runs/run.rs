//! One run as bytes: its entries in order, each `(shared, rest of the key, value)` in postcard,
//! where `shared` counts the bytes that its key has in common with the one before (front coding).

use std::ops::Range;

use serde::{Serialize, Serializer};

use crate::meta::{Error, Result};

/// Bytes that are serialized at once instead of one by one.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Reads a run from its beginning. Bytes that are not a run are [`Error::Corrupt`].
pub struct Reader<'a> {
    run: &'a [u8],
    at: usize,
    key: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub fn new(run: &'a [u8]) -> Self {
        Self { run, at: 0, key: Vec::with_capacity(64) }
    }

    /// The key of the entry that was read last.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Reads the next entry and returns where in the run its value lies.
    pub fn next(&mut self) -> Result<Option<Range<usize>>> {
        let rest = self.run.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let damaged = || Error::Corrupt("a run of records".into());
        let ((shared, own, value), rest) =
            postcard::take_from_bytes::<(usize, &[u8], &[u8])>(rest).map_err(|_| damaged())?;
        // The first key has nothing before it; every other key is greater than the one before.
        if own <= self.key.get(shared..).ok_or_else(damaged)? {
            return Err(damaged());
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(own);
        self.at = self.run.len() - rest.len();
        Ok(Some(self.at - value.len()..self.at))
    }
}

/// Where in a run the value of `key` lies.
pub fn find(run: &[u8], key: &[u8]) -> Result<Option<Range<usize>>> {
    let mut entries = Reader::new(run);
    while let Some(value) = entries.next()? {
        if entries.key() >= key {
            return Ok((entries.key() == key).then_some(value));
        }
    }
    Ok(None)
}

/// The size of each entry of a run, in bytes.
pub fn sizes(run: &[u8]) -> Result<Vec<usize>> {
    let (mut entries, mut sizes) = (Reader::new(run), Vec::new());
    let mut begin = 0;
    while let Some(value) = entries.next()? {
        sizes.push(value.end - begin);
        begin = value.end;
    }
    Ok(sizes)
}

/// Builds a run. Entries must be pushed in order.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    last: Vec<u8>,
}

impl Writer {
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let shared = common(&self.last, key);
        let entry = (shared, Bytes(&key[shared..]), Bytes(value));
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(&entry, bytes)
            .map_err(|error| Error::Corrupt(error.to_string()))?;
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The key that was pushed last.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The length of the prefix that two keys share.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key that is greater than `before` and not greater than `next`, which are in order.
pub fn separator(before: &[u8], next: &[u8]) -> Vec<u8> {
    let length = common(before, next) + 1;
    next.get(..length).unwrap_or(next).to_vec()
}
