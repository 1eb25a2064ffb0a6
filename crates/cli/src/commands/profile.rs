//! `kinglet profile`: where the time goes, step by step, each beside its own ceiling.

mod svg;
mod text;
mod trace;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::bench::{Bench, Kind, Test};
use kinglet::device::Ceilings;
use kinglet::graph::PlanReport;
use kinglet::graph::cost::Rates;
use kinglet::graphs::{BufferStats, GraphBench, GraphModel};
use kinglet::profile::{Entry, Profile, Run};
use kinglet::{Compiled, hardware};
use serde_json::{Value, json};

use crate::commands::bench::{TestName, shape};
use crate::commands::buffers;
use crate::commands::options::{LoadArgs, graph_at};
use crate::ui::Ui;

/// Show where a model's time goes, step by step
///
/// A prompt and a number of decoded tokens run with a clock between all steps. Each step stands beside the least time that
/// it could take here: by the memory bandwidth at that working set, by the caches, by the arithmetic it uses, or by a
/// barrier between the threads, all measured in the same run. Of an ONNX or Core ML model, one whole run is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet profile smollm2
  kinglet profile smollm2 --pp 0 --tg 64 --depth 4096    decoding far into a context
  kinglet profile ./resnet50.onnx --reps 30              a graph
  kinglet profile smollm2 --steps                        every step, not only sums
  kinglet profile smollm2 --svg profile.svg              a picture, for a browser
  kinglet profile smollm2 --trace profile.json           for Perfetto or chrome://tracing")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// Length of the prompt; 0 for none
    #[arg(long, value_name = "N", default_value_t = 512)]
    pp: usize,
    /// Number of tokens to decode; 0 for none
    #[arg(long, value_name = "N", default_value_t = 32)]
    tg: usize,
    /// Tokens that sequences hold before
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Sequences decoded together; for graphs, the size of an outermost dimension that the model leaves open
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Shape of a graph's input (may be given several times)
    #[arg(long, value_name = "NAME=N,N,…", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Repetitions, of which the one with the middle time is shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    reps: usize,
    /// Show every step, in running order
    #[arg(long)]
    steps: bool,
    /// Write all steps with their times, as Chrome and Perfetto read them
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

/// One profiled test.
struct Profiled {
    test: TestName,
    runs: Vec<Run>,
    plan: PlanReport,
    rates: Rates,
    profile: Profile,
    /// Of graphs: where buffers came from, after warm-up.
    buffers: Option<BufferStats>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let graph = graph_at(&args.model, ui)?;
    let (threads, level, all) = match &graph {
        Some(path) => graph_run(args, path, ui)?,
        None => decoder(args, ui)?,
    };
    let path = graph.as_deref().unwrap_or(Path::new(&args.model));
    let name = path.file_name().map_or(args.model.as_str().into(), |last| last.to_string_lossy());
    let title = format!("{name} on {level} with {threads} thread{}", if threads == 1 { "" } else { "s" });
    write(args.trace.as_deref(), || trace::render(&title, &all), ui)?;
    write(args.svg.as_deref(), || svg::render(&title, &all), ui)?;
    if ui.json() {
        return ui.value(&as_json(&name, threads, level, &all));
    }
    all.iter().try_for_each(|one| text::print(&title, one, args.steps, ui))
}

