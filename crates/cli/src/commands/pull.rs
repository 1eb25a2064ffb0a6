//! `kinglet pull`: fetch models, or check those that are here.

use anyhow::Result;
use kinglet::catalog::{Catalog, Model};
use serde_json::json;

use crate::ui::{Fetching, Ui, bytes};

/// Fetch a model, or check one that is here
///
/// An interrupted download goes on where it stopped. A model that is here already is checked byte for byte, and what
/// is damaged is fetched anew.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet pull smollm2                       a short name: `kinglet list --known` shows them all
  kinglet pull org/repo:Q4_K_M               a quantisation on the Hugging Face hub
  kinglet pull org/repo/model.gguf@v1.0      one file of it, as of a tag
  kinglet pull https://example.org/x.gguf    any web address

Variables:
  KINGLET_HOME      the folder of the local store
  HF_TOKEN          access token for models that ask for one
  HF_ENDPOINT       a mirror of the hub
  HF_HUB_CACHE      where the hub's files are kept
  HF_HUB_OFFLINE    1: use no network")]
pub(crate) struct Args {
    /// The models
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let catalog = Catalog::from_env();
    let mut pulled = Vec::new();
    for name in &args.models {
        let model = catalog.pull(name, &Fetching::new(ui))?;
        if !ui.json() {
            ui.line(format_args!("{}: ready, {}, from {}", model.name, bytes(model.bytes()), model.source))?;
        }
        pulled.push(model);
    }
    if ui.json() { ui.value(&pulled.iter().map(model_json).collect::<Vec<_>>()) } else { Ok(()) }
}

/// A model as `pull --json` and `list --json` show it.
pub(super) fn model_json(model: &Model) -> serde_json::Value {
    let pulled = model.pulled.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map(|d| d.as_secs());
    let file = |f: &kinglet::catalog::ModelFile| json!({ "name": f.name, "path": f.path, "bytes": f.bytes, "sha256": f.sha256 });
    json!({
        "name": model.name,
        "bytes": model.bytes(),
        "source": model.source,
        "pulled": pulled,
        "files": model.files.iter().map(file).collect::<Vec<_>>(),
    })
}
