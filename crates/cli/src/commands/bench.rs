//! `kinglet bench`: how fast a model runs here, and how close that is to what the machine can do.

mod baseline;
mod graph;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::bench::{Bench, Kind, Samples, Test};
use kinglet::device::Ceilings;
use kinglet::graph::cost::{Cost, Math, Rates};
use kinglet::{Compiled, hardware};
use serde_json::{Value, json};

use crate::commands::options::{LoadArgs, graph_at};
use crate::failure::hinted;
use crate::ui::{Steps, Table, Ui};

/// Measure how fast a model runs on this machine
///
/// `pp` is a prompt of so many tokens, `tg` as many tokens one after the other. Each figure stands beside the ceiling that
/// holds it, measured in the same run: memory bandwidth for decoding, arithmetic for prompts and large batches.
///
/// An ONNX or Core ML model is run as a whole (`run`), on inputs that are made up, and timed in milliseconds.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet bench smollm2
  kinglet bench smollm2 --pp 512 --tg 128 --depth 0,512,4096 --reps 10
  kinglet bench smollm2 --batch 1,8
  kinglet bench ./resnet50.onnx --reps 50
  kinglet bench ./detector.onnx --shape x=1,3,640,640
  kinglet --json bench smollm2 > before.json
  kinglet bench smollm2 --baseline before.json     fails when something became slower

A test counts as slower when its speed and its share of the ceiling both fell by more than --tolerance: where
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
    /// Sequences decoded together; for graphs, the size of an outermost dimension that the model leaves open
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Repetitions of each test, after some to warm up [default: 5; for graphs, 30]
    #[arg(long, value_name = "N", value_parser = reps)]
    reps: Option<usize>,
    /// Shape of a graph's input (may be given several times)
    #[arg(long, value_name = "NAME=N,N,…", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Compare with the JSON of an earlier run, and fail on a regression
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower a test may be than the baseline, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,
    #[command(flatten)]
    load: LoadArgs,
}

/// What was measured.
pub(super) struct TestName {
    /// `pp512`, `tg128` or `run`.
    pub(super) name: String,
    pub(super) batch: usize,
    pub(super) depth: usize,
}

impl TestName {
    pub(super) fn of(test: &Test) -> Self {
        Self { name: test.name(), batch: test.batch, depth: test.depth }
    }

    /// A whole run of a graph.
    pub(super) fn run(batch: usize) -> Self {
        Self { name: "run".into(), batch, depth: 0 }
    }
}

impl std::fmt::Display for TestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let depth = if self.name == "run" { String::new() } else { format!(" at depth {}", self.depth) };
        write!(f, "{}{depth}, batch {}", self.name, self.batch)
    }
}

/// In what a test's figures are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    TokensPerSecond,
    Milliseconds,
}

impl Unit {
    /// The key in reports.
    fn key(self) -> &'static str {
        if self == Self::Milliseconds { "ms" } else { "tok_s" }
    }
}

/// One test's outcome.
struct Outcome {
    test: TestName,
    unit: Unit,
    samples: Samples,
    percent: f64,
    ceiling: &'static str,
}

/// All outcomes, and what they were measured on.
struct Report<'a> {
    model: &'a str,
    outcomes: Vec<Outcome>,
    ceilings: Ceilings,
    threads: usize,
    load_ms: f64,
    peak: Option<u64>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let baseline = args.baseline.as_deref().map(baseline::read).transpose()?;
    let report = match graph_at(&args.model, ui)? {
        Some(path) => graph::measure(args, &path, ui)?,
        None => measure(args, ui)?,
    };
    let value = report.json();
    if ui.json() {
        ui.value(&value)?;
    } else {
        report.print(ui)?;
    }
    baseline.map_or(Ok(()), |before| baseline::compare(&before, &value, args.tolerance, ui))
}

fn measure<'a>(args: &'a Args, ui: &Ui) -> Result<Report<'a>> {
    let tests = tests(args);
    let sequences = tests.iter().map(|test| test.batch).max().unwrap_or(1);
    let (_, files, options) = args.load.open(&args.model, sequences, ui)?;
    let started = Instant::now();
    let compiled = Compiled::new(&files, &options)?;
    tests.iter().try_for_each(|test| check_room(test, compiled.context))?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let threads = options.threads.unwrap_or_else(hardware::cores);
    let mut bench = Bench::new(compiled);
    let steps = Steps::new(ui, "repetition");
    let reps = args.reps.unwrap_or(5);
    let (all, mut done) = (tests.len() * (reps + 1), 0);
    let mut measured = Vec::new();
    for test in tests {
        let rates = bench.run(&test, reps, |_, rate| {
            done += 1;
            steps.set(done, all, &format!("{} {rate:.1} tokens/s", test.name()));
        })?;
        measured.push((test, rates));
    }
    drop(steps);
    let peak = hardware::peak_memory();
    let ceilings = ceilings(threads, options.isa.as_deref())?;
    let judged = measured.into_iter().map(|(test, rates)| judge(&bench, &test, rates, &ceilings));
    let outcomes = judged.collect::<Result<Vec<_>>>()?;
    Ok(Report { model: &args.model, outcomes, ceilings, threads, load_ms, peak })
}

