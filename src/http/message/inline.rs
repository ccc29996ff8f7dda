//! Base64 content inside a JSON body, decoded while it streams.
//!
//! A [`Splitter`] copies the document to a small skeleton. It leaves out the content of the strings
//! that hold base64, and decodes that content on the way. The skeleton, with empty strings in their
//! place, is then parsed like any other JSON. So members may come in any order, and memory stays
//! flat at any size.

use base64::{Engine, engine::general_purpose::STANDARD};
use memchr::{memchr2, memchr3};
use serde::de::DeserializeOwned;

use crate::model::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX};

/// One step on the path from the document's root to a base64 string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Member(&'static str),
    /// Any item of an array.
    Item,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the JSON, without its base64 content, is larger than 1 MiB")]
    TooLarge,
    #[error("The JSON is nested deeper than 64 levels.")]
    TooDeep,
    #[error("the content is not base64 of the standard alphabet with padding")]
    Base64,
    #[error("{0}")]
    Json(String),
}

/// See the module.
pub struct Splitter {
    path: &'static [Step],
    containers: Vec<Container>,
    skeleton: Vec<u8>,
    state: State,
    /// The raw member name that is being read, up to the length that is compared with `path`.
    name: Vec<u8>,
    decoder: Decoder,
    found: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "four facts, each of its own")]
struct Container {
    is_object: bool,
    /// The path to this container is the beginning of `path`.
    on_path: bool,
    /// In an object: the next string is a member name.
    name_next: bool,
    /// The path to the next value is the beginning of `path`.
    value_on_path: bool,
}

enum State {
    /// Between strings.
    Structure,
    /// In a string that is copied.
    Copied { is_name: bool, escaped: bool },
    /// In a string that is decoded.
    Content(Escape),
}

enum Escape {
    None,
    Backslash,
    /// After `\u`, with the digits so far.
    Unicode {
        digits: u8,
        value: u32,
    },
}

/// Why a document that is not UTF-8 is refused (RFC 8259 section 8.1).
pub const NOT_UTF_8: &str = "it is not UTF-8";
/// Longest member name that is compared, in raw bytes.
const NAME_BYTES_MAX: usize = 128;

impl Splitter {
    /// `path` leads to the strings to decode.
    pub fn new(path: &'static [Step]) -> Self {
        Self {
            path,
            containers: Vec::new(),
            skeleton: Vec::new(),
            state: State::Structure,
            name: Vec::new(),
            decoder: Decoder::default(),
            found: false,
        }
    }

