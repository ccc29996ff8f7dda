//! `ls`, `rm` and `share`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::{Client, Connection, Failures, failure, path, say};
use crate::config;

/// List files, newest first.
#[derive(Args)]
pub struct List {
    /// List only this folder and everything beneath it; by default all files are listed.
    #[arg(default_value = "")]
    folder: String,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Delete files.
#[derive(Args)]
pub struct Remove {
    /// Keys of the files (storage/…).
    #[arg(required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Print a signed URL with which anybody can download a file until the URL expires.
#[derive(Args)]
pub struct Share {
    /// Key of the file (storage/…).
    key: String,
    /// How long the URL is valid, at most 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = config::duration)]
    ttl: Duration,
    /// Make browsers save the file instead of showing it.
    #[arg(long)]
    attachment: bool,
    #[command(flatten)]
    connection: Connection,
}

const PAGE_FILES: &str = "1000";

pub fn list(list: &List) -> Result<(), Failures> {
    let client = Client::new(&list.connection)?;
    let mut cursor = String::new();
    loop {
        let mut query = vec![("folder", list.folder.as_str()), ("limit", PAGE_FILES)];
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let page = client.call(Method::GET, &client.url("/v1/files/all", &query), None)?;
        for file in page["files"].as_array().into_iter().flatten() {
            say(&if list.json { file.to_string() } else { line(file) })?;
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(()),
        }
    }
}

fn line(file: &Value) -> String {
    let text = |name: &str| file[name].as_str().unwrap_or("-");
    let size = file["size"].as_u64().unwrap_or(0);
    format!("{size:>14}  {}  {}", text("created_at"), text("key"))
}

pub fn remove(remove: &Remove) -> Result<(), Failures> {
    // The same path with an id addresses an upload.
    if let Some(other) = remove.keys.iter().find(|key| !key.starts_with("storage/")) {
        return Err(failure(format!("{other:?} is not a key: keys begin with storage/")));
    }
    let client = Client::new(&remove.connection)?;
    let mut failed = Vec::new();
    for key in &remove.keys {
        let url = client.url(&format!("/v1/files/{}", path(key)), &[]);
        match client.call(Method::DELETE, &url, None) {
            Ok(_) => say(key)?,
            Err(refused) => {
                let Failures(why) = refused.into();
                failed.extend(why.into_iter().map(|why| format!("{key}: {why}")));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failures(failed)) }
}

pub fn share(share: &Share) -> Result<(), Failures> {
    let client = Client::new(&share.connection)?;
    let ttl = share.ttl.as_secs().to_string();
    let disposition = if share.attachment { "attachment" } else { "inline" };
    let query = [("key", share.key.as_str()), ("ttl", &ttl), ("disposition", disposition)];
    let answer = client.call(Method::GET, &client.url("/v1/files/signed-url", &query), None)?;
    say(answer["signed_url"].as_str().unwrap_or_default())
}
