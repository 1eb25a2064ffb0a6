//! Models written in another format.

use std::path::{Path, PathBuf};

use kinglet_cpu::{CpuBackend, Fold, SessionOptions};
use kinglet_formats::coreml::write as coreml;
use kinglet_formats::onnx;
use kinglet_graph::ops::Dequantize;
use kinglet_graph::passes::spell_scans;
use kinglet_graph::{Binding, Dim, Evaluate, Graph, Op, TensorType, Type, ValueId, specialise_bodies};
use kinglet_tensor::{DType, Tensor};

use super::files::GraphFiles;
use super::place::Staged;
use crate::Error;

/// How a model is written.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Whether what exists is replaced.
    pub force: bool,
    /// Open dimensions that are fixed, by name.
    pub dims: Vec<(String, usize)>,
    /// Inputs of one number that are always this, by name.
    pub constants: Vec<(String, f64)>,
    /// Core ML: floats of 16 bits, which the Neural Engine computes in.
    pub half: bool,
    /// ONNX: the set of operators; an op that needs a newer one is an error. None: 21, or newer where an op needs it.
    pub opset: Option<i64>,
    /// ONNX: bytes of weights from which on they go to a file of their own, `NAME.onnx.data`. None: when they must, at 2 GB.
    pub inline: Option<u64>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Converted {
    /// `ONNX, opset 21`.
    pub format: String,
    /// Operations in it, nested ones included.
    pub nodes: usize,
    /// Files and their bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// What is written otherwise than it stands in the model.
    pub notes: Vec<String>,
}

/// Formats that can be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Onnx,
    Package,
}

impl Target {
    fn of(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|end| end.to_str()).map(str::to_lowercase).as_deref() {
            Some("onnx") => Ok(Self::Onnx),
            Some("mlpackage") => Ok(Self::Package),
            _ => Err(Error::Target { path: path.to_owned() }),
        }
    }
}

