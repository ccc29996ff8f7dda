//! `get`: fetches a file and checks it by its BLAKE3: the whole file, continued where an earlier
//! try broke, or one part of it without the rest.

use std::{
    ffi::OsStr,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    thread::sleep,
};

use bao::decode::SliceDecoder;
use blake3::{Hash, Hasher};
use clap::Args;
use ureq::http::Method;

use super::{
    Client, Connection, Failures, Refused, TRIES_MAX, TRY_AGAIN_AFTER, failure, is_url, path,
    progress::Progress,
};
use crate::model::{
    digest::parse_hex,
    name::FileName,
    range::{RangeSpec, Slice},
};

/// Download a file and verify its BLAKE3 hash.
#[derive(Args)]
pub struct Get {
    /// Key of the file (storage/…), or a URL of its content, such as `share` prints.
    source: String,
    /// File to write; - for standard output. By default the file's own name, if SOURCE is a key.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Download only this range of bytes, and verify it by a proof: first-last, first- or -length.
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<String>,
    /// BLAKE3 hash that the file must have; by default the hash that the server reports.
    #[arg(long, value_name = "HEX", value_parser = Hash::from_str)]
    blake3: Option<Hash>,
    #[command(flatten)]
    connection: Connection,
}

/// How many bytes of a file's name the name of its `.part` file keeps; 255 bytes are allowed.
const NAME_KEPT_BYTES: usize = 150;

/// A file on the server, and what is known of it before it is fetched.
struct Remote {
    client: Client,
    url: String,
    hash: Hash,
    size: u64,
    name: Option<String>,
}

pub fn run(get: &Get) -> Result<(), Failures> {
    let remote = Remote::find(get)?;
    let output = match &get.output {
        Some(output) => output.clone(),
        None => remote.own_name()?,
    };
    match (Target::of(&output)?, &get.range) {
        (Target::Stream(mut stream), Some(range)) => remote.fetch_part(range, &mut stream),
        (Target::Stream(mut stream), None) => remote.stream(&mut stream),
        (Target::File(output), Some(range)) => {
            let part = remote.beside(&output, &format!(".{range}"));
            let mut file = File::create(&part).map_err(at(&part))?;
            if let Err(failures) = remote.fetch_part(range, &mut file) {
                fs::remove_file(&part).map_err(at(&part))?;
                return Err(failures);
            }
            fs::rename(&part, &output).map_err(at(&output))
        }
        (Target::File(output), None) => remote.fetch(&output),
    }
}

/// Where the fetched bytes are written to.
enum Target {
    /// Written as they arrive: the standard output, a device, a pipe.
    Stream(Box<dyn Write>),
    /// A file that gets its name in one step, after its whole content was checked.
    File(PathBuf),
}

impl Target {
    fn of(output: &Path) -> Result<Self, Failures> {
        if output.as_os_str() == "-" {
            return Ok(Self::Stream(Box::new(io::stdout())));
        }
        // Links are followed. A file that does not exist yet needs a directory that does.
        match fs::metadata(output) {
            Ok(found) if found.is_file() => {
                fs::canonicalize(output).map(Self::File).map_err(at(output))
            }
            Ok(found) if found.is_dir() => {
                Err(failure(format!("{} is a directory; --output takes a file", output.display())))
            }
            Ok(_) => {
                let stream = OpenOptions::new().write(true).open(output).map_err(at(output))?;
                Ok(Self::Stream(Box::new(stream)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if output.is_symlink() {
                    return Err(failure(format!("{} is a dangling symlink", output.display())));
                }
                let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty());
                fs::metadata(dir.unwrap_or(Path::new("."))).map_err(at(output))?;
                Ok(Self::File(output.to_owned()))
            }
            Err(error) => Err(at(output)(error)),
        }
    }
}

fn at<E: Display>(path: &Path) -> impl FnOnce(E) -> Failures {
    Failures::at(path.display())
}

impl Remote {
    /// Where a file is kept until it has been checked: under a name that no other content gets.
    fn beside(&self, output: &Path, part: &str) -> PathBuf {
        let name = output.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        // The name may have the full length that is allowed, so it is cut.
        let name = &name[..name.floor_char_boundary(NAME_KEPT_BYTES)];
        output.with_file_name(format!("{name}.{}{part}.part", &self.hash.to_hex()[..16]))
    }

    fn find(get: &Get) -> Result<Self, Failures> {
        let client = Client::of(&get.connection, &get.source)?;
        if is_url(&get.source) { Self::by_url(client, get) } else { Self::by_key(client, get) }
    }

    fn by_key(client: Client, get: &Get) -> Result<Self, Failures> {
        let key = path(&get.source);
        let metadata = client.url(&format!("/v1/files/metadata/{key}"), &[]);
        let file = client.call(Method::GET, &metadata, None)?;
        let size = file["size"].as_u64().ok_or_else(|| failure("the server reports no size"))?;
        let told = || file["blake3"].as_str().and_then(hash);
        let hash = get.blake3.or_else(told).ok_or_else(no_hash)?;
        let name = file["filename"].as_str().map(str::to_owned);
        let url = client.url(&format!("/v1/files/content/{key}"), &[]);
        Ok(Self { client, url, hash, size, name })
    }

    fn by_url(client: Client, get: &Get) -> Result<Self, Failures> {
        let url = get.source.clone();
        let answer = client.send(Method::HEAD, &url, &[], None)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size = header("content-length").and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| failure("the server reports no size"))?;
        let told = || header("etag").and_then(|tag| hash(tag.trim_matches('"')));
        let hash = get.blake3.or_else(told).ok_or_else(no_hash)?;
        Ok(Self { client, url, hash, size, name: None })
    }

