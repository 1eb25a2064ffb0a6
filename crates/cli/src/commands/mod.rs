//! One file a command: its arguments and a `run` that does the work through the `kinglet` library.

pub(crate) mod bench;
mod buffers;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod device;
pub(crate) mod embed;
pub(crate) mod explain;
mod given;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod optimize;
mod options;
pub(crate) mod perplexity;
pub(crate) mod profile;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
mod sampling;
pub(crate) mod serve;
pub(crate) mod show;

use anyhow::Result;

use crate::args::Command;
use crate::ui::Ui;

/// Runs the chosen command.
pub(crate) fn run(command: Command, ui: &Ui) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&args, ui),
        Command::Serve(args) => serve::run(&args, ui),
        Command::Embed(args) => embed::run(&args, ui),
        Command::Explain(args) => explain::run(&args, ui),
        Command::Perplexity(args) => perplexity::run(&args, ui),
        Command::Bench(args) => bench::run(&args, ui),
        Command::Profile(args) => profile::run(&args, ui),
        Command::Pull(args) => pull::run(&args, ui),
        Command::List(args) => list::run(&args, ui),
        Command::Convert(args) => convert::run(&args, ui),
        Command::Optimize(args) => optimize::run(&args, ui),
        Command::Show(args) => show::run(&args, ui),
        Command::Rm(args) => rm::run(&args, ui),
        Command::Device(args) => device::run(&args, ui),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, ui),
    }
}
