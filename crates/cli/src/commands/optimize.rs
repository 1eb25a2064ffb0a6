//! `kinglet optimize`: a model folded and fused, and what that is worth.

use std::path::PathBuf;

use anyhow::{Context, Result};
use kinglet::LoadOptions;
use kinglet::graph::passes::Entry;
use kinglet::graphs::{Converted, Gain, Optimised};
use serde_json::{Value, json};

use super::convert::{WriteArgs, as_json, dim, open, print};
use crate::ui::{Sections, Steps, Table, Ui, brief, count};

/// Fold, clean up and fuse a model, and say what that is worth
///
/// Constants are folded, what nobody reads and what repeats goes away, batch norms go into the weights before them, and
/// what exporters spell out becomes one operation where the format has it. The report says what was done to which
/// operation, what was left and why, the gain that the cost model predicts, the gain measured in turns on this machine, and
/// the largest difference of the outputs on made-up inputs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet optimize model.onnx -o fast.onnx                       a summary
  kinglet optimize model.onnx -o fast.onnx --report              every operation that changed, and why others did not
  kinglet optimize model.onnx -o fast.onnx --report report.json  the same as JSON in a file
  kinglet optimize bert.onnx -o fast.onnx --dim batch=1 --dim sequence=128
  kinglet optimize model.mlpackage -o fast.onnx --runs 0         do not measure")]