    /// Takes the next bytes of the document and appends decoded content to `content`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn push(&mut self, mut bytes: &[u8], content: &mut Vec<u8>) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Structure => self.structure(bytes)?,
                State::Copied { .. } => self.copied(bytes),
                State::Content(Escape::None) => self.content(bytes, content)?,
                State::Content(_) => self.escape(bytes[0], content)?,
            };
            bytes = &bytes[taken..];
            if self.skeleton.len() > JSON_BYTES_MAX {
                return Err(Refused::TooLarge);
            }
        }
        Ok(())
    }

    /// Whether a base64 string was found; it may be empty.
    pub fn found_content(&self) -> bool {
        self.found
    }

    /// The members read so far, as if the document ended here; `None` if it cannot end here.
    pub fn so_far<T: DeserializeOwned>(&self) -> Option<T> {
        let mut document = self.skeleton.clone();
        if matches!(self.state, State::Content(_)) {
            document.push(b'"');
        }
        let ends = self.containers.iter().rev();
        document.extend(ends.map(|container| if container.is_object { b'}' } else { b']' }));
        serde_json::from_slice(&document).ok()
    }

    /// The whole document without its content.
    ///
    /// # Errors
    /// [`Refused::Json`] for anything that is not JSON of the wanted shape.
    pub fn finish<T: DeserializeOwned>(self) -> Result<T, Refused> {
        // The content that was left out need not be checked: it is base64, or it was refused.
        let document = str::from_utf8(&self.skeleton);
        let document = document.map_err(|_| Refused::Json(NOT_UTF_8.into()))?;
        serde_json::from_str(document).map_err(|error| Refused::Json(error.to_string()))
    }

    fn structure(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let byte = bytes[0];
        self.skeleton.push(byte);
        match byte {
            b'{' | b'[' => {
                if self.containers.len() == JSON_DEPTH_MAX {
                    return Err(Refused::TooDeep);
                }
                let on_path = self.containers.last().is_none_or(|outer| outer.value_on_path)
                    && self.containers.len() < self.path.len();
                let is_object = byte == b'{';
                let step = self.path.get(self.containers.len());
                let value_on_path = on_path && !is_object && step == Some(&Step::Item);
                self.containers.push(Container {
                    is_object,
                    on_path,
                    name_next: is_object,
                    value_on_path,
                });
            }
            b'}' | b']' => drop(self.containers.pop()),
            b':' | b',' => {
                if let Some(object) = self.containers.last_mut().filter(|c| c.is_object) {
                    object.name_next = byte == b',';
                }
            }
            b'"' => self.state = self.open_string(),
            _ => {}
        }
        Ok(1)
    }

    fn open_string(&mut self) -> State {
        let at_end = self.containers.len() == self.path.len();
        match self.containers.last() {
            Some(object) if object.name_next => {
                self.name.clear();
                State::Copied { is_name: true, escaped: false }
            }
            Some(container) if container.value_on_path && at_end => {
                self.found = true;
                self.decoder.next_string();
                State::Content(Escape::None)
            }
            _ => State::Copied { is_name: false, escaped: false },
        }
    }

    /// Copies up to and including the next quote or backslash, or one escaped byte.
    fn copied(&mut self, bytes: &[u8]) -> usize {
        let State::Copied { is_name, escaped } = &mut self.state else { return 0 };
        let is_name = *is_name;
        let taken = if std::mem::take(escaped) {
            1
        } else {
            let stop = memchr2(b'"', b'\\', bytes);
            if stop.is_some_and(|at| bytes[at] == b'\\') {
                *escaped = true;
            } else if stop.is_some() {
                self.state = State::Structure;
            }
            stop.map_or(bytes.len(), |at| at + 1)
        };
        self.skeleton.extend_from_slice(&bytes[..taken]);
        if is_name {
            let room = NAME_BYTES_MAX.saturating_sub(self.name.len());
            self.name.extend_from_slice(&bytes[..taken.min(room)]);
            if matches!(self.state, State::Structure) {
                self.name_read();
            }
        }
        taken
    }

    /// Checks whether the member just named is the next step of `path`. Names may contain escapes.
    fn name_read(&mut self) {
        let step = self.path.get(self.containers.len().saturating_sub(1));
        let Some(object) = self.containers.last_mut() else { return };
        self.name.insert(0, b'"');
        let name: Option<String> = serde_json::from_slice(&self.name).ok();
        object.value_on_path = object.on_path
            && matches!((step, name), (Some(Step::Member(wanted)), Some(name)) if *wanted == name);
    }

    fn content(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Result<usize, Refused> {
        let stop = memchr2(b'"', b'\\', bytes);
        let run = stop.unwrap_or(bytes.len());
        self.decoder.push(&bytes[..run], content)?;
        match stop.map(|at| bytes[at]) {
            Some(b'"') => {
                self.decoder.finish(content)?;
                self.skeleton.push(b'"');
                self.state = State::Structure;
            }
            Some(_) => self.state = State::Content(Escape::Backslash),
            None => return Ok(run),
        }
        Ok(run + 1)
    }

    /// Base64 itself needs no escapes, but writers may escape `/` or any character.
    fn escape(&mut self, byte: u8, content: &mut Vec<u8>) -> Result<usize, Refused> {
        let State::Content(escape) = &self.state else { return Ok(0) };
        let plain = match (escape, byte) {
            (Escape::Backslash, b'n') => b'\n',
            (Escape::Backslash, b'r') => b'\r',
            (Escape::Backslash, b'/') => b'/',
            (Escape::Backslash, b'u') => {
                self.state = State::Content(Escape::Unicode { digits: 0, value: 0 });
                return Ok(1);
            }
            (Escape::Unicode { digits, value }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Refused::Base64)?;
                let (digits, value) = (digits + 1, value << 4 | digit);
                if digits < 4 {
                    self.state = State::Content(Escape::Unicode { digits, value });
                    return Ok(1);
                }
                u8::try_from(value).map_err(|_| Refused::Base64)?
            }
            _ => return Err(Refused::Base64),
        };
        self.decoder.push(&[plain], content)?;
        self.state = State::Content(Escape::None);
        Ok(1)
    }
}

/// Decodes base64 (RFC 4648 section 4) in pieces. Spaces and line breaks are skipped, everything
/// else that is not canonical is refused.
#[derive(Default)]
struct Decoder {
    /// Characters that wait for a whole group of four.
    held: Vec<u8>,
    padded: bool,
}

/// Characters decoded at a time.
const DECODE_CHARS: usize = 16 << 10;

impl Decoder {
    fn next_string(&mut self) {
        self.held.clear();
        self.padded = false;
    }

    fn push(&mut self, mut chars: &[u8], content: &mut Vec<u8>) -> Result<(), Refused> {
        while !chars.is_empty() {
            let run = memchr3(b'\n', b'\r', b' ', chars).unwrap_or(chars.len());
            for piece in chars[..run].chunks(DECODE_CHARS) {
                self.held.extend_from_slice(piece);
                self.decode(content)?;
            }
            chars = &chars[(run + 1).min(chars.len())..];
        }
        Ok(())
    }

    /// Decodes the whole groups that are held. Padding may only end the string.
    fn decode(&mut self, content: &mut Vec<u8>) -> Result<(), Refused> {
        if self.padded && !self.held.is_empty() {
            return Err(Refused::Base64);
        }
        let whole = self.held.len() / 4 * 4;
        STANDARD.decode_vec(&self.held[..whole], content).map_err(|_| Refused::Base64)?;
        self.padded = self.held[..whole].last() == Some(&b'=');
        self.held.drain(..whole);
        if self.padded && !self.held.is_empty() { Err(Refused::Base64) } else { Ok(()) }
    }

    fn finish(&mut self, content: &mut Vec<u8>) -> Result<(), Refused> {
        self.decode(content)?;
        if self.held.is_empty() { Ok(()) } else { Err(Refused::Base64) }
    }
}

#[cfg(test)]
mod tests;
