//! Suites: folders of cases, counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::case::{self, Written};
use crate::ignored::ignored;

/// Folder and name in the counts.
const SUITES: [(&str, &str); 5] = [
    ("node", "onnx-node"),
    ("simple", "onnx-simple"),
    ("pytorch-operator", "onnx-pytorch-operator"),
    ("pytorch-converted", "onnx-pytorch-converted"),
    ("light", "onnx-light"),
];

/// How the reason of a case starts whose outputs are random.
const RANDOM: &str = "draws random numbers";

/// Counts of a suite.
pub(crate) struct Counts {
    pub(crate) name: &'static str,
    pub(crate) passed: usize,
    pub(crate) total: usize,
    pub(crate) ignored: BTreeMap<String, String>,
    /// Cases that pass but cannot be written, and why.
    pub(crate) unwritten: BTreeMap<String, String>,
    /// What was not expected: failures, and ignored cases that pass.
    pub(crate) surprises: Vec<String>,
}

/// The folder that holds the suites, at or below `data`.
pub(crate) fn find(data: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![data.to_path_buf()];
    for _ in 0..6 {
        if let Some(found) = folders.iter().find(|f| f.join("node").is_dir() && f.join("simple").is_dir()) {
            return Ok(found.clone());
        }
        folders = folders.iter().flat_map(|f| subfolders(f)).collect();
    }
    bail!("no ONNX backend tests below {}", data.display())
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

/// Runs all suites.
pub(crate) fn run(root: &Path, filter: &str, keep: Option<&Path>) -> anyhow::Result<Vec<Counts>> {
    let (known, run) = (ignored(), |path: &Path| case::run(path, keep));
    let one = |(folder, name): &(&str, &'static str)| counts(&root.join(folder), name, filter, &known, &run);
    SUITES.iter().map(one).collect()
}

/// Feeds the models of all suites with odd inputs: a case passes unless something panics.
pub(crate) fn run_odd(root: &Path, filter: &str) -> anyhow::Result<Vec<Counts>> {
    let known = BTreeMap::new();
    let one = |(folder, name): &(&str, &'static str)| {
        counts(&root.join(folder), name, filter, &known, &case::run_odd)
    };
    SUITES.iter().map(one).collect()
}

/// Runs one case.
type Run<'a> = &'a dyn Fn(&Path) -> Result<Written, String>;

fn counts(
    folder: &Path,
    name: &'static str,
    filter: &str,
    known: &BTreeMap<&str, &str>,
    run: Run<'_>,
) -> anyhow::Result<Counts> {
    let mut counts = Counts {
        name,
        passed: 0,
        total: 0,
        ignored: BTreeMap::new(),
        unwritten: BTreeMap::new(),
        surprises: Vec::new(),
    };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.join("model.onnx").is_file() || p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    cases.sort();
    for path in cases {
        let case = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !case.contains(filter) {
            continue;
        }
        counts.total += 1;
        let outcome = run(&path);
        let reason = known.get(format!("{name}/{case}").as_str());
        match (outcome, reason) {
            (Ok(Written::Whole), None) => counts.passed += 1,
            (Ok(Written::Not(why)), None) => {
                counts.passed += 1;
                counts.unwritten.insert(case, why);
            }
            // Chance may hit the expected numbers.
            (_, Some(reason)) if reason.starts_with(RANDOM) => {
                drop(counts.ignored.insert(case, (*reason).to_owned()));
            }
            (Ok(_), Some(_)) => {
                counts.passed += 1;
                counts.surprises.push(format!("{name}/{case} passes: take it off the list"));
            }
            (Err(_), Some(reason)) => drop(counts.ignored.insert(case, (*reason).to_owned())),
            (Err(error), None) => counts.surprises.push(format!("{name}/{case}: {error}")),
        }
    }
    Ok(counts)
}

/// Counts by suite.
pub(crate) fn json(results: &[Counts]) -> Value {
    let one = |s: &Counts| {
        let counts = json!({
            "passed": s.passed,
            "total": s.total,
            "ignored": s.ignored,
            "written": s.passed - s.unwritten.len(),
            "unwritten": s.unwritten,
        });
        (s.name.to_owned(), counts)
    };
    Value::Object(results.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of `tools/golden/microsoft_ops.py`, whose outputs are ONNX Runtime's.
    #[test]
    fn the_operators_of_onnx_runtime_give_what_it_gives() -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/microsoft");
        case::catch_panics();
        let plain = |path: &Path| case::run(path, None);
        let ways: [Run<'_>; 3] = [&plain, &case::run_odd, &case::run_damaged];
        for run in ways {
            let counts = counts(&folder, "com.microsoft", "", &BTreeMap::new(), run)?;
            // No assertion: panics are quiet here.
            anyhow::ensure!(counts.surprises.is_empty(), "{:#?}", counts.surprises);
            anyhow::ensure!(counts.passed > 60, "{} of {}", counts.passed, counts.total);
        }
        Ok(())
    }
}
