//! `get`: fetches a file and checks it by its BLAKE3: whole, going on where an earlier try broke,
//! or one part of it without the rest.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant},
};

use bao::decode::SliceDecoder;
use blake3::{Hash, Hasher};
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};
use zeroize::Zeroizing;

use super::Failures;
use crate::model::{digest::parse_hex, range::RangeSpec, range::Slice};

/// Fetch a file and check it by its BLAKE3.
#[derive(Args)]
pub struct Get {
    /// A key (storage/…) or a URL of a content, as `share` gives it.
    source: String,
    /// Where to put it; - for the standard output. A file's own name when it is not given.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Fetch this part alone, with the proof that it is one: first-last, first- or -length.
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<String>,
    /// The BLAKE3 that the file must have; asked of the server when it is not given.
    #[arg(long, value_name = "HEX", value_parser = Hash::from_str)]
    blake3: Option<Hash>,
    /// Where a key is asked for.
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMLINED_SERVER",
        default_value = "http://127.0.0.1:8000"
    )]
    server: String,
    /// A file that holds a token; else `STREAMLINED_TOKEN` does.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Tries in a row that brought nothing; past it the download ends.
const TRIES_MAX: u32 = 5;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// What is not a letter of a key's path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// What is known of a file before it is fetched.
struct Remote {
    url: String,
    token: Option<Zeroizing<String>>,
    agent: Agent,
    hash: Hash,
    size: u64,
    name: Option<String>,
}

pub fn get(get: &Get) -> Result<(), Failures> {
    let remote = Remote::find(get)?;
    let name = || remote.name.clone().map(PathBuf::from);
    let output = get.output.clone().or_else(name).ok_or_else(|| {
        Failures(vec!["get: --output names the file to write, or - for standard output".into()])
    })?;
    let to_stdout = output.as_os_str() == "-";
    if let Some(range) = &get.range {
        return if to_stdout {
            remote.fetch_part(range, &mut io::stdout().lock())
        } else {
            let mut file = File::create(&output).map_err(Failures::at("get"))?;
            remote.fetch_part(range, &mut file)
        };
    }
    if to_stdout { remote.stream(&mut io::stdout().lock()) } else { remote.fetch(&output) }
}

fn failure(why: impl std::fmt::Display) -> Failures {
    Failures(vec![format!("get: {why}")])
}

