//! `kinglet run` on pictures and tensors: ONNX and Core ML models.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use kinglet::catalog::{Catalog, known};
use kinglet::graphs::{Answer, GraphFiles, GraphModel, Label, Reader, Verdict, write_npz};
use kinglet::models::image::{Picture, encode_png};
use kinglet::models::task::{DetectionOptions, ocr};
use kinglet::tensor::Tensor;
use serde_json::{Value, json};

use super::{Args, feeds, values};
use crate::commands::options::fetched;
use crate::commands::{buffers, given};
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
    /// Inputs of the model from NumPy files (may be given several times): one from NAME=FILE.npy, those that arrays of
    /// FILE.npz are named after, or one of them from NAME=FILE.npz. Floats of another width than the input's are rounded to the nearest, integers of 32 and 64 bits become each
    /// other where all of them fit; arrays of any other type, and numbers that the input's type does not reach, are refused
    #[arg(long, value_name = "NAME=FILE.npy|FILE.npz")]
    input: Vec<String>,
    /// Write the model's outputs to this file (tensors of numbers; the others are told)
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
    if args.prompt.is_empty() && !model.sees() {
        return Err(hinted(
            "no inputs are given, and the model takes tensors",
            format!(
                "it takes: {}; say --input NAME=FILE.npy, or --input FILE.npz",
                feeds::takes(model.inputs())
            ),
        ));
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
            "name one or several: kinglet run MODEL photo.jpg (or tensors: --input NAME=FILE.npy, --input FILE.npz)",
        ));
    }
    if ui.verbose() > 0 {
        ui.note(format_args!("loaded in {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    }
    let mut results = Vec::new();
    for (i, name) in args.prompt.iter().enumerate() {
        let picture = given::picture(name)?;
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
    if let Some(path) = &graph.output {
        write(&answer, path, ui)?;
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
        Answer::Tensors(outputs) => values::list(outputs, ui),
        Answer::Values(outputs) => values::print(outputs, ui),
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
        Answer::Values(outputs) => {
            json!({ "outputs": outputs.iter().map(|(name, value)| values::json(name, value)).collect::<Vec<_>>() })
        }
    };
    if !name.is_empty() {
        value["image"] = json!(name);
    }
    value
}

/// Runs the model once on tensors from files.
fn tensors(args: &Args, model: &mut GraphModel, ui: &Ui) -> Result<()> {
    let most = args.load.plain(ui).buffers.max_elements;
    let feeds = feeds::read(&args.graph.input, model.inputs(), most)?;
    let answer = model.answer(&feeds)?;
    let buffers = model.session().buffers();
    if ui.verbose() > 0 && !ui.json() {
        ui.note(buffers::line(&buffers));
    }
    if let Some(path) = &args.graph.output {
        write(&answer, path, ui)?;
    }
    let verdict = if let Answer::Tensors(outputs) = &answer { model.verdict(outputs) } else { None };
    if !ui.json() {
        print(&answer, ui)?;
        return verdict.map_or(Ok(()), |verdict| tell(&verdict, args.graph.top, ui));
    }
    let mut value = describe("", &answer);
    if let Some(verdict) = &verdict {
        add(&mut value, verdict);
    }
    if ui.verbose() > 0 {
        value["buffers"] = buffers::as_json(&buffers);
    }
    ui.value(&value)
}

/// Writes the outputs that are tensors of numbers, and tells which are not.
fn write(answer: &Answer, path: &Path, ui: &Ui) -> Result<()> {
    match answer {
        Answer::Tensors(outputs) => write_npz(path, outputs)?,
        Answer::Values(outputs) => {
            let (mut arrays, mut others) = (Vec::new(), Vec::new());
            for (name, value) in outputs {
                match value.tensor().and_then(|array| array.clone().into_tensor(name)) {
                    Some(tensor) => arrays.push(tensor),
                    None => others.push(brief(name, 60)),
                }
            }
            write_npz(path, &arrays)?;
            ui.note(format_args!(
                "{} not written: no array of numbers (--json prints it)",
                others.join(", ")
            ));
        }
        Answer::Classes(_) | Answer::Objects(_) | Answer::Parts(..) => {}
    }
    Ok(())
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

/// `photo.found.png` in the current folder.
fn beside(name: &str) -> PathBuf {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("{stem}.found.png"))
}

fn save(picture: &Picture, path: &Path) -> Result<()> {
    std::fs::write(path, encode_png(picture)?).with_context(|| path.display().to_string())
}
