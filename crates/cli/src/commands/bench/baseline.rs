//! A run against an earlier one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::failure::hinted;
use crate::ui::{Table, Ui};

/// Compares test by test; an error names every test that became slower than `tolerance` percent allow.
pub(super) fn compare(path: &Path, report: &Value, tolerance: f64, ui: &Ui) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let before: Value = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let earlier = results(&before);
    let mut table = Table::new(&["test", ">depth", ">batch", ">before", ">now", ">change"]);
    let (mut slower, mut compared) = (Vec::new(), 0);
    for now in results(report) {
        let Some(then) = earlier.iter().find(|then| key(then) == key(now)) else { continue };
        let (was, is) = (median(then), median(now));
        let change = 100.0 * (is / was - 1.0);
        compared += 1;
        if change < -tolerance {
            slower.push(format!(
                "{} at depth {} ({change:+.1} %)",
                now["test"].as_str().unwrap_or("?"),
                now["depth"]
            ));
        }
        table.row([
            now["test"].as_str().unwrap_or("?").to_owned(),
            now["depth"].to_string(),
            now["batch"].to_string(),
            format!("{was:.1}"),
            format!("{is:.1}"),
            format!("{change:+.1} %"),
        ]);
    }
    if compared == 0 {
        bail!(hinted(
            format!("{}: no test in common with this run", path.display()),
            "write it with `kinglet --json bench MODEL` and the same --pp, --tg, --depth and --batch",
        ));
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

fn median(result: &Value) -> f64 {
    result["tok_s"]["median"].as_f64().unwrap_or(f64::NAN)
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
    }
}
