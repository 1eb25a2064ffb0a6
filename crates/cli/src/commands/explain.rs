//! `kinglet explain`: the plan as it will run.

use std::time::Instant;

use anyhow::Result;
use kinglet::device::Ceilings;
use kinglet::graph::cost::{Ceiling, Rates};
use kinglet::graph::{PlanReport, StepReport};
use kinglet::graphs::{GraphBench, GraphModel};
use kinglet::{Compiled, Size};
use serde_json::{Value, json};

use crate::commands::bench::shape;
use crate::commands::options::{LoadArgs, graph_at};
use crate::ui::{Table, Ui};

/// Show the graph of a model as it will run
///
/// One line a step, in running order: what it makes, the kernel and the formats it works on, the weight bytes it reads,
/// where its results lie in the arena, and what was fused into it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet explain smollm2                    a step of decoding: one token
  kinglet explain smollm2 --rows 512         a prompt of 512 tokens
  kinglet explain smollm2 --layer 3          one block
  kinglet explain smollm2 --cost             what each step should cost here; `kinglet profile`: what it did cost
  kinglet explain ./detector.onnx            a graph model, at its own sizes
  kinglet explain ./detector.onnx --shape x=1,3,640,640
  kinglet --json explain smollm2             for machines")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// Tokens of the batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// Tokens before the batch
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Measure this device, and say what each step should cost on it at least
    #[arg(long)]
    cost: bool,
    /// Sizes of an input of a graph model (may be given several times)
    #[arg(long, value_name = "NAME=N,N,…", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Only the steps of this block
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    #[command(flatten)]
    load: LoadArgs,
}

/// A plan, and what it is for.
struct Planned {
    name: String,
    report: PlanReport,
    /// Tokens of the batch; none of a graph model.
    rows: Option<usize>,
    isa: Option<String>,
}

fn planned(args: &Args, ui: &Ui) -> Result<Planned> {
    if let Some(path) = graph_at(&args.model, ui)? {
        let options = args.load.plain(ui);
        let bench = GraphBench::planned_only(GraphModel::open(&path, &options)?, &args.shape)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Planned { name, report: bench.report(), rows: None, isa: options.isa });
    }
    let (name, files, options) = args.load.open(&args.model, 1, ui)?;
    let compiled = Compiled::new(&files, &options)?;
    let rows = args.rows.clamp(1, compiled.executable.max_rows());
    Ok(Planned { name, report: compiled.executable.report(&[rows, 1])?, rows: Some(rows), isa: options.isa })
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let Planned { name, report, rows, isa } = planned(args, ui)?;
    let seqs: Vec<(usize, usize)> = rows.map(|rows| (args.depth, rows)).into_iter().collect();
    let rates = args.cost.then(|| rates(&report, &seqs, isa.as_deref())).transpose()?;
    let least = |step: &StepReport| rates.as_ref().map(|rates| rates.least(&step.cost(&seqs)));
    let prefix = args.layer.map(|layer| format!("blk.{layer}."));
    let within = |step: &&StepReport| prefix.as_ref().is_none_or(|p| step.name.starts_with(p.as_str()));
    let shown: Vec<&StepReport> = report.steps.iter().filter(within).collect();
    if ui.json() {
        return ui.value(&as_json(&name, rows, &report, &shown, &least));
    }
    let mut columns = vec!["step", "kernel", "weights", "arena"];
    columns.extend(args.cost.then_some([">at least", "held by"]).into_iter().flatten());
    columns.push("note");
    let mut table = Table::new(&columns);
    for step in &shown {
        let weights = Size(step.weight_bytes as u64).to_string();
        let weights = if step.weight_bytes == 0 { String::new() } else { weights };
        let mut row = vec![step.name.clone(), step.kernel.clone(), weights, places(step)];
        if let Some((seconds, ceiling)) = least(step) {
            row.extend([format!("{:.1} µs", seconds * 1e6), ceiling.name().into()]);
        }
        row.push(step.note.clone());
        table.row(row);
    }
    ui.line(table)?;
    ui.line(format_args!("\n{name}: {}", summary(rows, &report)))?;
    let all = report.steps.iter().filter_map(least).map(|(seconds, _)| seconds).sum::<f64>();
    if args.cost {
        ui.line(format_args!("all steps: at least {:.3} ms by what this device can do", all * 1e3))?;
    }
    Ok(())
}

/// What the device can do at the working set of this plan, measured now.
fn rates(report: &PlanReport, seqs: &[(usize, usize)], isa: Option<&str>) -> Result<Rates> {
    let start = Instant::now();
    let clock = || start.elapsed().as_nanos() as u64;
    let bytes: f64 = report.steps.iter().map(|step| step.cost(seqs).memory_bytes).sum();
    let ceilings = Ceilings::measure(report.threads, isa, &clock)?;
    Ok(ceilings.rates(bytes as u64, &clock)?)
}

fn summary(rows: Option<usize>, report: &PlanReport) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let what = rows.map_or_else(|| "one run".into(), |rows| format!("{rows} token{}", plural(rows)));
    format!(
        "{} steps for {what} on {} with {} thread{}; weights {} packed, {} mapped; arena {}",
        report.steps.len(),
        report.isa,
        report.threads,
        plural(report.threads),
        Size(report.packed_bytes as u64),
        Size(report.mapped_bytes as u64),
        Size(report.arena_bytes as u64),
    )
}

/// `offset+bytes` of each result.
fn places(step: &StepReport) -> String {
    let places: Vec<String> =
        step.outputs.iter().map(|(offset, bytes)| format!("{offset}+{bytes}")).collect();
    places.join(" ")
}

fn as_json(
    name: &str,
    rows: Option<usize>,
    report: &PlanReport,
    steps: &[&StepReport],
    least: &dyn Fn(&StepReport) -> Option<(f64, Ceiling)>,
) -> Value {
    let step = |step: &&StepReport| {
        let place = |(offset, bytes): &(usize, usize)| json!({ "offset": offset, "bytes": bytes });
        json!({
            "name": step.name,
            "kernel": step.kernel,
            "note": step.note,
            "weight_bytes": step.weight_bytes,
            "activation_bytes": step.activation_bytes,
            "multiply_adds": step.multiply_adds,
            "least_us": least(step).map(|(seconds, _)| seconds * 1e6),
            "ceiling": least(step).map(|(_, ceiling)| ceiling.name()),
            "outputs": step.outputs.iter().map(place).collect::<Vec<_>>(),
        })
    };
    json!({
        "model": name,
        "rows": rows,
        "isa": report.isa,
        "threads": report.threads,
        "arena_bytes": report.arena_bytes,
        "packed_bytes": report.packed_bytes,
        "mapped_bytes": report.mapped_bytes,
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
    })
}
