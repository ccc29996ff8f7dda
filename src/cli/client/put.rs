//! `put`: stores a small file in one request and a large one in parts, or by a proof of possession
//! if its owner has the content already. An upload that broke is found again by its name, folder
//! and SHA-256, and is continued. One with the same name but other content may belong to somebody
//! else.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread::sleep,
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};
use ureq::http::{HeaderValue, Method};

use super::{
    Client, Connection, Failures, Refused, TRIES_MAX, TRY_AGAIN_AFTER, failure, progress::Progress,
    read_json, say,
};
use crate::{
    blob::Digests,
    model::digest::{ContentHash, Sha256, hex},
};

/// Upload a file; if this was interrupted, the same command resumes it.
#[derive(Args)]
pub struct Put {
    /// File to upload.
    file: PathBuf,
    /// Name to store the file under; by default its own name.
    #[arg(long)]
    name: Option<String>,
    /// Folder to store the file in; by default the top folder.
    #[arg(long, default_value = "")]
    folder: String,
    /// Media type of the file; by default the daemon derives it from the name.
    #[arg(long, value_parser = mime)]
    mime: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Files up to this size are sent in one request.
const WHOLE_BYTES_MAX: u64 = 8 << 20;

/// A media type that a header can carry; the daemon checks the rest.
fn mime(text: &str) -> Result<String, String> {
    let is_header = !text.is_empty() && HeaderValue::from_str(text).is_ok();
    if is_header { Ok(text.into()) } else { Err("must be a media type such as image/png".into()) }
}

pub fn run(put: &Put) -> Result<(), Failures> {
    let kind = fs::metadata(&put.file).map_err(Failures::at(put.file.display()))?.file_type();
    if !kind.is_file() {
        // The file is read twice: for its digests and for the upload.
        let what = if kind.is_dir() { "is a directory" } else { "is not a regular file" };
        return Err(failure(format!("{}: {what}; put takes one file", put.file.display())));
    }
    let own = put.file.file_name().and_then(|name| name.to_str());
    let name = put
        .name
        .as_deref()
        .or(own)
        .ok_or_else(|| failure("the name of the file is not UTF-8; give it one with --name"))?;
    let client = Client::new(&put.connection)?;
    let file = Local::open(&put.file).map_err(Failures::at(put.file.display()))?;
    let stored = if file.size <= WHOLE_BYTES_MAX {
        whole(&client, put, name, &file)?
    } else {
        in_parts(&client, put, name, &file)?
    };
    if stored["sha256"] != file.sha256.to_string() {
        return Err(failure("the server stored other content: the file changed meanwhile"));
    }
    say(stored["key"].as_str().unwrap_or_default())
}

/// A file to upload. It must not change meanwhile; its digest shows if it did.
struct Local {
    file: File,
    size: u64,
    sha256: Sha256,
    blake3: ContentHash,
}

impl Local {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let Digests { size, sha256, blake3, .. } = Digests::of(&file)?;
        Ok(Self { file, size, sha256, blake3 })
    }

    fn part(&self, at: u64, bytes: u64) -> Result<Vec<u8>, Failures> {
        let bytes = bytes.min(self.size.saturating_sub(at));
        let mut part = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        self.file
            .read_exact_at(&mut part, at)
            .map_err(Failures::at("file changed or unreadable"))?;
        Ok(part)
    }
}

