//! `kinglet man`: the manual pages, one for the program and one for each command.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::Cli;
use crate::ui::Ui;

/// Print the manual page, or write one for each command
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet man | man -l -                         read it
  kinglet man --dir ~/.local/share/man/man1      install all pages")]
pub(crate) struct Args {
    /// Write kinglet.1, kinglet-pull.1, … into this folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return std::io::stdout().write_all(&page).context("standard output");
    };
    let here = || format!("cannot write manual pages into {}", dir.display());
    std::fs::create_dir_all(dir).with_context(here)?;
    clap_mangen::generate_to(command, dir).with_context(here)?;
    ui.note(format_args!("manual pages written to {}", dir.display()));
    Ok(())
}