/// Threads, instruction set, and what was measured.
type Measured = (usize, &'static str, Vec<Profiled>);

fn decoder(args: &Args, ui: &Ui) -> Result<Measured> {
    let (_, files, options) = args.load.open(&args.model, args.batch.max(1), ui)?;
    let compiled = Compiled::new(&files, &options)?;
    let threads = options.threads.unwrap_or_else(hardware::cores);
    let mut bench = Bench::new(compiled);
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let ceilings = Ceilings::measure(threads, options.isa.as_deref(), &clock)?;
    let mut all = Vec::new();
    for test in tests(args) {
        let runs = bench.profile(&test, args.reps)?;
        let rates = ceilings.rates(bench.cost(&test)?.memory_bytes as u64, &clock)?;
        let plan = bench.report(&bench.typical(&test))?;
        let profile = Profile::new(&runs, &rates, |seqs| bench.report(seqs))?;
        all.push(Profiled { test: TestName::of(&test), runs, plan, rates, profile, buffers: None });
    }
    Ok((threads, ceilings.level, all))
}

fn graph_run(args: &Args, path: &Path, ui: &Ui) -> Result<Measured> {
    let options = args.load.plain(ui);
    let threads = options.threads.unwrap_or_else(hardware::cores);
    let mut bench = GraphBench::new(GraphModel::open(path, &options)?, &args.shape, args.batch)?;
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let ceilings = Ceilings::measure(threads, options.isa.as_deref(), &clock)?;
    let (run, buffers) = bench.profile(args.reps)?;
    let runs = vec![run];
    let plan = bench.report();
    let weights: f64 = plan.steps.iter().map(|step| step.cost(&[]).memory_bytes).sum();
    let rates = ceilings.rates(weights as u64, &clock)?;
    let profile = Profile::new(&runs, &rates, |_| Ok::<_, anyhow::Error>(plan.clone()))?;
    let profile = Profile { by_kernel: true, ..profile };
    let one =
        Profiled { test: TestName::run(args.batch), runs, plan, rates, profile, buffers: Some(buffers) };
    Ok((threads, ceilings.level, vec![one]))
}

fn tests(args: &Args) -> Vec<Test> {
    let depth = args.depth;
    let prompt = Test { kind: Kind::Prompt, tokens: args.pp, batch: 1, depth };
    let decode = Test { kind: Kind::Decode, tokens: args.tg, batch: args.batch.max(1), depth };
    [prompt, decode].into_iter().filter(|test| test.tokens > 0).collect()
}

fn write(path: Option<&Path>, content: impl FnOnce() -> String, ui: &Ui) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, content()).with_context(|| path.display().to_string())?;
    ui.note(format_args!("written: {}", path.display()));
    Ok(())
}

fn as_json(model: &str, threads: usize, isa: &str, all: &[Profiled]) -> Value {
    let one = |profiled: &Profiled| {
        let Profiled { test, rates, profile, buffers, .. } = profiled;
        json!({
            "test": test.name,
            "batch": test.batch,
            "depth": test.depth,
            "runs": profile.runs,
            "wall_ms": profile.wall * 1e3,
            "steps_ms": profile.seconds() * 1e3,
            "least_ms": profile.least() * 1e3,
            "buffers": buffers.as_ref().map(buffers::as_json),
            "ceilings": {
                "memory_gb_s": rates.memory / 1e9,
                "f32_gflops": rates.float / 1e9,
                "bf16_gflops": rates.bf16 / 1e9,
                "int8_gops": rates.int8 / 1e9,
                "int16_gops": rates.int16 / 1e9,
                "barriers_m_s": rates.steps / 1e6,
            },
            "kinds": profile.kinds().iter().map(entry_json).collect::<Vec<_>>(),
            "steps": profile.steps.iter().map(entry_json).collect::<Vec<_>>(),
        })
    };
    json!({ "model": model, "threads": threads, "isa": isa, "results": all.iter().map(one).collect::<Vec<_>>() })
}

/// A step over all runs of its test.
fn entry_json(entry: &Entry) -> Value {
    json!({
        "name": entry.name,
        "kernel": entry.kernel,
        "steps": entry.count,
        "ms": entry.seconds * 1e3,
        "least_ms": entry.least * 1e3,
        "ceiling": entry.ceiling.name(),
        "percent_of_ceiling": 100.0 * entry.share(),
        "memory_bytes": entry.cost.memory_bytes,
        "activation_bytes": entry.cost.activation_bytes,
        "operations": 2.0 * entry.cost.multiply_adds,
    })
}
