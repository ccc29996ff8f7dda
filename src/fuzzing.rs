//! What the targets below `fuzz/`, and `tests/corpus.rs` with their corpora, do with an input. Each
//! panics if something does not hold.

mod client_address;
mod import;
mod proof;
mod query;
mod sequence;
mod zip;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{Arc, LazyLock},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper::{
    HeaderMap, Method,
    header::{
        HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
        IF_UNMODIFIED_SINCE, RANGE,
    },
};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rsa::{
    RsaPrivateKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use self::{
    client_address::client_address, import::import, proof::proof, query::query, sequence::sequence,
    zip::zip,
};
use crate::{
    auth::{
        jwks,
        jwt::{self, Expected},
        keyring::KeyRing,
        link::LinkKey,
        receipt::Receipt,
    },
    config::{
        KNOBS,
        layers::{self, Flags},
    },
    http::{
        download::{
            byteranges,
            conditional::{self, Answer, Validators},
        },
        message::{
            inline::{Splitter, Step},
            structured,
        },
        route,
        tus::{self, concat::Concat},
    },
    meta::sled::{
        accounts,
        codec::{self, StoredBlob, StoredFile, StoredPart, StoredUpload, StoredUser},
        journal::record,
        runs::run,
    },
    model::{
        file::CallerMeta,
        id::{FileId, UploadId},
        key::FileKey,
        name::{FileName, Folder, UserId},
        range::RangeSet,
        time::UnixMillis,
        upload::{Mode, Upload, UploadState},
    },
};

type Target = (&'static str, fn(&[u8]));

/// Every target, by the name of its file below `fuzz/fuzz_targets`.
pub const TARGETS: [Target; 19] = [
    ("route", route),
    ("query", query),
    ("client_address", client_address),
    ("conditional", conditional),
    ("file_key", file_key),
    ("jwt", jwt),
    ("link", link),
    ("receipt", receipt),
    ("record", record),
    ("encoded_part", encoded_part),
    ("journal", journal),
    ("proof", proof),
    ("zip", zip),
    ("byteranges", byteranges),
    ("upload_headers", upload_headers),
    ("config", config),
    ("tus", tus),
    ("import", import),
    ("sequence", sequence),
];

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// A key that is found in a path is one that `FileKey` accepts, however it was encoded there; a
/// path routes the same if everything but letters and digits is encoded.
pub fn route(input: &[u8]) {
    let Some(path) = text(input) else { return };
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
        let Ok(endpoint) = route::route(&method, path) else { continue };
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
        let encoded = percent_encode(&decoded, NON_ALPHANUMERIC).to_string();
        let again = route::route(&method, &encoded);
        assert_eq!(again.ok().as_ref(), Some(&endpoint), "{path} is another when encoded");
        let _ = endpoint.access();
    }
    let _ = route::hidden(path);
}

/// Lines of the input are the headers. The slices to send lie within the content and do not
/// overlap.
pub fn conditional(input: &[u8]) {
    const NAMES: [HeaderName; 6] =
        [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    let Some((size, lines)) = input.split_first_chunk() else { return };
    let size = u64::from_le_bytes(*size);
    let mut headers = HeaderMap::new();
    for (at, line) in lines.split(|byte| *byte == b'\n').take(32).enumerate() {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(NAMES[at % NAMES.len()].clone(), value);
        }
    }
    let validators = Validators::dated("\"0a1b\"".into(), UnixMillis(784_903_526_700));
    for method in [Method::GET, Method::HEAD] {
        match conditional::decide(&method, &headers, &validators, size) {
            Answer::Partial(slices) => {
                assert!(method == Method::GET && !slices.is_empty());
                let mut sorted = slices;
                sorted.sort_by_key(|slice| slice.start);
                assert!(sorted.iter().all(|slice| slice.start < slice.end && slice.end <= size));
                assert!(sorted.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            Answer::NotSatisfiable => assert!(method == Method::GET),
            Answer::Whole | Answer::NotModified | Answer::PreconditionFailed => {}
        }
    }
    let _ = conditional::is_fresh(&headers, &validators.etag);
}

/// A key stays below `storage/` and is the same when it is parsed again.
pub fn file_key(input: &[u8]) {
    let Some(key) = text(input).and_then(FileKey::parse) else { return };
    let path = key.as_str().strip_prefix("storage/").unwrap_or_default();
    assert!(path.split('/').count() >= 2);
    assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
    assert!(!path.contains(['\0', '\\', '\r', '\n']));
    assert_eq!(FileKey::parse(key.as_str()).as_ref(), Some(&key));
    let _ = key.salt();
}

/// A key that is not secret: making one takes longer than a fuzzer waits for an input.
const KEY: &[u8] = include_bytes!("../fuzz/key.der");

/// The keys; their directory is removed once they are read.
static KEYS: LazyLock<(Arc<KeyRing>, LinkKey)> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("streamlined-fuzzing-{}", std::process::id()));
    let key = RsaPrivateKey::from_pkcs8_der(KEY).expect("a key");
    let pem = key.to_pkcs8_pem(LineEnding::LF).expect("a key");
    let opened = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join("fuzzing.pem"), pem))
        .and_then(|()| Ok((Arc::new(KeyRing::open(&dir)?), LinkKey::open(&dir)?)));
    let _ = std::fs::remove_dir_all(dir);
    opened.expect("a directory for temporary files")
});

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// No token is accepted that we did not sign, and none that we signed once it has expired.
pub fn jwt(input: &[u8]) {
    let (Some(text), (ring, _)) = (text(input), &*KEYS) else { return };
    let expected = Expected { issuer: "i".into(), audience: "a".into() };
    assert!(jwt::verify(text, ring, &expected, NOW).is_err(), "a forged token is taken");
    let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
    let Ok(token) = jwt::sign(&claims, ring, NOW, 0) else { return };
    if let Ok(verified) = jwt::verify(&token, ring, &expected, NOW) {
        assert!(verified.expires > NOW);
        let seconds = claims["exp"].as_f64().unwrap_or_default();
        assert!(seconds * 1000.0 > 1_700_000_000_000.0, "an expired token is taken");
    }
}

