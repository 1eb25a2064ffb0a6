//! `kinglet bench`: how fast a model runs here, and how close that is to what the machine can do.

mod baseline;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::bench::{Bench, Kind, Rates, Test};
use kinglet::device::Ceilings;
use kinglet::graph::cost::Math;
use kinglet::{Compiled, hardware};
use serde_json::{Value, json};

use crate::commands::options::LoadArgs;
use crate::failure::hinted;
use crate::ui::{Steps, Table, Ui};

/// Measure how fast a model runs on this machine
///
/// `pp` is a prompt of so many tokens, `tg` as many tokens one after the other. Each figure stands beside the ceiling that
/// holds it, measured in the same run: memory bandwidth for decoding, arithmetic for prompts and large batches.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet bench smollm2
  kinglet bench smollm2 --pp 512 --tg 128 --depth 0,512,4096 --reps 10
  kinglet bench smollm2 --batch 1,8
  kinglet --json bench smollm2 > before.json
  kinglet bench smollm2 --baseline before.json     fails when something became slower

A test counts as slower when its tokens per second and its share of the ceiling both fell by more than --tolerance: where
only the first did, the machine itself was slower.")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// Lengths of prompts; 0 for none
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "512")]
    pp: Vec<usize>,
    /// Numbers of tokens to decode; 0 for none
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "128")]
    tg: Vec<usize>,
    /// Tokens that sequences hold before
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Sequences decoded together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Repetitions of each test, after one to warm up
    #[arg(long, value_name = "N", default_value = "5", value_parser = reps)]
    reps: usize,
    /// Compare with the JSON of an earlier run, and fail on a regression
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower a test may be than the baseline, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,
    #[command(flatten)]
    load: LoadArgs,
}

/// One test's outcome.
struct Outcome {
    test: Test,
    rates: Rates,
    percent: f64,
    ceiling: &'static str,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let baseline = args.baseline.as_deref().map(baseline::read).transpose()?;
    let tests = tests(args);
    let sequences = tests.iter().map(|test| test.batch).max().unwrap_or(1);
    let (name, files, options) = args.load.open(&args.model, sequences, ui)?;
    let started = Instant::now();
    let compiled = Compiled::new(&files, &options)?;
    tests.iter().try_for_each(|test| check_room(test, compiled.context))?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let threads = options.threads.unwrap_or_else(hardware::cores);
    let mut bench = Bench::new(compiled);
    let steps = Steps::new(ui, "repetition");
    let (all, mut done) = (tests.len() * (args.reps + 1), 0);
    let mut outcomes = Vec::new();
    for test in tests {
        let rates = bench.run(&test, args.reps, |_, rate| {
            done += 1;
            steps.set(done, all, &format!("{} {rate:.1} tokens/s", test.name()));
        })?;
        outcomes.push((test, rates));
    }
    drop(steps);
    let peak = hardware::peak_memory();
    let isa = options.isa.as_deref();
    let ceilings = Ceilings::measure(threads, isa, &clock(started)).context("measuring the machine")?;
    let judged = outcomes.into_iter().map(|(test, rates)| judge(&bench, test, rates, &ceilings));
    let outcomes = judged.collect::<Result<Vec<_>>>()?;
    let report = report(args, &outcomes, &ceilings, (load_ms, peak), threads);
    if ui.json() {
        ui.value(&report)?;
    } else {
        print(&name, &outcomes, &ceilings, load_ms, ui)?;
    }
    baseline.map_or(Ok(()), |before| baseline::compare(&before, &report, args.tolerance, ui))
}

/// A number of repetitions: at least one.
fn reps(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number of at least 1 is expected".into())
}

fn check_room(test: &Test, context: usize) -> Result<()> {
    let needed = test.context();
    if needed <= context {
        return Ok(());
    }
    let message = format!(
        "{} at depth {} takes {needed} tokens of context, there are {context}",
        test.name(),
        test.depth
    );
    Err(hinted(
        message,
        "use smaller --pp, --tg and --depth, or a larger --context as far as the model was trained",
    ))
}

