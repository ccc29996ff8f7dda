//! The composition root: sub-commands and flags here; `serve` and `upkeep` name concrete engines.

mod ask;
mod client;
mod config;
mod control;
mod door;
pub(crate) mod import;
mod key;
mod receipt;
mod serve;
mod token;
mod upkeep;
mod user;

use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser, error::ErrorKind};
use clap_complete::Shell;
use rustix::{
    fs::Mode,
    process::{DumpableBehavior, set_dumpable_behavior, umask},
};

use crate::{
    config::{
        Config, address,
        layers::{self, Flags, Origins},
    },
    sys::audit::{self, Verified},
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
        #[arg(long, value_name = "ADDR", value_parser = address)]
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
    /// Hold the index against itself, the journal and the files; exit status 1 when something is
    /// wrong.
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
    Import(import::Import),
    /// What a running daemon logs: shown, or changed until the configuration is read again.
    Log {
        /// A filter, as in `info` or `info,streamlined::access=off`.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        filter: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    #[command(flatten)]
    Client(client::ClientCommand),
    /// The life of service tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Users: roles, quotas, tokens, end.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Signing keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Settings: faults, what is in force, an example.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write the manual pages to a directory.
    Man {
        dir: PathBuf,
    },
    /// Print what a shell needs to complete these commands.
    Completions {
        shell: Shell,
    },
    /// The log of who did what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Signed receipts of stored files.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Read the log again: exit status 1 when lines were cut out, added or edited.
    Verify {
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

impl Place {
    /// The configuration, by what the command line and the environment say.
    fn configure(&self) -> Result<Config, Failures> {
        self.explain(None).map(|(config, _)| config)
    }

    /// As [`Place::configure`], with where each setting was said. A daemon may be told where to
    /// listen.
    fn explain(&self, listen: Option<String>) -> Result<(Config, Origins), Failures> {
        let (config, data_dir) = (self.config.clone(), self.data_dir.clone());
        let flags = Flags { config, data_dir, listen };
        layers::load(&flags, &std::env::vars_os().collect()).map_err(Failures)
    }
}

/// Runs the program; the exit status is 0, 1 for a failure, 2 for wrong usage.
pub fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return misused(&error),
    };
    // What they write is the user's own.
    if !matches!(command, Command::Client(_) | Command::Man { .. }) {
        // A daemon, which has a log, warns of what this cannot do.
        let _ = keep_private();
    }
    match perform(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for failure in failures.0 {
                tell(&failure);
            }
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Result<(), Failures> {
    match command {
        Command::Serve { place, listen } => serve::serve(place, listen),
        Command::Gc { place } => upkeep::run(&place.configure()?, "gc"),
        Command::Scrub { place } => upkeep::run(&place.configure()?, "scrub"),
        Command::Fsck { rebuild: false, place } => upkeep::run(&place.configure()?, "fsck"),
        Command::Fsck { rebuild: true, place } => upkeep::rebuild(&place.configure()?),
        Command::Backup { dir, place } => upkeep::backup(&place.configure()?, &dir),
        Command::Restore { dir, place } => upkeep::restore(&place.configure()?, &dir),
        Command::Import(command) => import::run(&command),
        Command::Log { filter, place } => upkeep::log(&place.configure()?, filter.as_deref()),
        Command::Client(command) => client::run(command),
        Command::Token(command) => token::run(command),
        Command::User(command) => user::run(command),
        Command::Key(command) => key::run(command),
        Command::Receipt(command) => receipt::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Man { dir } => config::manual(&dir),
        Command::Completions { shell } => config::completions(shell),
        Command::Audit(AuditCommand::Verify { place }) => verify_audit(&place.configure()?),
    }
}

/// Shows help, or what is wrong with the command line: in one line, as every failure.
fn misused(error: &clap::Error) -> ExitCode {
    let is_asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        // Tips and the usage stand in paragraphs of their own.
        let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
        let why = lines.collect::<Vec<_>>().join(" ");
        tell(&format!("{}; see --help", why.trim_start_matches("error: ")));
    }
    if is_asked { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Nothing we make is for others to read; no core dumps, which would hold keys and tokens.
fn keep_private() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// What went wrong, a line each.
struct Failures(Vec<String>);

/// One that needs no more words.
fn failure(why: impl Display) -> Failures {
    Failures(vec![why.to_string()])
}

impl Failures {
    /// One failure, with what was being done.
    fn at<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| failure(format!("{what}: {error}"))
    }

    /// As [`Failures::at`], for what lies at `path`: the system's errors do not say where.
    fn of(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = format!("{what}: {}", path.display());
        move |error| {
            let is_bare = error.raw_os_error().is_some();
            failure(format!("{}: {error}", if is_bare { &*place } else { what }))
        }
    }
}

fn verify_audit(config: &Config) -> Result<(), Failures> {
    let dir = config.data_dir.join("audit");
    let Verified { lines, first, last } = audit::verify(&dir).map_err(Failures::at("audit"))?;
    say(&format!("{lines} lines, {first} to {last}, none cut out, added or edited"))
}

/// Prints a line.
fn say(line: &str) -> Result<(), Failures> {
    print(format!("{line}\n"))
}

/// Prints text. Nobody may be there to read it any more.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failures> {
    io::stdout().write_all(text.as_ref()).map_err(Failures::at("standard output"))
}

/// Tells something on stderr. Where nobody can be told, the exit status has to do.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "streamlined: {line}");
}