/// A signature is accepted for what was signed, and no other text is.
pub fn link(input: &[u8]) {
    let (Some(text), (_, links)) = (text(input), &*KEYS) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (key, exp, disposition, sig) = (next(), next(), next(), next());
    let (Some(key), Ok(exp)) = (FileKey::parse(key), exp.parse()) else { return };
    let disposition = Some(disposition).filter(|disposition| !disposition.is_empty());
    assert!(!links.verify(&key, exp, disposition, sig), "a forged signature is taken");
    let sig = links.sign(&key, exp, disposition);
    assert!(links.verify(&key, exp, disposition, &sig));
    assert!(!links.verify(&key, exp ^ 1, disposition, &sig));
}

/// A key set on the first line, a receipt behind it: whatever they are, they are read or refused.
/// No input is accepted as a receipt of ours, not even one that names our key.
pub fn receipt(input: &[u8]) {
    let (Some(text), (ring, _)) = (text(input), &*KEYS) else { return };
    let (key_set, receipt) = text.split_once('\n').unwrap_or(("", text));
    let _ = Receipt::verify(receipt, key_set.as_bytes());
    let Ok(ours) = serde_json::to_vec(&jwks::public_keys(ring)) else { return };
    let Some(key) = ring.keys().first().cloned() else { return };
    let head = format!(r#"{{"alg":"RS256","typ":"streamlined-receipt+jwt","kid":"{}"}}"#, key.kid);
    let signed = format!("{}.{receipt}", URL_SAFE_NO_PAD.encode(head));
    for forged in [receipt, &signed] {
        assert!(Receipt::verify(forged, &ours).is_err(), "a forged receipt is taken");
    }
}

/// Stored bytes are a record or an error, and a record is the same after it is stored again.
pub fn record(input: &[u8]) {
    fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        let record: T = codec::decode(bytes).ok()?;
        let stored = codec::encode(&record).ok();
        let again = stored.as_ref().and_then(|stored| codec::decode::<T>(stored).ok());
        assert_eq!(again.and_then(|again| codec::encode(&again).ok()), stored);
        assert!(stored.is_some());
        Some(record)
    }
    let _ = read::<StoredFile>(input).map(|file| file.into_record(FileId([0; 16])));
    read::<StoredUser>(input);
    let _ = accounts::decode_token(input);
    read::<StoredUpload>(input);
    read::<StoredPart>(input);
    read::<StoredBlob>(input);
    run_of_records(input);
}

/// A run is read up to where it is damaged; what was read is the same after it is written again.
fn run_of_records(input: &[u8]) {
    let read = |bytes: &[u8]| {
        let (mut entries, mut read) = (run::Reader::new(bytes), Vec::new());
        while let Ok(Some(value)) = entries.next() {
            read.push((entries.key().to_vec(), bytes[value].to_vec()));
        }
        read
    };
    let entries = read(input);
    let mut again = run::Writer::default();
    for (key, value) in &entries {
        again.push(key, value).expect("entries in order are a run");
    }
    let again = again.finish();
    assert_eq!(read(&again), entries);
    for (key, value) in &entries {
        let found = run::find(&again, key).expect("a run that was written is read");
        assert_eq!(found.map(|found| &again[found]), Some(value.as_slice()));
    }
}