/// Repeats a request that may succeed later. After all tries, the upload stays and can be
/// continued.
fn patiently<T>(mut request: impl FnMut() -> Result<T, Refused>) -> Result<T, Refused> {
    let mut tries = 1;
    loop {
        match request() {
            Err(refused) if refused.may_pass() && tries < TRIES_MAX => {
                sleep(TRY_AGAIN_AFTER * tries);
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

fn whole(client: &Client, put: &Put, name: &str, file: &Local) -> Result<Value, Failures> {
    let url = client.url("/v1/files/content", &[("filename", name), ("folder", &put.folder)]);
    let mime = put.mime.clone().unwrap_or_else(|| "application/octet-stream".to_owned());
    let digest = format!("sha-256=:{}:", STANDARD.encode(file.sha256.0));
    let headers = [("content-type", mime), ("repr-digest", digest)];
    let bytes = file.part(0, file.size)?;
    // Only one try: if the file was stored but the answer lost, a second try would store it twice.
    Ok(read_json(client.send(Method::PUT, &url, &headers, Some(&bytes))?)?)
}

fn in_parts(client: &Client, put: &Put, name: &str, file: &Local) -> Result<Value, Failures> {
    if let Some(upload) = begun(client, put, name, file)? {
        match go_on(client, &upload, file)? {
            // The upload has other content after all, or parts of another size: it is left alone.
            Err(refused) if ["sha256_mismatch", "size_mismatch"].contains(&&*refused.code) => {}
            stored => return Ok(stored?),
        }
    }
    let (blake3, sha256) = (file.blake3.to_string(), file.sha256.to_string());
    let mut declared = json!({"name": name, "size": file.size, "blake3": blake3, "sha256": sha256});
    if let Some(mime) = &put.mime {
        declared["mime"] = mime.as_str().into();
    }
    let init = json!({"mode": "chunked", "files": [declared], "folder": put.folder});
    let url = client.url("/v1/files/init", &[]);
    let opened = patiently(|| client.call(Method::POST, &url, Some(&init)))?;
    let id = opened["uploadId"].as_str().unwrap_or_default().to_owned();
    if let Some(ranges) = opened["known"]["ranges"].as_array() {
        let proof = proof(&id, ranges, file)?;
        let known = json!({"uploadId": id, "known": {"blake3": blake3, "proof": proof}});
        let url = client.url("/v1/files/complete", &[]);
        match patiently(|| client.call(Method::POST, &url, Some(&known))) {
            Err(refused) if refused.code == "content_unproven" => {}
            stored => return Ok(stored?),
        }
    }
    let upload = Upload { id, received: HashMap::new(), part_bytes: part_bytes(&opened) };
    Ok(go_on(client, &upload, file)??)
}

/// The proof that the client has the content, over the ranges that the server picked.
fn proof(id: &str, ranges: &[Value], file: &Local) -> Result<String, Failures> {
    let mut digest = Context::new(&SHA256);
    digest.update(id.as_bytes());
    for range in ranges {
        let number = |name: &str| range[name].as_u64().unwrap_or(0);
        digest.update(&file.part(number("offset"), number("length"))?);
    }
    Ok(hex(digest.finish().as_ref()))
}

fn part_bytes(opened: &Value) -> u64 {
    opened["partSize"].as_u64().filter(|bytes| *bytes > 0).unwrap_or(WHOLE_BYTES_MAX)
}

/// An upload and the parts that the server has, as sizes by number.
struct Upload {
    id: String,
    received: HashMap<u64, u64>,
    part_bytes: u64,
}

/// An unfinished upload of this file, under this name and in this folder.
fn begun(client: &Client, put: &Put, name: &str, file: &Local) -> Result<Option<Upload>, Failures> {
    let sha256 = file.sha256.to_string();
    let mut cursor = String::new();
    loop {
        let query = [("limit", "100"), ("cursor", &cursor)];
        let query = if cursor.is_empty() { &query[..1] } else { &query };
        let page = client.call(Method::GET, &client.url("/v1/files/uploads", query), None)?;
        let folder = put.folder.trim_matches('/');
        let same = |upload: &&Value| {
            upload["name"] == name && upload["folder"] == folder && upload["sha256"] == sha256
        };
        if let Some(found) = page["uploads"].as_array().into_iter().flatten().find(same) {
            let id = found["uploadId"].as_str().unwrap_or_default();
            let url = client.url(&format!("/v1/files/{id}"), &[]);
            let status = client.call(Method::GET, &url, None)?;
            let parts = status["received"].as_array().into_iter().flatten();
            let received: HashMap<u64, u64> = parts
                .filter_map(|part| Some((part["partNumber"].as_u64()?, part["size"].as_u64()?)))
                .collect();
            // All parts but the last have one size, which is that of the largest. An upload without
            // any bytes is not continued: only init tells how large a part may be.
            if let Some(part_bytes) = received.values().copied().max().filter(|bytes| *bytes > 0) {
                return Ok(Some(Upload { id: id.to_owned(), received, part_bytes }));
            }
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(None),
        }
    }
}

/// Sends the missing parts and completes the upload.
fn go_on(
    client: &Client,
    upload: &Upload,
    file: &Local,
) -> Result<Result<Value, Refused>, Failures> {
    let mut progress = Progress::of(file.size, 0);
    let mut at = 0;
    for number in 1.. {
        if at >= file.size {
            break;
        }
        let bytes = upload.part_bytes.min(file.size - at);
        if upload.received.get(&number) != Some(&bytes) {
            let part = file.part(at, bytes)?;
            let url = client.url(&format!("/v1/files/{}/parts/{number}", upload.id), &[]);
            patiently(|| client.send(Method::PUT, &url, &[], Some(&part)))?;
        }
        at += bytes;
        progress.took(bytes);
    }
    let complete = json!({"uploadId": upload.id, "sha256": file.sha256.to_string()});
    let url = client.url("/v1/files/complete", &[]);
    Ok(patiently(|| client.call(Method::POST, &url, Some(&complete))))
}
