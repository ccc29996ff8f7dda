//! The composition root: sub-commands and flags here, and the only code that names concrete
//! engines in `serve`.

mod get;
mod serve;
mod token;
mod upkeep;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{
    Config,
    layers::{self, Flags},
};

/// A self-contained file daemon: one binary, one data directory.
#[derive(Parser)]
#[command(name = "streamlined", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon.
    Serve {
        #[command(flatten)]
        place: Place,
        /// Address and port to listen on; port 0 takes a free one.
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
    },
    /// Collect what nobody will ask for again: expired uploads, deleted content, litter of crashes.
    Gc {
        #[command(flatten)]
        place: Place,
    },
    /// Read all content again and check it against its hashes.
    Scrub {
        #[command(flatten)]
        place: Place,
    },
    /// Hold the index against itself; exit status 1 when something does not agree.
    Fsck {
        /// Make the index anew from the journal first, at any loss. No daemon may run.
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Copy everything to a directory, while the daemon works; again into the same one copies
    /// what is new.
    Backup {
        dir: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make a new data directory of a backup, and check it.
    Restore {
        dir: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Fetch a file and check it by its BLAKE3.
    Get(get::Get),
    /// Make tokens for services.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Print a service JWT; works beside a running daemon.
    Generate {
        /// Name of the service, 1 to 255 bytes.
        #[arg(value_parser = token::name)]
        name: String,
        /// How long the token is valid, 1 to 3650.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = token::days)]
        days: u64,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Args)]
struct Place {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs the program; the exit status is 0, 1 for a failure, 2 for wrong usage.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { place, listen } => {
            configure(place, listen).and_then(|config| serve::serve(&config))
        }
        Command::Gc { place } => {
            configure(place, None).and_then(|config| upkeep::run(&config, "gc"))
        }
        Command::Scrub { place } => {
            configure(place, None).and_then(|config| upkeep::run(&config, "scrub"))
        }
        Command::Fsck { rebuild, place } => configure(place, None).and_then(|config| {
            if rebuild { upkeep::rebuild(&config) } else { upkeep::run(&config, "fsck") }
        }),
        Command::Backup { dir, place } => {
            configure(place, None).and_then(|config| upkeep::backup(&config, &dir))
        }
        Command::Restore { dir, place } => {
            configure(place, None).and_then(|config| upkeep::restore(&config, &dir))
        }
        Command::Get(wanted) => get::get(&wanted),
        Command::Token(TokenCommand::Generate { name, days, place }) => {
            configure(place, None).and_then(|config| token::generate(&config, &name, days))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for failure in failures.0 {
                eprintln!("streamlined: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What went wrong, a line each.
struct Failures(Vec<String>);

impl Failures {
    /// One failure, with what was being done.
    fn at<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Self {
        let what = what.to_owned();
        move |error| Self(vec![format!("{what}: {error}")])
    }
}

fn configure(place: Place, listen: Option<String>) -> Result<Config, Failures> {
    let flags = Flags { config: place.config, data_dir: place.data_dir, listen };
    let environment: BTreeMap<_, _> = std::env::vars_os().collect();
    layers::load(&flags, &environment).map_err(Failures)
}