/// However a body is cut into pieces, the content and the verdict are the same.
pub fn encoded_part(input: &[u8]) {
    const PATH: &[Step] = &[Step::Member("chunkBase64")];
    let split = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut splitter, mut content) = (Splitter::new(PATH), Vec::new());
        for piece in pieces {
            splitter.push(piece, &mut content)?;
            let _ = splitter.so_far::<Value>();
        }
        splitter.finish::<Value>().map(|skeleton| (skeleton, content))
    };
    let Some((cut, body)) = input.split_first() else { return };
    let whole = split(&mut std::iter::once(body));
    let pieces = split(&mut body.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
}

/// A record of the journal is read as it was written or not at all.
pub fn journal(input: &[u8]) {
    if let Ok(Some(record)) = record::read(&mut &*input, input.len() as u64) {
        let _ = record.writes();
    }
    let Some(([flip, number], rest)) = input.split_first_chunk() else { return };
    let mut builder = record::Builder::default();
    let writes: Vec<_> = rest
        .chunks(17)
        .map(|write| write.split_at(write.len() / 3))
        .map(|(key, value)| (key, (!value.is_empty()).then_some(value)))
        .collect();
    for (key, value) in &writes {
        builder.push(key, *value);
    }
    let length = builder.len();
    let mut bytes = builder.finish(u64::from(*number));
    let read = record::read(&mut &*bytes, bytes.len() as u64);
    let read = read.ok().flatten().expect("a whole record reads back");
    assert_eq!(read.writes().as_ref(), Some(&writes));
    let at = usize::from(*flip) * length / 256;
    bytes[at] ^= number | 1;
    let damaged = record::read(&mut &*bytes, bytes.len() as u64);
    assert!(matches!(damaged, Ok(None)), "a damaged record is taken");
}

/// The parts of a content, as the reader of an answer finds them, lie where their headers say.
pub fn byteranges(input: &[u8]) {
    let Some((header, content)) = text(input).and_then(|input| input.split_once('\n')) else {
        return;
    };
    let size = content.len() as u64;
    let Some(slices) = RangeSet::parse(header).map(|ranges| ranges.resolve(size)) else { return };
    if slices.is_empty() {
        return;
    }
    let framing = byteranges::ByteRanges::new("text/plain", size, &slices);
    let mut body = String::new();
    for (head, slice) in framing.parts() {
        body.push_str(head);
        let range = usize::try_from(slice.start).ok().zip(usize::try_from(slice.end).ok());
        let Some(part) = range.and_then(|(start, end)| content.get(start..end)) else { return };
        body.push_str(part);
    }
    body.push_str(&framing.tail());
    assert_eq!(body.len() as u64, framing.length());
    let content_type = framing.content_type();
    let boundary = content_type.split_once("boundary=").map_or("", |(_, boundary)| boundary);
    let (body, delimiter) = (format!("\r\n{body}"), format!("\r\n--{boundary}"));
    let mut parts = body.split(&delimiter);
    assert_eq!(parts.next(), Some(""));
    for slice in &slices {
        let (head, bytes) =
            parts.next().and_then(|part| part.split_once("\r\n\r\n")).expect("a part");
        let last = slice.end - 1;
        assert!(head.ends_with(&format!("Content-Range: bytes {}-{last}/{size}", slice.start)));
        assert_eq!(bytes.len() as u64, slice.len());
    }
    assert_eq!(parts.collect::<Vec<_>>(), ["--\r\n"]);
}

