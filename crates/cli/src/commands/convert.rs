//! `kinglet convert`: a model in another format.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kinglet::formats::onnx::{NEWEST_OPSET, OLDEST_OPSET};
use kinglet::graphs::{ConvertOptions, Converted, GraphFiles};
use serde_json::{Value, json};

use crate::commands::options::graph_at;
use crate::failure::hinted;
use crate::ui::{Steps, Ui, bytes, count};

/// Write a model in another format
///
/// Reads an ONNX file, a Core ML model (.mlmodel) or a Core ML package (.mlpackage), and writes what the end of OUT names.
/// Names of inputs and outputs, open sizes and metadata stay. What the format cannot express is told, all of it at once,
/// and then nothing is written.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet convert model.mlpackage model.onnx
  kinglet convert model.onnx model.mlpackage --half   for a Mac's Neural Engine
  kinglet convert bert.onnx bert.mlpackage --dim batch_size=1 --dim sequence_length=128
  kinglet convert silero_vad.onnx vad.mlpackage --dim input.0=1 --dim input.1=512 --dim state.1=1 --constant sr=16000
  kinglet convert old.onnx new.onnx --opset 18        for a runtime that knows no newer operators
  kinglet convert big.onnx big2.onnx --split          weights in big2.onnx.data
  kinglet --json convert model.mlmodel model.onnx     what was written, for programs")]
pub(crate) struct Args {
    /// The model: .onnx, .mlmodel or .mlpackage
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where it goes: a file that ends in .onnx, or a folder that ends in .mlpackage
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    write: WriteArgs,
    /// Fix an open dimension (may be given several times)
    #[arg(long, value_name = "NAME=N", value_parser = dim)]
    dim: Vec<(String, usize)>,
    /// Make an input of one number a constant (may be given several times)
    #[arg(long, value_name = "NAME=NUMBER", value_parser = constant)]
    constant: Vec<(String, f64)>,
    /// Function of a Core ML package that has several [default: the one it names]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
}

/// A dimension's name and size.
pub(super) fn dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("expected NAME=N")?;
    let size = size.parse().map_err(|_| format!("`{size}` is no size"))?;
    Ok((name.to_owned(), size))
}

/// An input's name and its number.
fn constant(text: &str) -> Result<(String, f64), String> {
    let (name, number) = text.rsplit_once('=').ok_or("expected NAME=NUMBER")?;
    let number = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Ok((name.to_owned(), number))
}

/// How a model is written.
#[derive(clap::Args)]
pub(crate) struct WriteArgs {
    /// Replace OUT when it exists
    #[arg(long, short)]
    force: bool,
    /// ONNX: the set of operators [default: 21, or the oldest that has all operators of the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(OLDEST_OPSET..=NEWEST_OPSET))]
    opset: Option<i64>,
    /// ONNX: write the weights to a file beside OUT, even when one file would hold them
    #[arg(long)]
    split: bool,
    /// Core ML: floats of 16 bits
    #[arg(long)]
    half: bool,
}

impl WriteArgs {
    pub(super) fn options(&self, dims: &[(String, usize)]) -> ConvertOptions {
        let inline = self.split.then_some(0);
        let dims = dims.to_vec();
        ConvertOptions {
            force: self.force,
            opset: self.opset,
            inline,
            dims,
            half: self.half,
            ..Default::default()
        }
    }
}

/// The model at this path; an error when it is none that can be converted.
pub(super) fn open(path: &Path, function: Option<&str>, ui: &Ui) -> Result<GraphFiles> {
    let Some(path) = graph_at(&path.to_string_lossy(), ui)? else {
        let message = format!("{} is no model of operations", path.display());
        return Err(hinted(
            message,
            "name a file or folder that ends in .onnx, .mlmodel or .mlpackage, or the folder of a vision model's checkpoint",
        ));
    };
    let files = match function {
        Some(function) => GraphFiles::open_function(&path, function)?,
        None => GraphFiles::open(&path)?,
    };
    files.notes.iter().for_each(|note| ui.note(note));
    Ok(files)
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let files = open(&args.input, args.function.as_deref(), ui)?;
    let steps = Steps::new(ui, "writing, MB");
    let mb = |bytes: u64| usize::try_from(bytes / 1_000_000).unwrap_or(0);
    let mut progress = |done: u64, all: u64| steps.set(mb(done), mb(all), "");
    let options = ConvertOptions { constants: args.constant.clone(), ..args.write.options(&args.dim) };
    let converted = files.convert(&args.output, &options, &mut progress)?;
    drop(steps);
    if ui.json() {
        let mut value = as_json(&converted);
        value["from"] = json!({ "path": args.input, "format": files.format });
        return ui.value(&value);
    }
    print(&converted, ui)
}

/// The format, then one line a file.
pub(super) fn print(converted: &Converted, ui: &Ui) -> Result<()> {
    converted.notes.iter().for_each(|note| ui.note(note));
    let nodes = count(converted.nodes as u64);
    ui.line(format_args!("{}, {nodes} operations", converted.format))?;
    for (path, size) in &converted.files {
        ui.line(format_args!("  {}: {}", path.display(), bytes(*size)))?;
    }
    Ok(())
}

pub(super) fn as_json(converted: &Converted) -> Value {
    let file = |(path, bytes): &(PathBuf, u64)| json!({ "path": path, "bytes": bytes });
    json!({
        "format": converted.format,
        "operations": converted.nodes,
        "notes": converted.notes,
        "files": converted.files.iter().map(file).collect::<Vec<_>>(),
    })
}
