//! A profile as a trace: the event format of Chrome, which Perfetto reads as well. Times are microseconds.

use kinglet::profile::block;
use serde_json::{Value, json};

use super::Profiled;

/// All runs of all tests, one test after the other: a row for runs, one for blocks, one for steps.
pub(super) fn render(title: &str, all: &[Profiled]) -> String {
    let mut events = vec![json!({ "ph": "M", "pid": 1, "name": "process_name", "args": { "name": title } })];
    for (row, name) in [(1, "runs"), (2, "blocks"), (3, "steps")] {
        events.push(
            json!({ "ph": "M", "pid": 1, "tid": row, "name": "thread_name", "args": { "name": name } }),
        );
    }
    let mut start = 0.0;
    for profiled in all {
        for run in &profiled.runs {
            events.push(event(
                1,
                &profiled.test.name,
                "run",
                start,
                run.wall,
                json!({ "sequences": run.seqs }),
            ));
            steps(profiled, run, start, &mut events);
            start += run.wall;
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
}

fn steps(profiled: &Profiled, run: &kinglet::profile::Run, start: f64, events: &mut Vec<Value>) {
    let mut open: Option<(&str, f64, f64)> = None;
    for (step, (begin, end)) in profiled.plan.steps.iter().zip(run.steps()) {
        let cost = step.cost(&run.seqs);
        let (least, ceiling) = profiled.rates.least(&cost);
        let args = json!({
            "kernel": step.kernel,
            "memory_bytes": cost.memory_bytes,
            "activation_bytes": cost.activation_bytes,
            "operations": 2.0 * cost.multiply_adds,
            "ceiling": ceiling.name(),
            "percent_of_ceiling": 100.0 * least / (end - begin),
        });
        events.push(event(3, &step.name, &step.kernel, start + begin, end - begin, args));
        let of = block(&step.name).unwrap_or(&step.name);
        open = match open {
            Some((name, from, _)) if name == of => Some((name, from, end)),
            before => {
                events.extend(
                    before
                        .map(|(name, from, to)| event(2, name, "block", start + from, to - from, json!({}))),
                );
                Some((of, begin, end))
            }
        };
    }
    events.extend(open.map(|(name, from, to)| event(2, name, "block", start + from, to - from, json!({}))));
}

/// A span of `seconds` on row `row`.
fn event(row: u32, name: &str, category: &str, start: f64, seconds: f64, args: Value) -> Value {
    json!({
        "ph": "X", "pid": 1, "tid": row, "name": name, "cat": category,
        "ts": start * 1e6, "dur": seconds * 1e6, "args": args,
    })
}
