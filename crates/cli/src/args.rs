//! The command line: what every command shares, and the list of commands.

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands;

/// Run AI models on this machine.
#[derive(Parser)]
#[command(name = "kinglet", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  kinglet run smollm2 \"Why is the sky blue?\"   answer once (the model is fetched first)
  kinglet run smollm2                          chat
  kinglet serve smollm2                        answer over HTTP, as OpenAI's API does
  kinglet pull qwen2.5:0.5b                    fetch a model for later
  kinglet list                                 what is here
  kinglet show smollm2                         what a model is, and the memory it needs

A model's name is one like smollm2 or qwen2.5:0.5b, org/repo:Q4_K_M on the Hugging Face hub,
https://…/x.gguf, or the path of a file or folder.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print results, and errors, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours (the variable NO_COLOR is honoured too)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Print results and errors only: no progress, no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more about what happens (twice: still more)
    #[arg(long, short, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

/// When to use colours.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Run(Box<commands::run::Args>),
    Serve(commands::serve::Args),
    Pull(commands::pull::Args),
    List(commands::list::Args),
    Show(commands::show::Args),
    Rm(commands::rm::Args),
    Convert(commands::convert::Args),
    #[command(visible_alias = "optimise")]
    Optimize(commands::optimize::Args),
    Device(commands::device::Args),
    Embed(commands::embed::Args),
    Explain(commands::explain::Args),
    Bench(commands::bench::Args),
    Profile(commands::profile::Args),
    Perplexity(commands::perplexity::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}
