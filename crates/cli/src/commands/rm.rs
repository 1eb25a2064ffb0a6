//! `kinglet rm`: remove models from the local store.

use anyhow::Result;
use kinglet::catalog::Catalog;
use serde_json::json;

use crate::ui::{Ui, bytes};

/// Remove models from this machine
///
/// Files that another model uses, or that were in the hub's cache before, stay.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet rm smollm2
  kinglet rm --dry-run qwen2.5:0.5b    only say what would happen")]
pub(crate) struct Args {
    /// The models
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Remove nothing, only say what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let catalog = Catalog::from_env();
    let mut rows = Vec::new();
    for name in &args.models {
        let removed = catalog.remove(name, args.dry_run)?;
        if !ui.json() {
            let verb = if args.dry_run { "would be removed" } else { "removed" };
            ui.line(format_args!("{}: {verb}, {} freed", removed.name, bytes(removed.freed)))?;
            for path in &removed.kept {
                ui.note(format_args!("stays, it is in use elsewhere: {}", path.display()));
            }
        }
        rows.push(json!({ "name": removed.name, "freed": removed.freed, "kept": removed.kept, "dry_run": args.dry_run }));
    }
    if ui.json() { ui.value(&rows) } else { Ok(()) }
}
