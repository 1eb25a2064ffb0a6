//! The `kinglet` command.
//!
//! Contract: results go to standard output (with `--json` as one JSON value), everything else to standard error. Exit
//! status 0 is success, 1 a failure, 2 a mistake in the command line, 130 an interruption by Ctrl-C.
//! Each subcommand is one file under `commands/`: its arguments and a `run(args, ui)`.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod interrupt;
mod ui;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::ui::Ui;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(&cli.global);
    match commands::run(cli.command, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, &ui),
    }
}
