//! One case: a model with inputs and expected outputs, run in every mode, and once more after it was written and read again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kinglet_cpu::{CpuBackend, Feed, Precision, Session, SessionOptions, Value};
use kinglet_formats::ExportError;
use kinglet_formats::onnx::{self, NoExternal, OnnxModel, proto};
use kinglet_graph::{Dim, Graph, Type};
use kinglet_tensor::Bytes;
use prost::Message;

use crate::compare::compare;
use crate::data::{Kind, arrays, ramp};
use crate::odd;

/// How a case runs.
struct Mode {
    name: &'static str,
    fuse: bool,
    interpret: bool,
    /// Whether the model is written and read again before it runs.
    write: bool,
}

/// Op by op; planned as it is; fused and planned; written, read again, and op by op.
const MODES: [Mode; 4] = [
    Mode { name: "raw", fuse: false, interpret: true, write: false },
    Mode { name: "planned", fuse: false, interpret: false, write: false },
    Mode { name: "fused", fuse: true, interpret: false, write: false },
    Mode { name: "written", fuse: false, interpret: true, write: true },
];

/// What came of a case that passes.
pub(crate) enum Written {
    /// Its model was written, too.
    Whole,
    /// The format cannot express it, for this reason.
    Not(String),
}

/// Runs the case in a folder, or of a lone model; what went wrong, if anything did. The model is also written to `keep`.
pub(crate) fn run(path: &Path, keep: Option<&Path>) -> Result<Written, String> {
    let mut written = Written::Whole;
    let case = caught("read", || Case::read(path))?;
    for mode in &MODES {
        if let Some(reason) = caught(mode.name, || run_in(&case, mode, keep))? {
            written = Written::Not(reason);
        }
    }
    Ok(written)
}

/// What `work` makes; errors and panics say what was being done.
fn caught<T>(what: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| format!("{what}: {error}")),
        Err(panic) => Err(format!("{what}: PANIC {}", panic_text(&*panic))),
    }
}

/// A case, read from its files.
struct Case<'a> {
    path: &'a Path,
    model: OnnxModel,
    /// Inputs and expected outputs.
    sets: Vec<Set>,
}

impl<'a> Case<'a> {
    fn read(path: &'a Path) -> Result<Self, String> {
        let (model, declared) = read(path)?;
        let sets = sets(path, &model, &declared.graph.unwrap_or_default())?;
        Ok(Self { path, model, sets })
    }
}

/// Feeds the case's model with odd inputs; an error lists the panics.
pub(crate) fn run_odd(path: &Path) -> Result<Written, String> {
    quietly(path, odd::panics)
}

/// Damages the case's model; an error lists the panics.
#[cfg(test)]
pub(crate) fn run_damaged(path: &Path) -> Result<Written, String> {
    quietly(path, odd::panics_when_damaged)
}

fn quietly(path: &Path, panics: fn(&proto::Model, &[Value]) -> Vec<String>) -> Result<Written, String> {
    let Ok((model, declared)) = read(path) else { return Ok(Written::Whole) };
    let graph = declared.graph.clone().unwrap_or_default();
    let Some((inputs, _)) = sets(path, &model, &graph)?.into_iter().next() else { return Ok(Written::Whole) };
    let panics = panics(&declared, &inputs);
    if panics.is_empty() { Ok(Written::Whole) } else { Err(panics.join("; ")) }
}

/// Where the last panic happened.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Keeps panics quiet, and remembers where they happen.
pub(crate) fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
}

/// What the last panic said, and where.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    format!("{text} ({place})")
}

/// The case's model, and its file's message.
fn read(path: &Path) -> Result<(OnnxModel, proto::Model), String> {
    let file = if path.is_dir() { path.join("model.onnx") } else { path.to_path_buf() };
    let bytes = Bytes::from(std::fs::read(&file).map_err(|e| e.to_string())?);
    let model = onnx::read(bytes.clone(), &NoExternal).map_err(|e| e.to_string())?;
    Ok((model, proto::Model::decode(bytes).map_err(|e| e.to_string())?))
}

