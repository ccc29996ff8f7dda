//! `key …`: signing keys.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    Failures,
    ask::{self, Asking, members},
    door,
    token::seconds,
};

#[derive(Subcommand)]
pub enum KeyCommand {
    /// List the published keys.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// Publish a new signing key, which begins to sign after a delay; the old key stays published
    /// until the last token that it signed has expired.
    Rotate {
        /// Delay until the new key begins to sign; verifiers may cache the key set for 5 minutes.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
        after: u64,
        /// Rotate the key of signed URLs instead. The new key signs at once; URLs that were signed
        /// before stay valid until they expire.
        #[arg(long, conflicts_with = "after")]
        links: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Import the private key of another server, so that the tokens it signed are valid here.
    Import {
        /// File with an RSA private key in PEM form; - for standard input.
        pem: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
}

const KEYS: &str = "/v1/admin/keys";

pub fn run(command: KeyCommand) -> Result<(), Failures> {
    match command {
        KeyCommand::List { asking } => {
            let config = asking.place.configure()?;
            let listed = door::call(&config, &Method::GET, KEYS, &Value::Null)?;
            asking.print(&listed["keys"], table)
        }
        KeyCommand::Rotate { after, links, asking } => {
            let wanted = json!({"after": after, "links": links});
            asking.ask(&Method::POST, &format!("{KEYS}/rotate"), &wanted, members)
        }
        KeyCommand::Import { pem, asking } => {
            let config = asking.place.configure()?;
            let pem = read(&pem).map_err(Failures::at(pem.display()))?;
            let made = door::call(&config, &Method::POST, KEYS, &json!({ "pem": &**pem }))?;
            asking.print(&made, members)
        }
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut pem = Zeroizing::new(String::new());
    if path == Path::new("-") {
        io::stdin().read_to_string(&mut pem)?;
        return Ok(pem);
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

fn table(listed: &Value) -> String {
    ask::table(listed, &["kid", "signs", "signs_from", "last_expiry"])
}
