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
    /// Publish a new key, which signs after a while; the old one stays until its last token ends.
    Rotate {
        /// When the new key begins to sign; others remember the key set for 5 minutes.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
        after: u64,
        /// The key of signed URLs in place of that of tokens. It signs at once; links stay good.
        #[arg(long, conflicts_with = "after")]
        links: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Take in another server's private key, so that the tokens it signed are good here.
    Import {
        /// RSA private key in PEM; - for standard input.
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