fn ceilings(threads: usize, isa: Option<&str>) -> Result<Ceilings> {
    Ceilings::measure(threads, isa, &clock(Instant::now())).context("measuring the machine")
}

/// `NAME=1,3,224,224`.
pub(super) fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let parts = text.rsplit_once('=').and_then(|(name, sizes)| {
        let sizes: Option<Vec<usize>> = sizes.split(',').map(|n| n.trim().parse().ok()).collect();
        Some((name.to_owned(), sizes?))
    });
    parts.ok_or_else(|| "expected NAME=1,3,224,224".into())
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

/// How close a test came to what holds it.
fn judge(bench: &Bench, test: &Test, samples: Samples, ceilings: &Ceilings) -> Result<Outcome> {
    let cost = bench.cost(test)?;
    let device = ceilings.rates(cost.memory_bytes as u64, &clock(Instant::now()))?;
    let tokens: usize = bench.typical(test).iter().map(|(_, len)| len).sum();
    let (percent, ceiling) = share(&cost, samples.median() / tokens as f64, &device);
    Ok(Outcome { test: TestName::of(test), unit: Unit::TokensPerSecond, samples, percent, ceiling })
}

/// Which ceiling holds `runs` a second of this cost, and how close they come in percent: the larger of the shares of
/// bandwidth and of arithmetic.
fn share(cost: &Cost, runs: f64, device: &Rates) -> (f64, &'static str) {
    let peak = match cost.math {
        Math::Float => device.float,
        Math::Bf16 => device.bf16,
        Math::Int8 => device.int8,
        Math::Int16 => device.int16,
    };
    let memory = cost.memory_bytes * runs / device.memory;
    let arithmetic = 2.0 * cost.multiply_adds * runs / peak;
    if memory > arithmetic { (100.0 * memory, "memory") } else { (100.0 * arithmetic, "arithmetic") }
}

impl Report<'_> {
    fn print(&self, ui: &Ui) -> Result<()> {
        let graph = self.outcomes.iter().any(|outcome| outcome.unit == Unit::Milliseconds);
        let (unit, digits) = if graph { (">ms", 3) } else { (">tokens/s", 1) };
        let mut table =
            Table::new(&["test", ">depth", ">batch", unit, ">10 %", ">90 %", ">of ceiling", "held by"]);
        for outcome in &self.outcomes {
            let figure = |q: f64| format!("{:.digits$}", outcome.samples.quantile(q));
            table.row([
                outcome.test.name.clone(),
                outcome.test.depth.to_string(),
                outcome.test.batch.to_string(),
                figure(0.5),
                figure(0.1),
                figure(0.9),
                format!("{:.0} %", outcome.percent),
                outcome.ceiling.to_owned(),
            ]);
        }
        ui.line(table)?;
        let Self { model, ceilings, load_ms, .. } = self;
        let memory = ceilings.read.last().map_or(0.0, |read| read.rate.best);
        ui.line(format_args!(
            "\n{model} on {} with {} threads, loaded in {load_ms:.0} ms; ceilings: {:.0} int8 GOP/s, {:.0} f32 GFLOP/s, {memory:.0} GB/s",
            ceilings.level, ceilings.threads, ceilings.int8_dot.best, ceilings.f32_fma.best,
        ))
    }

    fn json(&self) -> Value {
        let result = |outcome: &Outcome| {
            let samples = &outcome.samples;
            let mut value = json!({
                "test": outcome.test.name,
                "batch": outcome.test.batch,
                "depth": outcome.test.depth,
                "repetitions": samples.all(),
                "percent_of_ceiling": outcome.percent,
                "ceiling": outcome.ceiling,
            });
            value[outcome.unit.key()] = json!({
                "median": samples.median(),
                "p10": samples.quantile(0.1),
                "p90": samples.quantile(0.9),
                "p99": samples.quantile(0.99),
            });
            value
        };
        json!({
            "model": self.model,
            "threads": self.threads,
            "ceilings": super::device::json::ceilings_json(&self.ceilings),
            "peak_rss_mb": self.peak.map(|bytes| bytes as f64 / 1e6),
            "load_ms": self.load_ms,
            "results": self.outcomes.iter().map(result).collect::<Vec<_>>(),
        })
    }
}
