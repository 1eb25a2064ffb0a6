//! One file a command: its arguments and a `run` that does the work through the `kinglet` library.

pub(crate) mod completions;
pub(crate) mod man;

use anyhow::Result;

use crate::args::Command;
use crate::ui::Ui;

/// Runs the chosen command.
pub(crate) fn run(command: Command, ui: &Ui) -> Result<()> {
    match command {
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, ui),
    }
}
