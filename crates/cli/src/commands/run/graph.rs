//! `kinglet run` on pictures and tensors: ONNX and Core ML models.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::catalog::{Catalog, known};
use kinglet::graphs::{Answer, GraphFiles, GraphModel, Label, Reader, Verdict, write_npz};
use kinglet::models::image::{ImageLimits, Picture, decode, encode_png};
use kinglet::models::task::{DetectionOptions, ocr};
use kinglet::tensor::Tensor;
use serde_json::{Value, json};

use super::Args;
use crate::commands::buffers;
use crate::commands::options::fetched;
use crate::failure::hinted;
use crate::ui::{Fetching, Table, Ui, brief};

/// What to do with pictures and tensors.
#[derive(clap::Args)]
#[command(next_help_heading = "Pictures and tensors")]
pub(crate) struct GraphArgs {
    /// Classes to tell for each picture
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// Least score of an object that counts as found [default: the model's own]
    #[arg(long, value_name = "P")]
    score: Option<f32>,
    /// Where the picture with boxes or masks goes [default: NAME.found.png in this folder]
    #[arg(long, value_name = "FILE.png")]
    draw: Option<PathBuf>,
    /// An input of the model from a NumPy file (may be given several times)
    #[arg(long, value_name = "NAME=FILE.npy")]
    input: Vec<String>,
    /// Write the model's outputs to this file
    #[arg(long, value_name = "FILE.npz")]
    output: Option<PathBuf>,
}

/// A model that takes pictures or tensors.
pub(super) enum Subject {
    /// One graph.
    Graph(PathBuf),
    /// Models that read text together, by name and path.
    Reader(Vec<(String, PathBuf)>),
    /// The same, in a folder.
    ReaderFolder(PathBuf),
}

impl Subject {
    /// The model of this name, when it is one of these; a known one is fetched when it is not here.
    pub(super) fn find(name: &str, ui: &Ui) -> Result<Option<Self>> {
        let path = Path::new(name);
        if GraphFiles::is_one(path) {
            return Ok(Some(Self::Graph(path.to_owned())));
        }
        if Reader::is_one(path) {
            return Ok(Some(Self::ReaderFolder(path.to_owned())));
        }
        let (family, tag) = name.split_once(':').map_or((name, None), |(family, tag)| (family, Some(tag)));
        let known = known::find(family, tag);
        let parts = known.and_then(|known| known.package).map_or(0, |package| package.parts.len());
        if parts < 2 {
            return Ok(fetched(name, ui)?.map(Self::Graph));
        }
        let model = Catalog::from_env().resolve(name, &Fetching::new(ui))?;
        Ok(Some(Self::Reader(model.files.into_iter().map(|file| (file.name, file.path)).collect())))
    }
}

/// Runs the model on each picture that is named, or on the tensors of `--input`.
pub(super) fn run(args: &Args, subject: &Subject, ui: &Ui) -> Result<()> {
    let options = args.load.plain(ui);
    let started = Instant::now();
    let mut reader = match subject {
        Subject::Graph(path) => return graph(args, GraphModel::open(path, &options)?, started, ui),
        Subject::Reader(files) => Reader::of(files, &options)?,
        Subject::ReaderFolder(folder) => Reader::open(folder, &options)?,
    };
    each(args, ui, started, |name, picture| read(&mut reader, name, picture, args, ui))
}

fn graph(args: &Args, mut model: GraphModel, started: Instant, ui: &Ui) -> Result<()> {
    for note in model.notes() {
        ui.note(note);
    }
    if !args.graph.input.is_empty() || args.graph.output.is_some() && args.prompt.is_empty() {
        return tensors(args, &mut model, ui);
    }
    each(args, ui, started, |name, picture| look(&mut model, name, picture, args, ui))?;
    if ui.verbose() > 0 {
        ui.note(buffers::line(&model.session().buffers()));
    }
    Ok(())
}

