//! `kinglet rm`: remove models from the local store.

use anyhow::Result;
use kinglet::catalog::Catalog;
use kinglet::packs::PackFolder;
use serde_json::json;

use crate::ui::{Ui, bytes};

/// Remove models from this machine
///
/// Files that another model uses, or that were in the hub's cache before, stay. Weights that are kept packed for faster
/// loading go with their model, or alone with --packs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet rm smollm2
  kinglet rm --dry-run qwen2.5:0.5b    only say what would happen
  kinglet rm --packs                   all packed weights; models stay")]
pub(crate) struct Args {
    /// The models
    #[arg(required_unless_present = "packs", value_name = "MODEL")]
    models: Vec<String>,
    /// Remove packed weights only: of these models, or of all
    #[arg(long)]
    packs: bool,
    /// Remove nothing, only say what would be removed
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let catalog = Catalog::from_env();
    if args.packs {
        return packs(args, &catalog.packs(0), ui);
    }
    let mut rows = Vec::new();
    for name in &args.models {
        let mut removed = catalog.remove(name, args.dry_run)?;
        removed.freed += drop_packs(&catalog.packs(0), Some(&removed.name), args.dry_run);
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

/// Removes packed weights only.
fn packs(args: &Args, folder: &PackFolder, ui: &Ui) -> Result<()> {
    let freed = if args.models.is_empty() {
        drop_packs(folder, None, args.dry_run)
    } else {
        args.models.iter().map(|name| drop_packs(folder, Some(name), args.dry_run)).sum()
    };
    if ui.json() {
        return ui.value(&json!({ "packs": folder.path(), "freed": freed, "dry_run": args.dry_run }));
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    ui.line(format_args!("packed weights: {verb}, {} freed", bytes(freed)))
}

/// Bytes of the packed weights of a model, or of all, which are gone unless this is a dry run.
fn drop_packs(folder: &PackFolder, model: Option<&str>, dry_run: bool) -> u64 {
    if dry_run { folder.list(model).iter().map(|kept| kept.bytes).sum() } else { folder.remove(model) }
}
