//! A run against an earlier one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::commands::given;
use crate::failure::hinted;
use crate::ui::{Table, Ui};

/// How to make a file that can be compared with.
const HINT: &str = "write it with `kinglet --json bench MODEL` and the same --pp, --tg, --depth and --batch";

/// An earlier report, which has results.
pub(super) fn read(path: &Path) -> Result<Value> {
    let bytes = given::text(path)?;
    let report: Value = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    if results(&report).is_empty() {
        bail!(hinted(format!("{}: not a report of `kinglet bench`", path.display()), HINT));
    }
    Ok(report)
}

/// Compares test by test; an error names every test that became slower than `tolerance` percent allow.
pub(super) fn compare(before: &Value, report: &Value, tolerance: f64, ui: &Ui) -> Result<()> {
    let earlier = results(before);
    let mut table =
        Table::new(&["test", ">depth", ">batch", ">before", ">now", ">change", ">of ceiling", ">change"]);
    let (mut slower, mut compared) = (Vec::new(), 0);
    for now in results(report) {
        let Some(then) = earlier.iter().find(|then| key(then) == key(now)) else { continue };
        let (was, is) = (median(then), median(now));
        let [change, of_ceiling] = changes(then, now);
        compared += 1;
        if is_slower([change, of_ceiling], tolerance) {
            slower.push(format!(
                "{} at depth {}, batch {} ({change:+.1} %)",
                now["test"].as_str().unwrap_or("?"),
                now["depth"],
                now["batch"]
            ));
        }
        table.row([
            now["test"].as_str().unwrap_or("?").to_owned(),
            now["depth"].to_string(),
            now["batch"].to_string(),
            format!("{was:.1}"),
            format!("{is:.1}"),
            format!("{change:+.1} %"),
            format!("{:.0} %", share(now)),
            format!("{of_ceiling:+.1} %"),
        ]);
    }
    if compared == 0 {
        bail!(hinted("the baseline has no test in common with this run", HINT));
    }
    if !ui.json() {
        ui.line(format_args!("\n{table}"))?;
    }
    if slower.is_empty() { Ok(()) } else { bail!("slower than the baseline: {}", slower.join(", ")) }
}

fn results(report: &Value) -> Vec<&Value> {
    report["results"].as_array().map(|list| list.iter().collect()).unwrap_or_default()
}

fn key(result: &Value) -> [&Value; 3] {
    [&result["test"], &result["batch"], &result["depth"]]
}

/// Changes in percent: of the rate, and of its share of the ceiling.
fn changes(then: &Value, now: &Value) -> [f64; 2] {
    [median, share].map(|figure| 100.0 * (figure(now) / figure(then) - 1.0))
}

/// Whether a test became slower, and not only the machine. What cannot be compared counts as unchanged.
fn is_slower(changes: [f64; 2], tolerance: f64) -> bool {
    let fell = |change: f64| change < -tolerance;
    fell(changes[0]) && (fell(changes[1]) || changes[1].is_nan())
}

fn share(result: &Value) -> f64 {
    result["percent_of_ceiling"].as_f64().unwrap_or(f64::NAN)
}

/// Tokens, or runs, a second.
fn median(result: &Value) -> f64 {
    let runs = || result["ms"]["median"].as_f64().map(|ms| 1e3 / ms);
    result["tok_s"]["median"].as_f64().or_else(runs).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tests_are_matched_by_name_batch_and_depth() {
        let of = |depth: u32, rate: f64| json!({ "test": "tg8", "batch": 1, "depth": depth, "tok_s": { "median": rate } });
        let report = json!({ "results": [of(0, 10.0), of(512, 5.0)] });
        let list = results(&report);
        assert_eq!(list.len(), 2);
        assert_eq!(key(list[0]), key(&of(0, 99.0)));
        assert_ne!(key(list[0]), key(list[1]));
        assert_eq!(median(list[1]), 5.0);
        assert_eq!(median(&json!({ "test": "run", "ms": { "median": 8.0 } })), 125.0);
    }

    #[test]
    fn a_slower_machine_is_no_regression() {
        let of = |rate: f64, share: Option<f64>| json!({ "tok_s": { "median": rate }, "percent_of_ceiling": share });
        let check = |now: Value, slower| {
            let changes = changes(&of(100.0, Some(80.0)), &now);
            assert_eq!(is_slower(changes, 10.0), slower, "{now}");
        };
        check(of(95.0, Some(70.0)), false);
        check(of(80.0, Some(64.0)), true);
        check(of(80.0, Some(79.0)), false);
        check(of(120.0, Some(60.0)), false);
        check(of(80.0, None), true);
    }
}