/// Why the case could not run in this mode, if it could not.
fn run_in(case: &Case<'_>, mode: &Mode, keep: Option<&Path>) -> Result<Option<String>, String> {
    let mut backend = CpuBackend::new(2);
    backend.precision = Precision::F32;
    let options =
        SessionOptions { fuse: mode.fuse, interpret: mode.interpret, ..SessionOptions::new(backend) };
    let graph = match mode.write {
        false => case.model.graph.clone(),
        true => match rewritten(case, keep)? {
            Ok(graph) => graph,
            Err(reason) => return Ok(Some(reason)),
        },
    };
    let mut session = Session::new(graph, &options).map_err(|e| e.to_string())?;
    for (inputs, expected) in &case.sets {
        let feeds: Vec<Feed<'_>> = inputs.iter().map(Feed::Value).collect();
        session.run(&feeds).map_err(|e| e.to_string())?;
        for (i, expected) in expected.iter().enumerate() {
            let found = session.output_value(i).map_err(|e| e.to_string())?;
            compare(&found, expected).map_err(|e| format!("output {i}: {e}"))?;
        }
    }
    Ok(None)
}

/// The graph after writing and reading it; inside, why the format cannot express it.
fn rewritten(case: &Case<'_>, keep: Option<&Path>) -> Result<Result<Graph, String>, String> {
    let (path, model) = (case.path, &case.model);
    let options = onnx::WriteOptions {
        outputs: model.outputs.iter().map(|(name, _)| name.clone()).collect(),
        types: model.outputs.iter().cloned().collect(),
        ..Default::default()
    };
    let written = match onnx::write(&model.graph, &options) {
        Ok(written) => written,
        Err(ExportError::Unsupported { missing, .. }) => {
            let reasons = missing.iter().map(|m| format!("{}, {}", m.op, m.reason));
            return Ok(Err(reasons.collect::<Vec<_>>().join("; ")));
        }
        Err(other) => return Err(other.to_string()),
    };
    if let Some(folder) = keep {
        let case = path.file_stem().unwrap_or_default().to_string_lossy();
        let file = folder.join(format!("{case}.onnx"));
        std::fs::write(file, &written.model).map_err(|e| e.to_string())?;
    }
    onnx::read(written.model.into(), &NoExternal).map(|model| Ok(model.graph)).map_err(|e| e.to_string())
}

type Set = (Vec<Value>, Vec<Value>);

/// Inputs and expected outputs.
fn sets(path: &Path, model: &OnnxModel, declared: &proto::Graph) -> Result<Vec<Set>, String> {
    let kinds = |list: &[proto::ValueInfo]| -> Vec<Kind> { list.iter().map(Kind::of).collect() };
    if path.is_file() {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let graph = &model.graph;
        let expected = path.with_file_name(format!("{stem}_output_0.pb"));
        let inputs =
            graph.inputs().iter().map(|id| input_of(&graph.value(*id).ty)).collect::<Result<_, _>>()?;
        let bytes = std::fs::read(expected).map_err(|e| e.to_string())?;
        return Ok(vec![(inputs, vec![crate::data::value(bytes, Kind::Tensor)?])]);
    }
    let constant = |i: &&proto::ValueInfo| declared.initializer.iter().any(|t| t.name == i.name);
    let inputs: Vec<_> = declared.input.iter().filter(|i| !constant(i)).cloned().collect();
    let mut sets = Vec::new();
    for n in 0.. {
        let folder = path.join(format!("test_data_set_{n}"));
        if !folder.is_dir() {
            break;
        }
        let inputs = arrays(&folder, "input", &kinds(&inputs))?;
        let outputs = arrays(&folder, "output", &kinds(&declared.output))?;
        sets.push((inputs, outputs));
    }
    if sets.is_empty() { Err("no data".into()) } else { Ok(sets) }
}

fn input_of(ty: &Type) -> Result<Value, String> {
    let ty = ty.tensor().ok_or("an input is no tensor")?;
    Ok(ramp(&ty.shape.iter().map(|dim| if let Dim::Fixed(n) = dim { *n } else { 1 }).collect::<Vec<_>>()))
}