/// Decodes each picture and hands it on; with `--json`, all results are one list.
fn each(
    args: &Args,
    ui: &Ui,
    started: Instant,
    mut work: impl FnMut(&str, &Picture) -> Result<Value>,
) -> Result<()> {
    if args.prompt.is_empty() {
        return Err(hinted(
            "no picture is given",
            "name one or several: kinglet run MODEL photo.jpg (or tensors: --input NAME=FILE.npy)",
        ));
    }
    if ui.verbose() > 0 {
        ui.note(format_args!("loaded in {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    }
    let mut results = Vec::new();
    for (i, name) in args.prompt.iter().enumerate() {
        let bytes = std::fs::read(name).with_context(|| brief(name, 200))?;
        let picture = decode(&bytes, &ImageLimits::default()).with_context(|| brief(name, 200))?;
        if !ui.json() && args.prompt.len() > 1 {
            if i > 0 {
                ui.line("")?;
            }
            ui.heading(brief(name, ui.columns()))?;
        }
        let start = Instant::now();
        results.push(work(name, &picture)?);
        if ui.verbose() > 0 {
            ui.note(format_args!("{:.0} ms", start.elapsed().as_secs_f64() * 1e3));
        }
    }
    if ui.json() { ui.value(&results) } else { Ok(()) }
}

fn read(reader: &mut Reader, name: &str, picture: &Picture, args: &Args, ui: &Ui) -> Result<Value> {
    let rows = reader.read(picture)?;
    if let Some(path) = &args.graph.draw {
        let mut canvas = kinglet::models::image::Canvas::new(picture);
        rows.iter().flatten().for_each(|line| canvas.outline(&line.quad, [230, 57, 70]));
        save(&canvas.finish(), path)?;
    }
    if !ui.json() {
        let text = ocr::text(&rows);
        if text.is_empty() {
            ui.note("no text was found");
        } else {
            ui.line(crate::ui::plain(text.trim_end_matches('\n')))?;
        }
    }
    let line = |line: &ocr::Line| json!({ "text": line.text, "score": line.score, "corners": line.quad });
    Ok(
        json!({ "image": name, "text": ocr::text(&rows), "lines": rows.iter().flatten().map(line).collect::<Vec<_>>() }),
    )
}

fn look(model: &mut GraphModel, name: &str, picture: &Picture, args: &Args, ui: &Ui) -> Result<Value> {
    let graph = &args.graph;
    let options = DetectionOptions { score: graph.score, ..DetectionOptions::default() };
    let answer = model.look(picture, graph.top, &options)?;
    if !ui.json() {
        print(&answer, ui)?;
    }
    let mut value = describe(name, &answer);
    if let Some(drawn) = answer.draw(picture) {
        let path = graph.draw.clone().unwrap_or_else(|| beside(name));
        save(&drawn, &path)?;
        ui.note(format_args!("drawn into {}", path.display()));
        value["drawn"] = json!(path);
    }
    if let (Answer::Tensors(outputs), Some(path)) = (&answer, &graph.output) {
        write_npz(path, outputs)?;
    }
    Ok(value)
}

fn print(answer: &Answer, ui: &Ui) -> Result<()> {
    match answer {
        Answer::Classes(classes) => {
            let mut table = Table::new(&[">PROBABILITY", "CLASS"]);
            for (ranked, label) in classes {
                table.row([format!("{:.1} %", ranked.probability * 100.0), brief(label, 100)]);
            }
            ui.line(table)
        }
        Answer::Objects(objects) if objects.is_empty() => {
            ui.note("nothing was found (a lower --score may find more)");
            Ok(())
        }
        Answer::Objects(objects) => {
            let mut table = Table::new(&[">SCORE", "CLASS", ">LEFT", ">TOP", ">RIGHT", ">BOTTOM"]);
            for (object, label) in objects {
                let [left, top, right, bottom] = object.corners.map(|x| format!("{x:.0}"));
                table.row([
                    format!("{:.1} %", object.score * 100.0),
                    brief(label, 100),
                    left,
                    top,
                    right,
                    bottom,
                ]);
            }
            ui.line(table)
        }
        Answer::Parts(mask, _, names) => {
            let mut table = Table::new(&[">SHARE", "CLASS"]);
            for ((_, share), (_, name)) in mask.shares().iter().zip(names) {
                table.row([format!("{:.1} %", share * 100.0), brief(name, 100)]);
            }
            ui.line(table)
        }
        Answer::Tensors(outputs) => list(outputs, ui),
    }
}

fn describe(name: &str, answer: &Answer) -> Value {
    let mut value = match answer {
        Answer::Classes(classes) => {
            let one = |(r, label): &(kinglet::models::task::Ranked, String)| json!({ "class": r.class, "label": label, "probability": r.probability });
            json!({ "classes": classes.iter().map(one).collect::<Vec<_>>() })
        }
        Answer::Objects(objects) => {
            let one = |(d, label): &(kinglet::models::task::Detection, String)| json!({ "class": d.class, "label": label, "score": d.score, "box": d.corners });
            json!({ "objects": objects.iter().map(one).collect::<Vec<_>>() })
        }
        Answer::Parts(mask, _, names) => {
            let one = |((class, share), (_, label)): (&(usize, f32), &(usize, String))| json!({ "class": class, "label": label, "share": share });
            json!({ "parts": mask.shares().iter().zip(names).map(one).collect::<Vec<_>>() })
        }
        Answer::Tensors(outputs) => {
            let one = |t: &Tensor| json!({ "name": t.name(), "dtype": t.dtype().name(), "shape": t.shape() });
            json!({ "outputs": outputs.iter().map(one).collect::<Vec<_>>() })
        }
    };
    if !name.is_empty() {
        value["image"] = json!(name);
    }
    value
}

/// Runs the model once on tensors from files.
fn tensors(args: &Args, model: &mut GraphModel, ui: &Ui) -> Result<()> {
    let mut given = Vec::new();
    for pair in &args.graph.input {
        let (name, file) = pair.split_once('=').ok_or_else(|| {
            hinted(format!("`{}` is no NAME=FILE.npy", brief(pair, 200)), "for example --input x=photo.npy")
        })?;
        let bytes = std::fs::read(file).with_context(|| brief(file, 200))?.into();
        given.push(kinglet::formats::npy::read(name, &bytes).with_context(|| brief(file, 200))?);
    }
    let expected: Vec<String> =
        model.inputs().iter().map(|port| format!("{} {}", port.name, port.text)).collect();
    let find = |port: &kinglet::graphs::Port| {
        let found = given.iter().find(|tensor| tensor.name() == port.name).cloned();
        let missing = || {
            hinted(
                format!("input `{}` ({}) is not given", brief(&port.name, 100), port.text),
                format!("the model takes: {}", expected.join("; ")),
            )
        };
        Ok(port.fitted(&found.ok_or_else(missing)?)?)
    };
    let feeds = model.inputs().iter().map(find).collect::<Result<Vec<_>>>()?;
    if let Some(other) = given.iter().find(|t| model.inputs().iter().all(|port| port.name != t.name())) {
        return Err(hinted(
            format!("the model has no input `{}`", brief(other.name(), 100)),
            format!("it takes: {}", expected.join("; ")),
        ));
    }
    let outputs = model.run(&feeds)?;
    let buffers = model.session().buffers();
    if ui.verbose() > 0 && !ui.json() {
        ui.note(buffers::line(&buffers));
    }
    if let Some(path) = &args.graph.output {
        write_npz(path, &outputs)?;
    }
    let verdict = model.verdict(&outputs);
    if !ui.json() {
        list(&outputs, ui)?;
        return verdict.map_or(Ok(()), |verdict| tell(&verdict, args.graph.top, ui));
    }
    let mut value = describe("", &Answer::Tensors(outputs));
    if let Some(verdict) = &verdict {
        add(&mut value, verdict);
    }
    if ui.verbose() > 0 {
        value["buffers"] = buffers::as_json(&buffers);
    }
    ui.value(&value)
}

/// The class and the most probable ones.
fn tell(verdict: &Verdict, count: usize, ui: &Ui) -> Result<()> {
    let mut order: Vec<&(String, f32)> = verdict.probabilities.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut table = Table::new(&[">PROBABILITY", "CLASS"]);
    for (name, probability) in order.into_iter().take(count) {
        table.row([format!("{:.1} %", probability * 100.0), brief(name, 100)]);
    }
    ui.line("")?;
    ui.line(format_args!("{}: {}", brief(&verdict.output, 60), brief(&verdict.label.to_string(), 200)))?;
    ui.line("")?;
    ui.line(table)
}

/// The outputs that are no tensors, among those that are: `value` of the class, and of the dictionary.
fn add(report: &mut Value, verdict: &Verdict) {
    let Some(outputs) = report["outputs"].as_array_mut() else { return };
    let of = verdict.probabilities.iter().map(|(name, probability)| (name.clone(), json!(probability)));
    let dictionary = Value::Object(of.collect());
    if let Some(output) = outputs.iter_mut().find(|output| output["name"] == verdict.dictionary.as_str()) {
        output["value"] = dictionary;
    }
    let (dtype, value) = match &verdict.label {
        Label::Text(text) => ("string", json!(text)),
        Label::Number(number) => ("int64", json!(number)),
    };
    outputs.push(json!({ "name": verdict.output, "dtype": dtype, "shape": [], "value": value }));
}

/// Name, type, shape and range of each tensor.
fn list(outputs: &[Tensor], ui: &Ui) -> Result<()> {
    let mut table = Table::new(&["OUTPUT", "TYPE", "SHAPE", ">LEAST", ">MOST"]);
    for tensor in outputs {
        let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        let values = kinglet::graphs::floats(tensor).map(|array| array.data).unwrap_or_default();
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let range = [least, most].map(|x| if x.is_finite() { format!("{x:.4}") } else { String::new() });
        let [least, most] = range;
        table.row([brief(tensor.name(), 60), tensor.dtype().to_string(), shape.join(" × "), least, most]);
    }
    ui.line(table)
}

/// `photo.found.png` in the current folder.
fn beside(name: &str) -> PathBuf {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("{stem}.found.png"))
}

fn save(picture: &Picture, path: &Path) -> Result<()> {
    std::fs::write(path, encode_png(picture)?).with_context(|| path.display().to_string())
}
