//! `kinglet explain`: the plan as it will run.

use anyhow::Result;
use kinglet::graph::{PlanReport, StepReport};
use kinglet::{Compiled, Size};
use serde_json::json;

use crate::commands::options::LoadArgs;
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
  kinglet --json explain smollm2             for machines")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// Tokens of the batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// Only the steps of this block
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let (name, files, options) = args.load.open(&args.model, 1, ui)?;
    let compiled = Compiled::new(&files, &options)?;
    let rows = args.rows.clamp(1, compiled.executable.max_rows());
    let report = compiled.executable.report(&[rows, 1])?;
    let prefix = args.layer.map(|layer| format!("blk.{layer}."));
    let shown: Vec<&StepReport> = report
        .steps
        .iter()
        .filter(|step| prefix.as_ref().is_none_or(|p| step.name.starts_with(p.as_str())))
        .collect();
    if ui.json() {
        return ui.value(&as_json(&name, rows, &report, &shown));
    }
    let mut table = Table::new(&["step", "kernel", "weights", "arena", "note"]);
    for step in &shown {
        table.row([
            step.name.clone(),
            step.kernel.clone(),
            if step.weight_bytes == 0 { String::new() } else { Size(step.weight_bytes as u64).to_string() },
            places(step),
            step.note.clone(),
        ]);
    }
    ui.line(table)?;
    ui.line(format_args!(
        "\n{name}: {} steps for {rows} token{} on {} with {} thread{}; weights {} packed, {} mapped; arena {}",
        report.steps.len(),
        if rows == 1 { "" } else { "s" },
        report.isa,
        report.threads,
        if report.threads == 1 { "" } else { "s" },
        Size(report.packed_bytes as u64),
        Size(report.mapped_bytes as u64),
        Size(report.arena_bytes as u64),
    ))
}

/// `offset+bytes` of each result.
fn places(step: &StepReport) -> String {
    let places: Vec<String> =
        step.outputs.iter().map(|(offset, bytes)| format!("{offset}+{bytes}")).collect();
    places.join(" ")
}

fn as_json(name: &str, rows: usize, report: &PlanReport, steps: &[&StepReport]) -> serde_json::Value {
    let step = |step: &&StepReport| {
        let place = |(offset, bytes): &(usize, usize)| json!({ "offset": offset, "bytes": bytes });
        json!({
            "name": step.name,
            "kernel": step.kernel,
            "note": step.note,
            "weight_bytes": step.weight_bytes,
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
