//! `kinglet device`: what this machine has, what Kinglet uses of it, and what it can do at best.

pub(super) mod json;
mod text;

use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::device::{Ceilings, Device};
use kinglet::hardware;

use crate::ui::Ui;

/// Show what this machine has, and what Kinglet uses of it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet device
  kinglet device --measure                   what it can do at best, in about a second
  kinglet device --kernels                   which weights are fast on which instruction set
  kinglet device --json | jq .cpu.isas       everything, for programs")]
pub(crate) struct Args {
    /// Measure the ceilings: arithmetic, caches, memory
    #[arg(long, short)]
    measure: bool,
    /// Threads to measure with [default: one a physical core]
    #[arg(long, short, value_name = "N", requires = "measure", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Instruction set to measure with [default: the best there is]
    #[arg(long, value_name = "ISA", env = "KINGLET_ISA")]
    isa: Option<String>,
    /// Print the kernels instead: types of weights and instruction sets (with --json: beside the rest)
    #[arg(long, short)]
    kernels: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let (device, used) = (Device::probe(), hardware::instruction_set(args.isa.as_deref())?);
    let ceilings = args.measure.then(|| measure(args, ui)).transpose()?;
    if ui.json() {
        return ui.value(&json::everything(&device, used, ceilings.as_ref(), args.kernels));
    }
    text::print(&device, used, ceilings.as_ref(), args.kernels, ui)
}

fn measure(args: &Args, ui: &Ui) -> Result<Ceilings> {
    let count = args.threads.map_or_else(hardware::cores, usize::from);
    ui.note(format_args!("measuring with {}; other programs that run now lower the figures", threads(count)));
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    Ceilings::measure(count, args.isa.as_deref(), &clock).context("cannot measure")
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".into() } else { format!("{count} threads") }
}
