//! A profile as a table.

use anyhow::Result;
use kinglet::profile::Entry;

use super::Profiled;
use crate::commands::buffers;
use crate::ui::{Table, Ui};

/// Prints one test: sums by kind of step, or every step.
pub(super) fn print(title: &str, profiled: &Profiled, every: bool, ui: &Ui) -> Result<()> {
    let Profiled { test, profile, .. } = profiled;
    let per = profile.runs.max(1) as f64;
    let runs =
        if profile.runs == 1 { "one run".into() } else { format!("the mean of {} runs", profile.runs) };
    ui.heading(format_args!("{test}: {runs}; {title}"))?;
    let mut table = Table::new(&[
        "step",
        "kernel",
        ">steps",
        ">µs",
        ">share",
        ">MB",
        ">GB/s",
        ">GOP/s",
        "held by",
        ">of ceiling",
    ]);
    let entries = if every { profile.steps.clone() } else { profile.kinds() };
    for entry in &entries {
        table.row(row(entry, per, profile.wall));
    }
    let between = profile.wall - profile.seconds();
    table.row([
        "between steps".into(),
        String::new(),
        String::new(),
        micros(between / per),
        percent(between / profile.wall),
    ]);
    ui.line(table)?;
    ui.line(format_args!(
        "{} in all, {} in steps ({}); by the ceilings at least {} ({})\n",
        time(profile.wall / per),
        time(profile.seconds() / per),
        percent(profile.seconds() / profile.wall),
        time(profile.least() / per),
        percent(profile.least() / profile.wall),
    ))?;
    match &profiled.buffers {
        Some(stats) => ui.line(format_args!("Memory of {} runs: {}\n", stats.runs, buffers::line(stats))),
        None => Ok(()),
    }
}

fn row(entry: &Entry, per: f64, wall: f64) -> Vec<String> {
    let rate = |amount: f64| {
        let rate = amount / entry.seconds / 1e9;
        if amount > 0.0 && rate.is_finite() { format!("{rate:.1}") } else { String::new() }
    };
    let moved = entry.cost.memory_bytes + entry.cost.activation_bytes;
    vec![
        entry.name.clone(),
        entry.kernel.clone(),
        entry.count.to_string(),
        micros(entry.seconds / per),
        percent(entry.seconds / wall),
        format!("{:.2}", moved / per / 1e6),
        rate(moved),
        rate(2.0 * entry.cost.multiply_adds),
        entry.ceiling.name().into(),
        percent(entry.share()),
    ]
}

fn micros(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e6)
}

/// A time in the unit that suits it.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{} µs", micros(seconds)) } else { format!("{:.2} ms", seconds * 1e3) }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