/// The first line names a setting: its value means the same in the environment and in a file, or is
/// refused in both. The whole input as a file is a configuration, or every fault names its place.
pub fn config(input: &[u8]) {
    let Some(input) = text(input) else { return };
    let path = std::env::temp_dir().join(format!("streamlined-config-{}", std::process::id()));
    let written = |text: &str| {
        std::fs::write(&path, text).ok()?;
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        let loaded = layers::load(&flags, &BTreeMap::new());
        let _ = std::fs::remove_file(&path);
        Some(loaded)
    };
    let place = path.display().to_string();
    if let Some(Err(faults)) = written(input) {
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.starts_with(&place)));
    }
    let Some((name, value)) = input.split_once('\n') else { return };
    let Some(knob) = KNOBS.iter().find(|knob| knob.name == name) else { return };
    let variable = OsString::from(format!("STREAMLINED_{}", name.to_uppercase()));
    let said = |value: &str| {
        let environment = BTreeMap::from([(variable.clone(), OsString::from(value))]);
        layers::load(&Flags::default(), &environment)
    };
    let from_environment = said(value);
    // A JSON string is a TOML string, except for DEL.
    let quoted = Value::from(value).to_string().replace('\x7f', "\\u007f");
    let Some(from_file) = written(&format!("{name} = {quoted}")) else { return };
    match (from_environment, from_file) {
        (Ok((one, _)), Ok((other, _))) => {
            assert!(one == other, "{name} depends on where it stands");
            // This is the beginning of every link that is given out.
            let url = one.public_url.unwrap_or_default();
            assert!(url.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        (Err(one), Err(other)) => {
            assert_eq!((one.len(), other.len()), (1, 1));
            // Some values are words of the message itself.
            let shown = |text: &str| value.len() > 3 && text.contains(value);
            let always = said("-").is_err_and(|faults| faults.iter().any(|fault| shown(fault)));
            assert!(!knob.secret || !shown(&one[0]) || always, "a secret is shown");
        }
        _ => panic!("{name} is taken in one place alone"),
    }
}

/// Lines are the headers of a creation. What is read from them is the same after it is printed and
/// read again.
pub fn tus(input: &[u8]) {
    const NAMES: [&str; 3] = ["upload-length", "upload-defer-length", "upload-length"];
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut next = || text(lines.next().unwrap_or_default());
    let (Some(metadata), Some(checksum)) = (next(), next()) else { return };
    let _ = tus::checksum_of(checksum);
    let mut headers = HeaderMap::new();
    for name in NAMES {
        if let Some(value) = next().and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.append(name, value);
        }
    }
    if let Ok(Some(size)) = tus::declared_size(&headers) {
        let length = headers.get("upload-length").and_then(|length| length.to_str().ok());
        assert_eq!(length.and_then(|length| length.parse().ok()), Some(size));
    }
    let Ok(mut pairs) = tus::metadata::parse(metadata) else { return };
    let mut taken = |name: &str| pairs.remove(name).and_then(|it| it.as_str().map(str::to_owned));
    let (name, folder) = (taken("filename"), taken("folder").unwrap_or_default());
    let name = name.and_then(|name| FileName::parse(&name).ok());
    let (Some(name), Ok(folder)) = (name, Folder::parse(&folder)) else { return };
    let upload = Upload {
        id: UploadId([0; 16]),
        owner: UserId::parse("u").expect("a user's id"),
        name: name.clone(),
        folder: folder.clone(),
        mime: taken("filetype").filter(|mime| !mime.is_empty()).map(Into::into),
        size: 0,
        mode: Mode::Stream,
        sha256: None,
        meta: CallerMeta(Value::Object(pairs.clone()).to_string().into()),
        expires: NOW,
        received: 0,
        revision: 0,
        state: UploadState::Open,
    };
    let printed = tus::metadata::print(&upload);
    assert!(HeaderValue::from_str(&printed).is_ok());
    let Ok(again) = tus::metadata::parse(&printed) else { panic!("not read again: {printed}") };
    assert_eq!(again["filename"], name.as_str());
    assert_eq!(again.get("folder").map_or("", |it| it.as_str().unwrap_or("?")), folder.as_str());
    for (key, value) in again.iter().filter(|(key, _)| pairs.contains_key(*key)) {
        assert_eq!(Some(value), pairs.get(key));
    }
}

/// Headers of uploads, one in each line: what is read from them is the same after it is printed and
/// read again.
pub fn upload_headers(input: &[u8]) {
    const NAME: HeaderName = HeaderName::from_static("upload-offset");
    for line in input.split(|byte| *byte == b'\n').take(8) {
        let mut headers = HeaderMap::new();
        headers.extend(HeaderValue::from_bytes(line).map(|value| (NAME, value)));
        let (number, truth) =
            (structured::integer(&headers, &NAME), structured::boolean(&headers, &NAME));
        assert!(number.is_none() || truth.is_none());
        if let Some(number) = number {
            assert!(number <= 999_999_999_999_999);
            let again = HeaderMap::from_iter([(NAME, number.into())]);
            assert_eq!(structured::integer(&again, &NAME), Some(number));
        }
        if let Some(Ok(Concat::Final(ids))) = text(line).map(tus::concat::parse) {
            let printed = tus::concat::print(Mode::Final, &ids, "http://x");
            let again = printed.and_then(|printed| tus::concat::parse(&printed).ok());
            assert_eq!(again, Some(Concat::Final(ids)));
        }
    }
}