pub(crate) struct Args {
    /// The model: .onnx, .mlmodel or .mlpackage
    model: PathBuf,
    /// Where the optimised model goes
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    /// Tell of every operation; as JSON in FILE when one is named
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    report: Option<Option<PathBuf>>,
    /// Fix an open dimension (may be given several times)
    #[arg(long, value_name = "NAME=N", value_parser = dim)]
    dim: Vec<(String, usize)>,
    /// Function of a Core ML package that has several [default: the one it names]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Runs of each variant that are measured; 0: none
    #[arg(long, value_name = "N", default_value_t = 15)]
    runs: usize,
    /// Threads of the measured runs [default: one a physical core]
    #[arg(long, short, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let files = open(&args.model, args.function.as_deref(), ui)?;
    let format = files.format.clone();
    let optimised = Optimised::new(files, &args.dim)?;
    let converted = optimised.write(&args.output, &args.write.options(&[]), &mut |_, _| {})?;
    let gain = measure(args, &optimised, ui)?;
    let report = || report(args, &format, &optimised, &converted, gain.as_ref());
    if let Some(Some(path)) = &args.report {
        let text = serde_json::to_string_pretty(&report())? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if ui.json() {
        return ui.value(&report());
    }
    print(&converted, ui)?;
    if args.report == Some(None) {
        every_operation(&optimised, gain.as_ref(), ui)?;
    }
    summary(&optimised, gain.as_ref(), ui)
}

fn measure(args: &Args, optimised: &Optimised, ui: &Ui) -> Result<Option<Gain>> {
    if args.runs == 0 {
        return Ok(None);
    }
    let steps = Steps::new(ui, "measuring");
    let options = LoadOptions { threads: args.threads, ..LoadOptions::default() };
    let mut progress = |round: usize| steps.set(round + 1, args.runs + 2, "");
    match optimised.gain(&options, args.runs, &mut progress) {
        Ok(gain) => Ok(Some(gain)),
        // The model is written all the same.
        Err(error @ kinglet::Error::Exec(_)) => {
            drop(steps);
            ui.note(format_args!("not measured, made-up inputs do not suit the model: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Each change, each thing that was left, and what a step of the plan computes at once.
fn every_operation(optimised: &Optimised, gain: Option<&Gain>, ui: &Ui) -> Result<()> {
    let mut out = Sections::new(ui);
    for (title, list) in [("Done", &optimised.log.done), ("Left as it is", &optimised.log.left)] {
        if list.is_empty() {
            continue;
        }
        let mut table = Table::new(&["PASS", "OPERATION", "OP", ""]);
        for entry in list {
            table.row([
                entry.pass.to_owned(),
                brief(&entry.node, 60),
                entry.op.to_owned(),
                brief(&entry.text, 160),
            ]);
        }
        ui.line("")?;
        out.table(title, &table)?;
    }
    if optimised.log.left.iter().any(|entry| entry.text.contains("are open")) {
        ui.note("--dim NAME=N fixes open sizes, by name or as INPUT.AXIS: then more is folded and fused in the file");
    }
    let joined = gain.map_or(&[][..], |gain| &gain.joined);
    if !joined.is_empty() {
        let mut table = Table::new(&["OPERATION", "KERNEL", ""]);
        for step in joined {
            table.row([brief(&step.step, 60), step.kernel.clone(), brief(&step.with, 160)]);
        }
        ui.line("")?;
        out.table("Computed in one step by Kinglet", &table)?;
    }
    ui.line("")
}

fn summary(optimised: &Optimised, gain: Option<&Gain>, ui: &Ui) -> Result<()> {
    let nodes = |graph: &kinglet::graph::Graph| count(graph.nodes().len() as u64);
    let (before, after) = (nodes(&optimised.files.graph), nodes(&optimised.graph));
    ui.line(format_args!("operations: {before} before, {after} after{}", passes(&optimised.log.done)))?;
    let Some(gain) = gain else { return Ok(()) };
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    let [raw, fused, best] = gain.measured;
    let shapes: Vec<String> = gain.inputs.iter().map(|(name, shape)| format!("{name} {shape:?}")).collect();
    ui.line(format_args!("inputs:     {}", brief(&shapes.join(", "), 200)))?;
    let [from, to] = gain.predicted;
    ui.line(format_args!(
        "predicted:  {} as it stands, {} optimised: {:.2} times",
        ms(from),
        ms(to),
        from / to
    ))?;
    ui.line(format_args!(
        "measured:   {} as it stands ({} steps), {} fused at load ({}), {} optimised ({}): {:.2} and {:.2} times",
        ms(raw), gain.steps[0], ms(fused), gain.steps[1], ms(best), gain.steps[2], raw / best, fused / best
    ))?;
    let worst = gain.differences.iter().max_by(|a, b| a.relative.total_cmp(&b.relative));
    match worst {
        None => Ok(()),
        Some(d) => ui.line(format_args!(
            "difference: {:.1e} at most, {:.1e} of the largest value (output {})",
            d.largest,
            d.relative,
            brief(&d.output, 80)
        )),
    }
}

/// `: 12 fold, 3 fuse`.
fn passes(done: &[Entry]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for entry in done {
        match counts.iter_mut().find(|(pass, _)| *pass == entry.pass) {
            Some((_, n)) => *n += 1,
            None => counts.push((entry.pass, 1)),
        }
    }
    let words: Vec<String> = counts.iter().map(|(pass, n)| format!("{n} {pass}")).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn report(
    args: &Args,
    format: &str,
    optimised: &Optimised,
    converted: &Converted,
    gain: Option<&Gain>,
) -> Value {
    let entry = |e: &Entry| json!({ "pass": e.pass, "operation": e.node, "op": e.op, "what": e.text });
    json!({
        "from": { "path": args.model, "format": format, "operations": optimised.files.graph.nodes().len() },
        "to": as_json(converted),
        "operations": optimised.graph.nodes().len(),
        "done": optimised.log.done.iter().map(entry).collect::<Vec<_>>(),
        "left": optimised.log.left.iter().map(entry).collect::<Vec<_>>(),
        "gain": gain.map(gain_json),
    })
}

fn gain_json(gain: &Gain) -> Value {
    let [raw, fused, best] = gain.measured.map(|seconds| seconds * 1e3);
    let input = |(name, shape): &(String, Vec<usize>)| json!({ "name": name, "shape": shape });
    let finite = |x: f64| x.is_finite().then_some(x);
    let difference = |d: &kinglet::graphs::Difference| json!({ "output": d.output, "largest": finite(d.largest), "relative": finite(d.relative) });
    json!({
        "inputs": gain.inputs.iter().map(input).collect::<Vec<_>>(),
        "runs": gain.runs,
        "predicted_ms": { "as_it_stands": gain.predicted[0] * 1e3, "optimised": gain.predicted[1] * 1e3 },
        "measured_ms": { "as_it_stands": raw, "fused_at_load": fused, "optimised": best },
        "steps": { "as_it_stands": gain.steps[0], "fused_at_load": gain.steps[1], "optimised": gain.steps[2] },
        "joined": gain.joined.iter().map(|j| json!({ "operation": j.step, "kernel": j.kernel, "with": j.with })).collect::<Vec<_>>(),
        "differences": gain.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}