/// Nanoseconds since `start`.
fn clock(start: Instant) -> impl Fn() -> u64 {
    move || start.elapsed().as_nanos() as u64
}

fn tests(args: &Args) -> Vec<Test> {
    let mut tests = Vec::new();
    for &depth in &args.depth {
        for &tokens in args.pp.iter().filter(|n| **n > 0) {
            tests.push(Test { kind: Kind::Prompt, tokens, batch: 1, depth });
        }
        for &tokens in args.tg.iter().filter(|n| **n > 0) {
            let sequences = args.batch.iter().filter(|batch| **batch > 0);
            tests.extend(sequences.map(|&batch| Test { kind: Kind::Decode, tokens, batch, depth }));
        }
    }
    tests
}

/// Which ceiling holds a test, and how close it came: the larger of the shares of bandwidth and of arithmetic.
fn judge(bench: &Bench, test: Test, rates: Rates, ceilings: &Ceilings) -> Result<Outcome> {
    let cost = bench.cost(&test)?;
    let device = ceilings.rates(cost.memory_bytes as u64, &clock(Instant::now()))?;
    let tokens: usize = bench.typical(&test).iter().map(|(_, len)| len).sum();
    let runs = rates.median() / tokens as f64; // a second
    let peak = if cost.math == Math::Int8 { device.int8 } else { device.float };
    let memory = cost.memory_bytes * runs / device.memory;
    let arithmetic = 2.0 * cost.multiply_adds * runs / peak;
    let (share, ceiling) = if memory > arithmetic { (memory, "memory") } else { (arithmetic, "arithmetic") };
    Ok(Outcome { test, rates, percent: 100.0 * share, ceiling })
}

fn print(name: &str, outcomes: &[Outcome], ceilings: &Ceilings, load_ms: f64, ui: &Ui) -> Result<()> {
    let mut table =
        Table::new(&["test", ">depth", ">batch", ">tokens/s", ">10 %", ">90 %", ">of ceiling", "held by"]);
    for outcome in outcomes {
        let rates = &outcome.rates;
        table.row([
            outcome.test.name(),
            outcome.test.depth.to_string(),
            outcome.test.batch.to_string(),
            format!("{:.1}", rates.median()),
            format!("{:.1}", rates.quantile(0.1)),
            format!("{:.1}", rates.quantile(0.9)),
            format!("{:.0} %", outcome.percent),
            outcome.ceiling.to_owned(),
        ]);
    }
    ui.line(table)?;
    let memory = ceilings.read.last().map_or(0.0, |read| read.rate.best);
    ui.line(format_args!(
        "\n{name} on {} with {} threads, loaded in {load_ms:.0} ms; ceilings: {:.0} int8 GOP/s, {:.0} f32 GFLOP/s, {memory:.0} GB/s",
        ceilings.level, ceilings.threads, ceilings.int8_dot.best, ceilings.f32_fma.best,
    ))
}

fn report(
    args: &Args,
    outcomes: &[Outcome],
    ceilings: &Ceilings,
    (load_ms, peak): (f64, Option<u64>),
    threads: usize,
) -> Value {
    let quantiles = |rates: &Rates| {
        json!({
            "median": rates.median(),
            "p10": rates.quantile(0.1),
            "p90": rates.quantile(0.9),
            "p99": rates.quantile(0.99),
        })
    };
    let result = |outcome: &Outcome| {
        json!({
            "test": outcome.test.name(),
            "batch": outcome.test.batch,
            "depth": outcome.test.depth,
            "tok_s": quantiles(&outcome.rates),
            "repetitions": outcome.rates.all(),
            "percent_of_ceiling": outcome.percent,
            "ceiling": outcome.ceiling,
        })
    };
    json!({
        "model": args.model,
        "threads": threads,
        "ceilings": super::device::json::ceilings_json(ceilings),
        "peak_rss_mb": peak.map(|bytes| bytes as f64 / 1e6),
        "load_ms": load_ms,
        "results": outcomes.iter().map(result).collect::<Vec<_>>(),
    })
}