impl Remote {
    fn find(get: &Get) -> Result<Self, Failures> {
        let token = match &get.token_file {
            Some(path) => Some(fs::read_to_string(path).map_err(Failures::at("token file"))?),
            None => std::env::var("STREAMLINED_TOKEN").ok(),
        };
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned()));
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        let hash = get.blake3.unwrap_or(Hash::from([0; 32]));
        let mut remote = Self { url: String::new(), token, agent, hash, size: 0, name: None };
        if get.source.starts_with("http://") {
            remote.url.clone_from(&get.source);
            remote.ask_by_url(get.blake3)?;
        } else if get.source.starts_with("https://") {
            return Err(failure("this build speaks HTTP only; ask through a proxy that does TLS"));
        } else {
            remote.ask_by_key(get)?;
        }
        Ok(remote)
    }

    fn ask_by_key(&mut self, get: &Get) -> Result<(), Failures> {
        let key = utf8_percent_encode(&get.source, IN_PATH);
        let server = get.server.trim_end_matches('/');
        self.url = format!("{server}/v1/files/metadata/{key}");
        let mut answer = self.ask(&[])?;
        let file: Value = answer.body_mut().read_json().map_err(failure)?;
        self.url = format!("{server}/v1/files/content/{key}");
        self.size = file["size"].as_u64().ok_or_else(|| failure("the server names no size"))?;
        self.name = file["filename"].as_str().map(str::to_owned);
        if get.blake3.is_none() {
            self.hash = file["blake3"].as_str().and_then(hash).ok_or_else(no_hash)?;
        }
        Ok(())
    }

    fn ask_by_url(&mut self, known: Option<Hash>) -> Result<(), Failures> {
        let answer = self.agent.head(&self.url).call().map_err(failure)?;
        let answer = accepted(answer)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size = header("content-length").and_then(|size| size.parse().ok());
        self.size = size.ok_or_else(|| failure("the server names no size"))?;
        if known.is_none() {
            self.hash =
                header("etag").and_then(|tag| hash(tag.trim_matches('"'))).ok_or_else(no_hash)?;
        }
        Ok(())
    }

    fn ask(&self, headers: &[(&str, String)]) -> Result<Response<Body>, Failures> {
        self.ask_at(&self.url, headers)
    }

    fn ask_at(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Failures> {
        let mut request = self.agent.get(url);
        // A signed URL is its own credential.
        if let Some(token) = self.token.as_ref().filter(|_| !url.contains("sig=")) {
            let is_jwt = token.split('.').count() == 3;
            request = if is_jwt {
                request.header("authorization", format!("Bearer {}", **token))
            } else {
                request.header("x-service-token", token.as_str())
            };
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        accepted(request.call().map_err(failure)?)
    }

    /// Fetches a part with its proof, and gives out what was proven.
    fn fetch_part(&self, range: &str, output: &mut impl Write) -> Result<(), Failures> {
        let spec = RangeSpec::parse(range)
            .ok_or_else(|| failure("--range is first-last, first- or -length"))?;
        let Slice { start, end } = spec.resolve(self.size).ok_or_else(|| {
            failure(format!("the range lies outside the file's {} bytes", self.size))
        })?;
        let joint = if self.url.contains('?') { '&' } else { '?' };
        let mut answer = self.ask_at(&format!("{}{joint}proof={range}", self.url), &[])?;
        let proof = answer.body_mut().as_reader();
        let mut decoder = SliceDecoder::new(proof, &self.hash, start, end - start);
        io::copy(&mut decoder, output).map_err(|error| failure(format!("not proven: {error}")))?;
        output.flush().map_err(Failures::at("get"))
    }

    /// Streams the whole; what was written is good only when this ends well.
    fn stream(&self, output: &mut impl Write) -> Result<(), Failures> {
        let mut answer = self.ask(&[])?;
        let mut hasher = Hasher::new();
        let mut progress = Progress::of(self.size, 0);
        copy(&mut answer.body_mut().as_reader(), output, |chunk| {
            hasher.update(chunk);
            progress.took(chunk.len());
        })
        .map_err(Failures::at("get"))?;
        self.check(&hasher.finalize())
    }

    /// Fetches the whole into `FILE.part`, which goes on where it ended, and names it `FILE` once
    /// it was checked.
    fn fetch(&self, output: &Path) -> Result<(), Failures> {
        let mut part = output.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut fruitless = 0;
        loop {
            let before = fs::metadata(&part).map_or(0, |file| file.len());
            match self.fetch_on(&part, before) {
                Ok(()) => break,
                Err(error) => {
                    let grew = fs::metadata(&part).is_ok_and(|file| file.len() > before);
                    fruitless = if grew { 0 } else { fruitless + 1 };
                    if fruitless == TRIES_MAX {
                        return Err(error);
                    }
                    sleep(TRY_AGAIN_AFTER * fruitless);
                }
            }
        }
        let mut hasher = Hasher::new();
        let file = File::open(&part).map_err(Failures::at("get"))?;
        hasher.update_reader(&file).map_err(Failures::at("get"))?;
        if let Err(wrong) = self.check(&hasher.finalize()) {
            fs::remove_file(&part).map_err(Failures::at("get"))?;
            return Err(wrong);
        }
        file.sync_all().map_err(Failures::at("get"))?;
        fs::rename(&part, output).map_err(Failures::at("get"))
    }

    fn fetch_on(&self, part: &Path, from: u64) -> Result<(), Failures> {
        if from == self.size && part.exists() {
            return Ok(());
        }
        let same = ("if-range", format!("\"{}\"", self.hash));
        let headers = [("range", format!("bytes={from}-")), same];
        let mut answer = self.ask(if from > 0 { &headers } else { &[] })?;
        let goes_on = answer.status() == 206;
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(goes_on).truncate(!goes_on);
        let mut file = options.open(part).map_err(Failures::at("get"))?;
        let mut progress = Progress::of(self.size, if goes_on { from } else { 0 });
        copy(&mut answer.body_mut().as_reader(), &mut file, |chunk| progress.took(chunk.len()))
            .map_err(failure)
    }

    fn check(&self, found: &Hash) -> Result<(), Failures> {
        if *found == self.hash {
            return Ok(());
        }
        Err(failure(format!("what came has the BLAKE3 {found}, not {}", self.hash)))
    }
}

fn hash(hex: &str) -> Option<Hash> {
    parse_hex::<32>(hex).map(Hash::from)
}

fn no_hash() -> Failures {
    failure("the server names no BLAKE3; give it with --blake3")
}

/// The answer, or what its problem document says.
fn accepted(mut answer: Response<Body>) -> Result<Response<Body>, Failures> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let problem: Value = answer.body_mut().read_json().unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("no reason was given");
    Err(failure(format!("{}: {detail}", answer.status())))
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut took: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return to.flush();
        }
        to.write_all(&buffer[..read])?;
        took(&buffer[..read]);
    }
}

/// A line on a terminal that says how far a download is.
struct Progress {
    size: u64,
    done: u64,
    told: Option<Instant>,
}

impl Progress {
    fn of(size: u64, done: u64) -> Self {
        Self { size, done, told: io::stderr().is_terminal().then(Instant::now) }
    }

    fn took(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let Some(told) = &mut self.told else { return };
        if told.elapsed() < PROGRESS_EVERY && self.done < self.size {
            return;
        }
        *told = Instant::now();
        let percent = (u128::from(self.done) * 100).checked_div(self.size.into()).unwrap_or(100);
        eprint!("\r{percent:>3} % of {} MiB", self.size >> 20);
        if self.done >= self.size {
            eprintln!();
        }
    }
}