    /// The file's own name, in the current directory only.
    fn own_name(&self) -> Result<PathBuf, Failures> {
        let name = self.name.as_deref().and_then(|name| FileName::parse(name).ok());
        let name = name
            .ok_or_else(|| failure("name the output file with --output (- for standard output)"))?;
        let path = PathBuf::from(name.as_str());
        if path.exists() {
            return Err(failure(format!("{} exists; name another with --output", path.display())));
        }
        Ok(path)
    }

    /// Fetches a part with its proof, and writes what was proven.
    fn fetch_part(&self, range: &str, output: &mut impl Write) -> Result<(), Failures> {
        let spec = RangeSpec::parse(range)
            .ok_or_else(|| failure("--range must be first-last, first- or -length"))?;
        let Slice { start, end } = spec.resolve(self.size).ok_or_else(|| {
            failure(format!("the range lies outside the file's {} bytes", self.size))
        })?;
        let joint = if self.url.contains('?') { '&' } else { '?' };
        let mut answer = self.client.fetch(&format!("{}{joint}proof={range}", self.url), &[])?;
        let mut proof = answer.body_mut().as_reader();
        // A proof covers the size only if it includes the last chunk, as it does for every range
        // that was cut to the size that the server had told before.
        let mut size = [0; 8];
        proof.read_exact(&mut size).map_err(|error| failure(format!("not proven: {error}")))?;
        if u64::from_le_bytes(size) != self.size {
            return Err(failure("not proven: the server reports two different sizes"));
        }
        let mut decoder =
            SliceDecoder::new((&size[..]).chain(proof), &self.hash, start, end - start);
        io::copy(&mut decoder, output).map_err(|error| failure(format!("not proven: {error}")))?;
        output.flush().map_err(Failures::at("get"))
    }

    /// Streams the whole file. What was written is good only if this succeeds.
    fn stream(&self, output: &mut impl Write) -> Result<(), Failures> {
        let mut answer = self.client.fetch(&self.url, &[])?;
        let mut hasher = Hasher::new();
        let mut progress = Progress::of(self.size, 0);
        copy(&mut answer.body_mut().as_reader(), output, |chunk| {
            hasher.update(chunk);
            progress.took(chunk.len() as u64);
        })
        .map_err(Failures::at("get"))?;
        self.check(&hasher.finalize())
    }

    /// Fetches the whole file into a temporary one beside `output`, continuing one that is there,
    /// and renames it once it has been checked.
    fn fetch(&self, output: &Path) -> Result<(), Failures> {
        let part = self.beside(output, "");
        // Consecutive tries that brought no bytes.
        let mut fruitless = 0;
        loop {
            let before = fs::metadata(&part).map_or(0, |file| file.len());
            match self.fetch_on(&part, before) {
                Ok(()) => break,
                Err(Broken { may_pass: false, failures }) => return Err(failures),
                Err(Broken { failures, .. }) => {
                    let grew = fs::metadata(&part).is_ok_and(|file| file.len() > before);
                    fruitless = if grew { 0 } else { fruitless + 1 };
                    if fruitless == TRIES_MAX {
                        return Err(failures);
                    }
                    sleep(TRY_AGAIN_AFTER * fruitless);
                }
            }
        }
        let mut hasher = Hasher::new();
        let file = File::open(&part).map_err(at(&part))?;
        hasher.update_reader(&file).map_err(at(&part))?;
        if let Err(wrong) = self.check(&hasher.finalize()) {
            fs::remove_file(&part).map_err(at(&part))?;
            return Err(wrong);
        }
        file.sync_all().map_err(at(&part))?;
        fs::rename(&part, output).map_err(at(output))
    }

    fn fetch_on(&self, part: &Path, from: u64) -> Result<(), Broken> {
        if from == self.size && part.exists() {
            return Ok(());
        }
        // A temporary file that is longer than the content cannot be a part of it.
        let from = if from > self.size { 0 } else { from };
        let same = ("if-range", format!("\"{}\"", self.hash));
        let headers = [("range", format!("bytes={from}-")), same];
        let mut answer = self.client.fetch(&self.url, if from > 0 { &headers } else { &[] })?;
        let goes_on = answer.status() == 206;
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(goes_on).truncate(!goes_on);
        let file = options.open(part).map_err(at(part));
        let mut file = file.map_err(|failures| Broken { may_pass: false, failures })?;
        let mut progress = Progress::of(self.size, if goes_on { from } else { 0 });
        copy(&mut answer.body_mut().as_reader(), &mut file, |chunk| {
            progress.took(chunk.len() as u64);
        })
        .map_err(|error| Broken { may_pass: true, failures: failure(error) })
    }

    fn check(&self, found: &Hash) -> Result<(), Failures> {
        if *found == self.hash {
            return Ok(());
        }
        Err(failure(format!("the content has the BLAKE3 hash {found}, not {}", self.hash)))
    }
}

/// A download that broke, and whether it is worth another try.
struct Broken {
    may_pass: bool,
    failures: Failures,
}

impl From<Refused> for Broken {
    fn from(refused: Refused) -> Self {
        Self { may_pass: refused.may_pass(), failures: refused.into() }
    }
}

fn hash(hex: &str) -> Option<Hash> {
    parse_hex::<32>(hex).map(Hash::from)
}

fn no_hash() -> Failures {
    failure("the server reports no BLAKE3 hash; name the hash with --blake3")
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
