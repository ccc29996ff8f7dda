//! The chain of lines: how a line is sealed, and how a whole log is verified.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde_json::Value;

use crate::model::digest::hex;

/// Number and hash of the last line so far; number 0 and an empty hash before the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub number: u64,
    pub hash: String,
}

/// The outcome of verifying a log that is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    pub lines: u64,
    /// Numbers of the first and the last line that are kept; both 0 if there are none.
    pub first: u64,
    pub last: u64,
}

/// The text always has the same length, so that it can be overwritten in place.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:020} {:064}", self.number, self.hash)
    }
}

impl Head {
    /// Reads the head from `dir`; the default if there is none.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let text = match fs::read(dir.join("head")) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let noted = text.trim_end().split_once(' ');
        let noted = noted.and_then(|(number, hash)| Some((number.parse().ok()?, hash.to_owned())));
        Ok(noted.map_or_else(Self::default, |(number, hash)| Self { number, hash }))
    }

    /// The head before the file that begins with line `first`.
    pub fn before(dir: &Path, first: u64) -> io::Result<Self> {
        let earlier = files(dir)?.into_iter().rfind(|number| *number < first);
        let Some(earlier) = earlier else {
            let noted = Self::read(dir)?;
            let number = first.saturating_sub(1);
            let hash = if noted.number == number { noted.hash } else { String::new() };
            return Ok(Self { number, hash });
        };
        let start = Self { number: earlier.saturating_sub(1), hash: String::new() };
        Ok(end(&dir.join(name(earlier)), start)?.0)
    }
}

pub fn name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The numbers of the first lines of all files, in order.
pub fn files(dir: &Path) -> io::Result<Vec<u64>> {
    let mut files: Vec<u64> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        files.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    files.sort_unstable();
    Ok(files)
}

fn hash(line: &[u8]) -> String {
    hex(blake3::hash(line).as_bytes())
}

/// Seals a line, a JSON object that is not empty, with its number and the hash of the line before
/// it; answers it and the new head.
pub fn seal(line: &[u8], head: &Head) -> (Vec<u8>, Head) {
    let number = head.number + 1;
    let place = format!(r#"{{"number":{number},"previous":"{}","#, head.hash);
    let line = [place.as_bytes(), line.strip_prefix(b"{").unwrap_or(line)].concat();
    let hash = hash(&line);
    (line, Head { number, hash })
}

/// The head behind the last whole line of a file, and the length of the file up to there.
pub fn end(path: &Path, start: Head) -> io::Result<(Head, u64)> {
    let (mut head, mut bytes) = (start, 0);
    let mut reader = BufReader::new(File::open(path)?);
    // Lines are read as bytes: it is for `verify` to find damaged ones, and the log goes on
    // regardless.
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        bytes += line.len() as u64;
        head = Head { number: head.number + 1, hash: hash(text) };
        line.clear();
    }
    Ok((head, bytes))
}

/// Verifies a log from its first line to its last.
///
/// # Errors
/// The first place at which something was cut out, edited or cannot be read.
pub fn verify(dir: &Path) -> Result<Verified, String> {
    let failed = |error: io::Error| format!("{}: {error}", dir.display());
    // The head is read first: lines that are written meanwhile come behind it.
    let noted = Head::read(dir).map_err(failed)?;
    let files = files(dir).map_err(failed)?;
    let first = files.first().copied().unwrap_or(0);
    let mut head: Option<Head> = None;
    let mut lines = 0;
    for file in &files {
        let path = dir.join(name(*file));
        if head.as_ref().is_some_and(|head| head.number + 1 != *file) {
            return Err(format!("{}: the lines before it are missing", path.display()));
        }
        let reader = BufReader::new(File::open(&path).map_err(failed)?);
        for (at, line) in reader.split(b'\n').enumerate() {
            let line = line.map_err(failed)?;
            let place = || format!("{}:{}", path.display(), at + 1);
            let text = std::str::from_utf8(&line).map_err(|_| format!("{}: not text", place()))?;
            let (number, previous) = match links(text) {
                Some(links) => links,
                // A last line that is incomplete may still be being written, or was cut short by a
                // crash.
                None if head.as_ref().is_some_and(|head| head.number >= noted.number) => break,
                None => return Err(format!("{}: not a line of this log", place())),
            };
            let wanted = head.as_ref().map_or(*file, |head| head.number + 1);
            if number != wanted {
                return Err(format!("{}: line {wanted} is missing", place()));
            }
            let before = head.as_ref().map_or(previous.clone(), |head| head.hash.clone());
            if previous != before || (number == 1 && !previous.is_empty()) {
                return Err(format!("{}: the line before it was changed", place()));
            }
            let hash = hash(&line);
            if number == noted.number && hash != noted.hash {
                return Err(format!("{}: the line was changed", place()));
            }
            head = Some(Head { number, hash });
            lines += 1;
        }
    }
    let last = head.map_or(0, |head| head.number);
    if last < noted.number {
        return Err(format!("lines {} to {} were cut off at the end", last + 1, noted.number));
    }
    Ok(Verified { lines, first: if lines == 0 { 0 } else { first }, last })
}

fn links(line: &str) -> Option<(u64, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some((line["number"].as_u64()?, line["previous"].as_str()?.to_owned()))
}
