//! `receipt …`: verifies receipts that `complete` signed, without the daemon.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Subcommand;
use ureq::Agent;

use super::{Failures, client::trust::Trust, failure, say};
use crate::{
    auth::receipt::Receipt,
    blob::Digests,
    model::limits::{JSON_BYTES_MAX, JWT_BYTES_MAX},
};

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
pub enum ReceiptCommand {
    /// Verify a receipt and print what it certifies; exit status 1 when it is not valid.
    Verify {
        /// File with the receipt; - for standard input.
        receipt: PathBuf,
        /// The key set: a file, or the URL of a daemon's /.well-known/jwks.json. A key set that you
        /// save with the receipt verifies it at any later time.
        #[arg(long, value_name = "FILE|URL")]
        jwks: String,
        /// Also check that the content of this file is the one that the receipt certifies.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        trust: Trust,
    },
}

pub fn run(command: &ReceiptCommand) -> Result<(), Failures> {
    let ReceiptCommand::Verify { receipt: path, jwks, file, trust } = command;
    let text = if path.as_os_str() == "-" {
        read(io::stdin(), JWT_BYTES_MAX)
    } else {
        File::open(path).and_then(|file| read(file, JWT_BYTES_MAX))
    };
    let text = text.map_err(Failures::at(path.display()))?;
    let keys = key_set(jwks, trust)?;
    let receipt = Receipt::verify(String::from_utf8_lossy(&text).trim(), &keys)
        .map_err(Failures::at("not a receipt"))?;
    if let Some(path) = file {
        let content = File::open(path).and_then(Digests::of);
        let content = content.map_err(Failures::at(path.display()))?;
        if !receipt.is_of(content.size, &content.sha256, &content.blake3) {
            return Err(failure(format!("{} is not what the receipt certifies", path.display())));
        }
    }
    let receipt = serde_json::to_string_pretty(&receipt).map_err(Failures::at("the receipt"))?;
    say(&receipt)
}

/// Reads at most `bytes_max` bytes; more are an error.
fn read(from: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other("longer than the format allows"));
    }
    Ok(bytes)
}

fn key_set(source: &str, trust: &Trust) -> Result<Vec<u8>, Failures> {
    if !source.contains("://") {
        let file = File::open(source).and_then(|file| read(file, JSON_BYTES_MAX));
        return file.map_err(Failures::at(source));
    }
    let agent: Agent = Agent::config_builder()
        .tls_config(trust.config(&[source])?)
        // The daemon never redirects, and whoever else does must not choose the keys.
        .max_redirects(0)
        .timeout_global(Some(TIMEOUT))
        .build()
        .into();
    let mut answer = agent.get(source).call().map_err(Failures::at(source))?;
    if !answer.status().is_success() {
        return Err(Failures::at(source)(answer.status()));
    }
    let body = answer.body_mut().with_config().limit(JSON_BYTES_MAX as u64);
    body.read_to_vec().map_err(Failures::at(source))
}
