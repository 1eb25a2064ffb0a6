//! `kinglet bench` of an ONNX or Core ML model: whole runs.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use kinglet::graph::cost::Cost;
use kinglet::graphs::{GraphBench, GraphModel};
use kinglet::hardware;

use super::{Args, Outcome, Report, TestName, Unit, ceilings, clock, share};
use crate::ui::{Steps, Ui};

/// Repetitions when none are asked for.
const REPS: usize = 30;

/// Measures a model at each batch size. `load_ms` is reading, planning and packing for the first one.
pub(super) fn measure<'a>(args: &'a Args, path: &Path, ui: &Ui) -> Result<Report<'a>> {
    let options = args.load.plain(ui);
    let threads = options.threads.unwrap_or_else(hardware::cores);
    let (mut load_ms, mut measured) = (None, Vec::new());
    let reps = args.reps.unwrap_or(REPS);
    let steps = Steps::new(ui, "repetition");
    for (i, &batch) in args.batch.iter().enumerate() {
        let started = Instant::now();
        let model = GraphModel::open(path, &options)?;
        let opened = started.elapsed();
        let mut bench = GraphBench::new(model, &args.shape, batch)?;
        load_ms.get_or_insert((opened + bench.planned()).as_secs_f64() * 1e3);
        let samples = bench.run(reps, |rep, ms| {
            steps.set(i * reps + rep + 1, args.batch.len() * reps, &format!("{ms:.2} ms"));
        })?;
        let plan = bench.report();
        let cost = plan.steps.iter().fold(Cost::default(), |sum, step| sum + step.cost(&[]));
        measured.push((TestName::run(batch), samples, cost));
    }
    drop(steps);
    let peak = hardware::peak_memory();
    let ceilings = ceilings(threads, options.isa.as_deref())?;
    let mut outcomes = Vec::new();
    for (test, samples, cost) in measured {
        let device = ceilings.rates(cost.memory_bytes as u64, &clock(Instant::now()))?;
        let (percent, ceiling) = share(&cost, 1e3 / samples.median(), &device);
        outcomes.push(Outcome { test, unit: Unit::Milliseconds, samples, percent, ceiling });
    }
    Ok(Report { model: &args.model, outcomes, ceilings, threads, load_ms: load_ms.unwrap_or(0.0), peak })
}
