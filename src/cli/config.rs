//! `config …`, `man` and `completions`: what the program says about itself.

use std::{fs, path::Path};

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;

use super::{Cli, Failures, Place, control, print, say};
use crate::config::document;

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration: print every fault with its place and what is expected there.
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Print the settings in force and where each was set; secrets are hidden.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Print an example configuration file that explains every setting.
    Example,
}

pub fn run(command: &ConfigCommand) -> Result<(), Failures> {
    match command {
        ConfigCommand::Check { place } => {
            let (config, origins) = place.explain(None)?;
            control::read_tls(&config)?;
            let said = origins.len();
            say(&format!("No faults; {said} settings are set, the others have their defaults."))
        }
        ConfigCommand::Show { place } => print(document::in_force(&place.explain(None)?.1)),
        ConfigCommand::Example => print(document::example()),
    }
}

/// Writes a manual page for the program and for each of its commands.
pub fn manual(dir: &Path) -> Result<(), Failures> {
    let written = fs::create_dir_all(dir);
    let written = written.and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(Failures::at(dir.display()))
}

/// Prints what a shell needs to complete commands.
pub fn completions(shell: Shell) -> Result<(), Failures> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "streamlined", &mut text);
    print(text)
}
