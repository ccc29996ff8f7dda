//! `receipt …`: checks what `complete` signed, without the daemon.

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
    /// Check a receipt, print what it says; exit status 1 when it does not hold.
    Verify {
        /// The receipt; - for standard input.
        receipt: PathBuf,
        /// The key set: a file, or the URL of a daemon's /.well-known/jwks.json. A file that was
        /// kept with the receipt is good for ever.
        #[arg(long, value_name = "FILE|URL")]
        jwks: String,
        /// A content that must be the one that the receipt speaks of.
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
            return Err(failure(format!("{} is not what the receipt speaks of", path.display())));
        }
    }
    let receipt = serde_json::to_string_pretty(&receipt).map_err(Failures::at("the receipt"))?;
    say(&receipt)
}

/// Reads something short.
fn read(from: impl Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other("longer than it can be"));
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
        // The daemon sends nobody elsewhere, and who else does is not to name the keys.
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