impl GraphFiles {
    /// Writes the model to `out`, in the format that its end names: `.onnx` or `.mlpackage`. Nothing is left when that
    /// fails. `progress` hears how many bytes of how many are written.
    pub fn convert(
        &self,
        out: &Path,
        options: &ConvertOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Converted, Error> {
        let target = Target::of(out)?;
        if options.dims.is_empty() && options.constants.is_empty() {
            return self.write(&self.graph, out, options, progress);
        }
        let bindings = fixed(&self.graph, &options.dims, &options.constants)?;
        let folded = match target {
            Target::Onnx => specialise_bodies(&self.graph, &bindings, &fold()),
            Target::Package => specialise_bodies(&self.graph, &bindings, &KeptCodes(fold())),
        };
        self.write(&folded.map_err(Error::passes)?, out, options, progress)
    }

    /// Writes a graph that was made of this model's.
    pub(super) fn write(
        &self,
        graph: &Graph,
        out: &Path,
        options: &ConvertOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Converted, Error> {
        match Target::of(out)? {
            Target::Onnx => self.write_onnx(graph, out, options, progress),
            Target::Package => self.write_package(&packaged(graph)?, out, options, progress),
        }
    }

    fn write_onnx(
        &self,
        graph: &Graph,
        out: &Path,
        options: &ConvertOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Converted, Error> {
        let model = Staged::new(out, options.force)?;
        let data_path = PathBuf::from(format!("{}.data", out.display()));
        let data_name = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let written = onnx::write(
            graph,
            &onnx::WriteOptions {
                opset: options.opset,
                outputs: self.outputs.iter().map(|(name, _)| name.clone()).collect(),
                types: self.outputs.iter().cloned().collect(),
                data_name,
                inline: options.inline,
                metadata: self.metadata.clone(),
            },
        )?;
        let (own, extra) = (written.model.len() as u64, written.data_len());
        let data = (extra > 0).then(|| Staged::new(&data_path, options.force)).transpose()?;
        let mut tell = |done| progress(done, own + extra);
        let beside = data.as_ref().map(|data| data.file(&mut |sink| written.write_data(sink, &mut tell)));
        let beside = beside.transpose()?;
        let model_file = model.file(&mut |sink| sink.write_all(&written.model))?;
        let files = [model_file].into_iter().chain(beside).collect();
        progress(own + extra, own + extra);
        data.map(Staged::commit).transpose()?;
        model.commit()?;
        let format = format!("ONNX, opset {}", written.opset);
        Ok(Converted { format, nodes: written.nodes, files, notes: Vec::new() })
    }

    fn write_package(
        &self,
        graph: &Graph,
        out: &Path,
        options: &ConvertOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Converted, Error> {
        let package = Staged::new(out, options.force)?;
        let written = coreml::write(
            graph,
            &coreml::WriteOptions {
                outputs: self.outputs.iter().map(|(name, _)| name.clone()).collect(),
                half: options.half,
                metadata: self.metadata.clone(),
            },
        )?;
        let all: u64 = written.weights.iter().map(|piece| piece.len() as u64).sum();
        let mut done = 0;
        let manifest =
            package.part("Manifest.json", &mut |sink| sink.write_all(written.manifest.as_bytes()))?;
        let model = package.part(coreml::MODEL_PATH, &mut |sink| sink.write_all(&written.model))?;
        let weights = package.part(coreml::WEIGHTS_PATH, &mut |sink| {
            written.weights.iter().try_for_each(|piece| {
                done += piece.len() as u64;
                progress(done, all);
                sink.write_all(piece)
            })
        })?;
        let files = vec![manifest, model, weights];
        package.commit()?;
        let format = format!("Core ML, specification {}", written.specification);
        Ok(Converted { format, nodes: written.nodes, files, notes: written.notes })
    }
}

/// The graph as programs of Core ML ask for it: loops in the place of scans, constants where it computes some from shapes.
fn packaged(graph: &Graph) -> Result<Graph, Error> {
    let spelled = spell_scans(graph).map_err(Error::passes)?;
    let own: Vec<Binding> =
        spelled.inputs().iter().map(|id| Binding::Input(spelled.value(*id).ty.clone())).collect();
    specialise_bodies(&spelled, &own, &KeptCodes(fold())).map_err(Error::passes)
}

/// Computes constants, on one thread.
pub(super) fn fold() -> Fold {
    Fold::new(&SessionOptions::new(CpuBackend::new(1)))
}

/// Computes constants but those that packages keep as codes of 8 bits, with a scale for all or for each index of an axis.
struct KeptCodes(Fold);

impl Evaluate for KeptCodes {
    fn evaluate(&self, op: &dyn Op, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Option<Vec<Tensor>> {
        let bytes = |t: &Tensor| matches!(t.dtype(), DType::I8 | DType::U8) && t.shape().len() > 1;
        let code = inputs.first().copied().flatten().is_some_and(bytes);
        let kept = op.downcast::<Dequantize>().is_some_and(|op| op.block == 0 && code);
        if kept { None } else { self.0.evaluate(op, inputs, outputs) }
    }
}

/// The inputs of a graph, with open dimensions fixed as [`bindings`] does, and some inputs constants.
fn fixed(
    graph: &Graph,
    dims: &[(String, usize)],
    constants: &[(String, f64)],
) -> Result<Vec<Binding>, Error> {
    let mut bound = bindings(graph, dims)?;
    for (name, value) in constants {
        let place = graph.inputs().iter().position(|id| graph.value(*id).name == *name);
        let tensor = place.and_then(|i| number(name, &bound[i], *value));
        let (Some(i), Some(tensor)) = (place, tensor) else {
            let one = |(id, binding): (&ValueId, &Binding)| {
                let name = &graph.value(*id).name;
                number(name, binding, 0.0).map(|_| name.clone())
            };
            let expected: Vec<String> = graph.inputs().iter().zip(&bound).filter_map(one).collect();
            let expected =
                if expected.is_empty() { "none, no input is one number".into() } else { expected.join(", ") };
            return Err(Error::Option { option: "constant", found: name.clone(), expected });
        };
        bound[i] = Binding::Constant(tensor);
    }
    Ok(bound)
}

/// A number as a tensor of an input's type, when that has one element.
fn number(name: &str, input: &Binding, value: f64) -> Option<Tensor> {
    let Binding::Input(Type::Tensor(ty)) = input else { return None };
    let shape = ty.dims().filter(|dims| dims.iter().product::<usize>() == 1)?;
    let bytes = match ty.dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0.0)],
        _ => return None,
    };
    Tensor::new(name, ty.dtype, shape, bytes.into()).ok()
}

/// The inputs of a graph, with open dimensions of these names fixed; `INPUT.AXIS` names those without a name.
pub(super) fn bindings(graph: &Graph, dims: &[(String, usize)]) -> Result<Vec<Binding>, Error> {
    let mut known: Vec<String> = graph.dims().iter().map(|dim| dim.name.clone()).collect();
    let mut bound = Vec::new();
    for id in graph.inputs() {
        let value = graph.value(*id);
        let Type::Tensor(ty) = &value.ty else {
            bound.push(Binding::Input(value.ty.clone()));
            continue;
        };
        let mut shape = ty.shape.clone();
        for (axis, dim) in shape.iter_mut().enumerate() {
            let name = match dim {
                Dim::Sym(s) => graph.dims().get(*s).map(|dim| dim.name.clone()),
                Dim::Unknown => Some(format!("{}.{axis}", value.name)),
                _ => None,
            };
            let Some(name) = name else { continue };
            if let Some((_, n)) = dims.iter().find(|(wanted, _)| *wanted == name) {
                *dim = Dim::Fixed(*n);
            }
            known.push(name);
        }
        bound.push(Binding::Input(TensorType { dtype: ty.dtype, shape }.into()));
    }
    if let Some((name, _)) = dims.iter().find(|(name, _)| !known.contains(name)) {
        known.sort_unstable();
        known.dedup();
        let expected = if known.is_empty() { "none, all are fixed".into() } else { known.join(", ") };
        return Err(Error::Option { option: "dim", found: name.clone(), expected });
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use kinglet_graph::ops::{Binary, Fun2};
    use kinglet_graph::{GraphBuilder, specialise};

    use super::*;

    /// `x * n` with one number `n`.
    fn scaled() -> Graph {
        let mut b = GraphBuilder::new();
        let x = b.input("x", TensorType::fixed(DType::F32, &[2])).expect("new");
        let n = b.input("n", TensorType::fixed(DType::F32, &[1])).expect("new");
        let y = b.node("y", Binary(Fun2::Mul), &[x, n]).expect("typed");
        b.output(y);
        b.finish()
    }

    #[test]
    fn inputs_of_one_number_become_constants() {
        let graph = scaled();
        let bound = fixed(&graph, &[], &[("n".into(), 2.5)]).expect("one number");
        let made = specialise(&graph, &bound, &fold()).expect("typed");
        assert_eq!(made.inputs().len(), 1);
        let constant = made.weight(made.nodes()[0].inputs[1]).expect("a constant");
        assert_eq!(constant.data()[..], 2.5f32.to_le_bytes());
        for name in ["x", "z"] {
            let error = fixed(&graph, &[], &[(name.into(), 1.0)]).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains("expected n"), "{error}");
        }
    }
}
