//! `kinglet list`: the models of the local store, or the short names that can be pulled.

use std::time::SystemTime;

use anyhow::Result;
use kinglet::catalog::known::KNOWN;
use kinglet::catalog::{Catalog, Model};
use kinglet::packs::{Kept, PackFolder};
use serde_json::json;

use super::pull::model_json;
use crate::ui::{Table, Ui, ago, bytes};

/// List the models on this machine
#[derive(clap::Args)]
#[command(visible_alias = "ls")]
#[command(after_help = "\
Examples:
  kinglet list
  kinglet list --known         short names that can be pulled
  kinglet list --json | jq -r '.[].name'")]
pub(crate) struct Args {
    /// List the short names instead, here or not
    #[arg(long)]
    known: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    if args.known { known(ui) } else { stored(ui) }
}

fn stored(ui: &Ui) -> Result<()> {
    let catalog = Catalog::from_env();
    let (models, packs) = (catalog.list()?, catalog.packs(0));
    if ui.json() {
        return ui.value(&models.iter().map(model_json).collect::<Vec<_>>());
    }
    if models.is_empty() {
        ui.note("no models yet: `kinglet pull smollm2` fetches a small one");
    } else {
        ui.line(table(&models, &packs))?;
    }
    let packed = sum(&packs.list(None));
    if packed > 0 {
        ui.note(format_args!(
            "{} of packed weights are kept for faster loading; `kinglet rm --packs` removes them",
            bytes(packed)
        ));
    }
    Ok(())
}

fn table(models: &[Model], packs: &PackFolder) -> Table {
    let mut table = Table::new(&["NAME", ">SIZE", ">PACKED", "PULLED", "FROM"]);
    for model in models {
        let age = model.pulled.and_then(|t| SystemTime::now().duration_since(t).ok());
        table.row([
            model.name.clone(),
            bytes(model.bytes()),
            Some(sum(&packs.list(Some(&model.name)))).filter(|sum| *sum > 0).map(bytes).unwrap_or_default(),
            age.map(ago).unwrap_or_default(),
            model.source.clone(),
        ]);
    }
    table
}

fn sum(kept: &[Kept]) -> u64 {
    kept.iter().map(|kept| kept.bytes).sum()
}

fn known(ui: &Ui) -> Result<()> {
    if ui.json() {
        let row = |k: &kinglet::catalog::known::Known| json!({ "name": k.id(), "hub": k.hub, "bytes": k.bytes, "license": k.license });
        return ui.value(&KNOWN.iter().map(row).collect::<Vec<_>>());
    }
    let mut table = Table::new(&["NAME", ">DOWNLOAD", "LICENCE", "FROM"]);
    for known in KNOWN {
        table.row([
            known.id(),
            bytes(known.bytes),
            known.license.into(),
            known.hub.unwrap_or("a package").into(),
        ]);
    }
    ui.line(table)
}
