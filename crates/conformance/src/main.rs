//! `kinglet-conformance onnx --data DIR`: runs the ONNX backend tests and counts what passes.
//!
//! Each case runs in every mode (raw, planned, fused, and raw after it was written and read again). A case that is known to fail stands in `ignored.txt` with the reason; the run
//! fails when an ignored case passes, and when any other case fails.
#![forbid(unsafe_code)]

mod case;
mod compare;
mod data;
mod ignored;
mod odd;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs published conformance suites.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// The ONNX backend tests.
    Onnx {
        /// The folder that holds `node`, `simple`, `light` and so on, or one above it.
        #[arg(long)]
        data: PathBuf,
        /// Print counts as JSON.
        #[arg(long)]
        json: bool,
        /// Only cases whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// Feed every model with empty, odd and huge inputs instead, and fail when one panics.
        #[arg(long)]
        odd: bool,
        /// Keep the models as Kinglet writes them in this folder.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { suite: Suite::Onnx { data, json, filter, odd, keep } } = Args::parse();
    case::catch_panics();
    let root = suite::find(&data)?;
    let results = match odd {
        true => suite::run_odd(&root, &filter)?,
        false => suite::run(&root, &filter, keep.as_deref())?,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&suite::json(&results))?);
    }
    let surprises: Vec<String> = results.iter().flat_map(|s| s.surprises.iter().cloned()).collect();
    surprises.iter().for_each(|line| eprintln!("{line}"));
    for s in &results {
        let written = s.passed - s.unwritten.len();
        let ignored = s.ignored.len();
        eprintln!(
            "{}: {} of {} pass, {written} of them also when written, {ignored} ignored",
            s.name, s.passed, s.total
        );
    }
    Ok(if surprises.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
