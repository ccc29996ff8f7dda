//! One record of a journal file: a sequence of writes that is there as a whole or not at all.
//!
//! ```text
//! "slj1" | payload length, u32 LE | number, u64 LE | check, 16 bytes | payload | zeros to 8
//! ```
//!
//! The check is the start of the BLAKE3 of length, number and payload. The payload is a sequence of
//! writes: key length (u16 LE), value length (u32 LE, all ones for a removal), key, value.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const MAGIC: &[u8; 4] = b"slj1";
pub const HEADER_BYTES: usize = 32;
/// Records begin at multiples of this, so that the next one can be found after a damaged one.
const ALIGN_BYTES: usize = 8;
/// How many bytes are searched at a time for the start of a record.
const WINDOW_BYTES: usize = 1 << 20;
const REMOVED: u32 = u32::MAX;

/// A record under construction.
pub struct Builder(Vec<u8>);

impl Default for Builder {
    fn default() -> Self {
        Self(vec![0; HEADER_BYTES])
    }
}

impl Builder {
    /// Adds a write; `None` removes the key. The engine limits keys and values (`RECORD_BYTES_MAX`)
    /// to far less than the length fields can hold.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key_length = u16::try_from(key.len()).unwrap_or(u16::MAX);
        let value_length = value.map_or(REMOVED, |value| u32::try_from(value.len()).unwrap_or(0));
        self.0.extend_from_slice(&key_length.to_le_bytes());
        self.0.extend_from_slice(&value_length.to_le_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value.unwrap_or_default());
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER_BYTES
    }

    /// The bytes of the record with this number.
    pub fn finish(mut self, number: u64) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(MAGIC);
        self.0[4..8].copy_from_slice(&length.to_le_bytes());
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        let check = check(&self.0);
        self.0[16..HEADER_BYTES].copy_from_slice(&check);
        self.0.resize(padded(self.0.len()), 0);
        self.0
    }
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN_BYTES)
}

/// The check of a record without its padding.
fn check(record: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record[4..16]).update(&record[HEADER_BYTES..]);
    let mut check = [0; 16];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    check
}

/// A record that was read and matched its check.
pub struct Record {
    pub number: u64,
    bytes: Vec<u8>,
}

/// A key and its new value, `None` when it is removed.
pub type Write<'a> = (&'a [u8], Option<&'a [u8]>);

impl Record {
    /// How many bytes the record takes in its file.
    pub fn bytes_in_file(&self) -> u64 {
        padded(self.bytes.len()) as u64
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Whether the record has the form of a commit: it has writes, and each has a key.
    fn is_commit(&self) -> bool {
        let is_write = |(key, _): &Write<'_>| !key.is_empty();
        self.writes().is_some_and(|writes| !writes.is_empty() && writes.iter().all(is_write))
    }

    /// The writes in order; `None` when the payload is not a sequence of writes.
    pub fn writes(&self) -> Option<Vec<Write<'_>>> {
        let (mut writes, mut rest) = (Vec::new(), self.payload());
        while !rest.is_empty() {
            let (key_length, tail) = rest.split_first_chunk()?;
            let (value_length, tail) = tail.split_first_chunk()?;
            let (key, tail) = tail.split_at_checked(u16::from_le_bytes(*key_length).into())?;
            let (value, tail) = match u32::from_le_bytes(*value_length) {
                REMOVED => (None, tail),
                length => {
                    let (value, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
                    (Some(value), tail)
                }
            };
            writes.push((key, value));
            rest = tail;
        }
        Some(writes)
    }
}

/// The records of one file, in order, up to the first bytes that are not a record.
pub struct Records {
    file: BufReader<File>,
    at: u64,
    end: u64,
}

impl Records {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(256 << 10, file), at: 0, end })
    }

    /// Where the next record would begin.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Where the file ended when it was opened.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next record; `None` where there is no whole one.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        let record = read(&mut self.file, self.end.saturating_sub(self.at))?;
        let Some(record) = record else {
            self.file.seek(SeekFrom::Start(self.at))?;
            return Ok(None);
        };
        let padding = record.bytes_in_file() - record.bytes.len() as u64;
        self.file.seek_relative(i64::try_from(padding).unwrap_or(0))?;
        self.at += record.bytes_in_file();
        Ok(Some(record))
    }

    /// After [`Records::next`] returned `None` in a log: finds the next whole commit further on,
    /// where reading continues. `last` is the number of the commit before. A record that a crash
    /// cut short has no commit after it, because nothing is written there. So a commit that is
    /// found shows that the bytes before it were durable and are damaged.
    ///
    /// A record that was cut short contains bytes that clients chose, such as digests, and the form
    /// of a record is no secret. So a record that is found counts only if it can be the commit that
    /// belongs there: it writes something, and the numbers between `last` and its own are no more
    /// than the commits that fit into the bytes that cannot be read.
    pub fn resume(&mut self, last: u64) -> io::Result<Option<Record>> {
        self.resume_at(|record, passed| {
            let unread = passed / (HEADER_BYTES + ALIGN_BYTES) as u64;
            let numbers = last.saturating_add(1)..=last.saturating_add(1 + unread);
            numbers.contains(&record.number) && record.is_commit()
        })
    }

    /// As [`Records::resume`], in the snapshot of `commit`.
    pub fn resume_piece(&mut self, commit: u64) -> io::Result<Option<Record>> {
        self.resume_at(|record, _| record.number == commit)
    }

    /// The next record further on for which `is_one` holds. `is_one` is also told how many bytes
    /// were passed over.
    fn resume_at(&mut self, is_one: impl Fn(&Record, u64) -> bool) -> io::Result<Option<Record>> {
        let ended_at = self.at;
        let (mut window, mut from) = (Vec::new(), ended_at);
        while from < self.end {
            self.file.seek(SeekFrom::Start(from))?;
            window.clear();
            // No record's magic crosses the end of a window: both are aligned.
            (&mut self.file).take(WINDOW_BYTES as u64).read_to_end(&mut window)?;
            let candidates = memchr::memmem::find_iter(&window, MAGIC);
            for start in candidates.filter(|start| start % ALIGN_BYTES == 0) {
                let at = from + start as u64;
                self.at = at;
                self.file.seek(SeekFrom::Start(at))?;
                if let Some(record) = self.next()?.filter(|found| is_one(found, at - ended_at)) {
                    return Ok(Some(record));
                }
            }
            from += WINDOW_BYTES as u64;
        }
        self.at = ended_at;
        Ok(None)
    }
}

