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
        /// Address and port to listen on; port 0 picks a free port.
        #[arg(long, value_name = "ADDR", value_parser = address)]
        listen: Option<String>,
    },
    /// Free disk space: remove expired uploads, deleted content and leftovers of crashes.
    Gc {
        #[command(flatten)]
        place: Place,
    },
    /// Read all stored content and check it against its hashes; exit status 1 when some of it is
    /// damaged or unreadable.
    Scrub {
        #[command(flatten)]
        place: Place,
    },
    /// Check the index itself, and that it agrees with the journal and the files on the disk; exit
    /// status 1 when something is wrong.
    Fsck {
        /// Rebuild the index from the journal first, even if changes are lost; no daemon may run.
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Back up the data and the keys, also while the daemon works; a later backup to the same
    /// directory copies only what is new.
    Backup {
        /// Directory to write the backup to.
        dir: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Create a new data directory from a backup, and check it.
    Restore {
        /// Directory that holds the backup.
        dir: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    Import(import::Import),
    /// Show the log filter of the running daemon, or change it until the configuration is read
    /// again.
    Log {
        /// The new filter, such as `info` or `info,streamlined::access=off`; without it, the filter
        /// in force is only shown.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        filter: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    #[command(flatten)]
    Client(client::ClientCommand),
    /// Create, list, rotate and revoke service tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, change and delete users.
    #[command(subcommand)]
    User(user::UserCommand),
    /// List, rotate and import signing keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check the settings, show those in force, or print an example file.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write the manual pages to a directory.
    Man {
        /// Directory to write to; it is created if it is missing.
        dir: PathBuf,
    },
    /// Print a script with which a shell completes these commands.
    Completions {
        /// The shell that will run the script.
        shell: Shell,
    },
    /// Verify the audit log, which records who did what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Verify signed receipts of stored files.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Read the whole audit log and verify it; exit status 1 when lines were cut out, added or
    /// edited.
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
    /// Loads the configuration by the flags and the environment.
    fn configure(&self) -> Result<Config, Failures> {
        self.explain(None).map(|(config, _)| config)
    }

    /// As [`Place::configure`], together with the origin of each setting. `listen` is the flag of
    /// that name, which only the daemon has.
    fn explain(&self, listen: Option<String>) -> Result<(Config, Origins), Failures> {
        let (config, data_dir) = (self.config.clone(), self.data_dir.clone());
        let flags = Flags { config, data_dir, listen };
        layers::load(&flags, &std::env::vars_os().collect()).map_err(Failures)
    }
}

/// Runs the program. The exit status is 0 for success, 1 for a failure, 2 for wrong usage.
pub fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return misused(&error),
    };
    // The files that these commands write are the user's own and keep the user's umask.
    if !matches!(command, Command::Client(_) | Command::Man { .. }) {
        // A failure is ignored here; the daemon repeats the call once it has a log, and warns.
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

/// Prints help, or what is wrong with the command line, in one line as for every failure.
fn misused(error: &clap::Error) -> ExitCode {
    let is_asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        // Tips and the usage follow in separate paragraphs.
        let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
        let why = lines.collect::<Vec<_>>().join(" ");
        tell(&format!("{}; see --help", why.trim_start_matches("error: ")));
    }
    if is_asked { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Makes new files private to their owner, and turns off core dumps, which would contain keys and
/// tokens.
fn keep_private() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// What went wrong, one message a line.
struct Failures(Vec<String>);

/// A single failure, with `why` as its message.
fn failure(why: impl Display) -> Failures {
    Failures(vec![why.to_string()])
}

impl Failures {
    /// A single failure, with `what` was being done.
    fn at<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| failure(format!("{what}: {error}"))
    }

    /// As [`Failures::at`], for a file or directory at `path`: errors of the system do not name it.
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

/// Prints text. Fails if nobody reads standard output any more.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failures> {
    io::stdout().write_all(text.as_ref()).map_err(Failures::at("standard output"))
}

/// Prints a line on stderr. If that fails, only the exit status is left to report a failure.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "streamlined: {line}");
}
