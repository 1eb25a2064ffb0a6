//! `kinglet show`: what a model is, what is in its files, and the memory it needs. Nothing is fetched or loaded.

mod graph;
mod json;
mod summary;
mod values;

use std::path::Path;

use anyhow::Result;
use kinglet::catalog::{Catalog, Model};
use kinglet::graphs::GraphFiles;
use kinglet::tensor::Tensor;
use kinglet::{ModelFiles, Overview};

use crate::failure::hinted;
use crate::ui::{Table, Ui, brief, bytes, count, plain};

/// Show what a model is, and the memory it needs
///
/// Works for models that Kinglet cannot run, too, and says why it cannot. A model that is not on this machine is not
/// fetched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet show smollm2
  kinglet show ./model.onnx                         inputs, outputs, operations
  kinglet show ./model.gguf --tensors               every tensor with its type and shape
  kinglet show smollm2 --template > chat.jinja      the chat template
  kinglet show smollm2 --json | jq .parameters      everything, for programs")]
pub(crate) struct Args {
    /// The model
    #[arg(value_name = "MODEL")]
    model: String,
    /// Print every tensor instead
    #[arg(long)]
    tensors: bool,
    /// Print the chat template instead
    #[arg(long)]
    template: bool,
    /// Print all metadata instead, long values shortened (with --json: in full)
    #[arg(long)]
    metadata: bool,
    /// Function of a Core ML package that has several [default: the one it names]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let path = Path::new(&args.model);
    if GraphFiles::is_one(path) {
        return graph::show(path, args.function.as_deref(), ui);
    }
    let model = find(&args.model)?;
    if let Some(path) = GraphFiles::of(&model) {
        return graph::show(&path, args.function.as_deref(), ui);
    }
    let files = ModelFiles::of(&model)?;
    if ui.json() {
        return ui.value(&json::everything(&model, &files, args.metadata));
    }
    if !(args.tensors || args.template || args.metadata) {
        return summary::print(&model, &Overview::of(&files), ui);
    }
    if args.template {
        template(&model, &files, ui)?;
    }
    if args.metadata {
        metadata(&files, ui)?;
    }
    if args.tensors { ui.line(tensors(files.tensors(), ui.columns())) } else { Ok(()) }
}

/// The model, if it is on this machine.
fn find(name: &str) -> Result<Model> {
    let found = Catalog::from_env().locate(name)?;
    found.ok_or_else(|| {
        hinted(format!("{name} is not on this machine"), format!("`kinglet pull {name}` fetches it"))
    })
}

fn template(model: &Model, files: &ModelFiles, ui: &Ui) -> Result<()> {
    let hint = "`kinglet run` then completes texts instead of chatting";
    let none = || hinted(format!("{} has no chat template", model.name), hint);
    let template = files.chat_template().ok_or_else(none)?;
    ui.line(plain(template.trim_end_matches('\n')))
}

fn metadata(files: &ModelFiles, ui: &Ui) -> Result<()> {
    let entries = &files.metadata().0;
    let width = entries.keys().map(|key| key.chars().count()).max().unwrap_or(0).min(60);
    let room = ui.columns().saturating_sub(width + 2).max(30);
    for (key, value) in entries {
        ui.line(format_args!("{:<width$}  {}", brief(key, 120), values::text(value, room)))?;
    }
    Ok(())
}

fn tensors(tensors: &[Tensor], columns: usize) -> Table {
    let mut table = Table::new(&["TENSOR", "TYPE", ">SHAPE", ">BYTES"]);
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape().iter().map(|dim| count(*dim as u64)).collect();
        table.row([
            brief(tensor.name(), columns.saturating_sub(36).max(24)),
            tensor.dtype().to_string(),
            shape.join(" × "),
            bytes(tensor.data().len() as u64),
        ]);
    }
    table
}