/// Reads one record, without its padding, from a source that has `left` bytes.
pub fn read(from: &mut impl Read, left: u64) -> io::Result<Option<Record>> {
    if left < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; HEADER_BYTES];
    from.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    if bytes[..4] != *MAGIC || u64::from(length) > left - HEADER_BYTES as u64 {
        return Ok(None);
    }
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    bytes.resize(HEADER_BYTES + length, 0);
    from.read_exact(&mut bytes[HEADER_BYTES..])?;
    if check(&bytes) != bytes[16..HEADER_BYTES] {
        return Ok(None);
    }
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[8..16]);
    Ok(Some(Record { number: u64::from_le_bytes(number), bytes }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(number: u64, writes: &[Write<'_>]) -> Vec<u8> {
        let mut builder = Builder::default();
        for (key, value) in writes {
            builder.push(key, *value);
        }
        builder.finish(number)
    }

    fn numbers(bytes: &[u8]) -> (Vec<u64>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, bytes).unwrap();
        let mut records = Records::open(&path).unwrap();
        let mut numbers = Vec::new();
        while let Some(record) = records.next().unwrap() {
            numbers.push(record.number);
        }
        let last = numbers.last().copied().unwrap_or(0);
        (numbers, records.resume(last).unwrap().is_some())
    }

    #[test]
    fn writes_read_back() {
        let writes: &[Write<'_>] = &[(b"a", Some(b"1")), (b"b", None), (b"c", Some(b""))];
        let bytes = record(7, writes);
        assert_eq!(bytes.len() % ALIGN_BYTES, 0);
        let read = read(&mut &bytes[..], bytes.len() as u64).unwrap().unwrap();
        assert_eq!((read.number, read.writes().unwrap().as_slice()), (7, writes));
    }

    /// Bytes that a client had stored may look like a record, but count only where a commit of this
    /// journal could stand.
    #[test]
    fn what_lies_in_a_torn_record_is_no_commit() {
        let write: &[Write<'_>] = &[(b"key", Some(b"value"))];
        let cases = [
            (9, write, true),
            (10, write, true),
            (8, write, false),
            (5_000, write, false),
            (9, &[], false),
            (9, &[(b"", None)], false),
        ];
        for (number, writes, is_commit) in cases {
            let torn = [vec![0; 40], record(number, writes), vec![0; 100]].concat();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            fs::write(&path, &torn).unwrap();
            let mut records = Records::open(&path).unwrap();
            assert!(records.next().unwrap().is_none());
            let found = records.resume(8).unwrap().map(|record| record.number);
            assert_eq!(found, is_commit.then_some(number), "{number} {writes:?}");
        }
    }

    /// Any changed byte of a record ends the reading before that record. A damaged record that
    /// others follow is told from one that was cut short.
    #[test]
    fn damage_is_told_from_a_torn_end() {
        let first = record(1, &[(b"key", Some(b"value"))]);
        let second = record(2, &[(b"key", None)]);
        let both = [first.clone(), second.clone(), vec![0; 100]].concat();
        assert_eq!(numbers(&both), (vec![1, 2], false));
        for at in 0..first.len() - padded(1) {
            let mut damaged = both.clone();
            damaged[at] ^= 1;
            assert_eq!(numbers(&damaged), (vec![], true), "byte {at}");
        }
        for length in first.len()..first.len() + second.len() - padded(1) {
            assert_eq!(numbers(&both[..length]), (vec![1], false), "cut at {length}");
        }
    }
}
