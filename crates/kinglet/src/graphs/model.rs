//! A model bound to this machine, run on tensors.

use std::path::Path;
use std::sync::Arc;

use kinglet_cpu::{
    CpuBackend, Feed, LargeOutputs, PackStore, Precision, Session, SessionOptions, TensorView, Value,
};
use kinglet_graph::ops::{Dequantize, DynamicQuantize, Quantize};
use kinglet_graph::{Def, Dim, Graph, Op, Type, ValueId};
use kinglet_models::image::Array;
use kinglet_tensor::{DType, Tensor};

use super::files::GraphFiles;
use super::outputs::OutputFolder;
use super::sweep::watch;
use crate::model::backend;
use crate::packs::{Keeper, PackFolder};
use crate::{Error, LoadOptions};

/// An ONNX or Core ML model, ready to run.
pub struct GraphModel {
    pub(super) files: GraphFiles,
    session: Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type, when it is a tensor.
    pub dtype: Option<DType>,
    /// Sizes, none where a run decides.
    pub shape: Vec<Option<usize>>,
    /// All of it in words: `F32[N, 3, 224, 224]`.
    pub text: String,
}

impl GraphModel {
    /// Opens a `.onnx` or `.mlmodel` file or a `.mlpackage` folder.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        Self::new(GraphFiles::open(path)?, options)
    }

    /// Binds a model that was read to this machine.
    pub fn new(mut files: GraphFiles, options: &LoadOptions) -> Result<Self, Error> {
        let graph = std::mem::take(&mut files.graph);
        if options.precision == Precision::Int8 && !quantised(&graph) {
            return Err(Error::Option {
                option: "precision",
                found: "int8".into(),
                expected: "auto, f32 or bf16, as the model quantises nothing itself".into(),
            });
        }
        let (inputs, outputs) = (ports(&graph, graph.inputs()), ports(&graph, graph.outputs()));
        let session = Session::new(graph, &session_options(&files, options)?)?;
        watch(session.pool());
        Ok(Self { files, session, inputs, outputs })
    }

    /// What each run brings, in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What each run leaves, in order.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// What was read otherwise than it stands in the file.
    pub fn notes(&self) -> &[String] {
        &self.files.notes
    }

    /// What its makers noted under this key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.files.metadata.get(key).map(String::as_str)
    }

    /// Its graph, plans and figures.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Waits until the weights of all shapes that it has run with are packed. Runs wait by themselves, step by step.
    pub fn wait(&self) -> Result<(), Error> {
        Ok(self.session.wait()?)
    }

    /// Runs it on one tensor for each input, in order.
    pub fn run(&mut self, feeds: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.session.run(&borrowed(feeds))?;
        self.handed_out()
    }

    /// The outputs of the last run: in buffers that go back to the session's pool, or in files when they are large.
    pub(super) fn handed_out(&self) -> Result<Vec<Tensor>, Error> {
        let name = |i: usize| self.outputs.get(i).map_or("", |port| &port.name);
        (0..self.session.outputs()).map(|i| tensor_of(&self.session, i, name(i))).collect()
    }
}

/// Tensors as a session takes them.
pub(super) fn borrowed(feeds: &[Tensor]) -> Vec<Feed<'_>> {
    feeds
        .iter()
        .map(|t| Feed::Tensor(TensorView { dtype: t.dtype(), shape: t.shape(), data: t.data() }))
        .collect()
}

/// Output `i` of a session's last run.
pub(super) fn tensor_of(session: &Session, i: usize, name: &str) -> Result<Tensor, Error> {
    let tensor = match session.output_value(i)? {
        Value::Tensor(array) => array.into_tensor(name),
        _ => None,
    };
    tensor.ok_or_else(|| Error::NoTensor { output: name.into() })
}

/// Whether a graph says which of its values are integers.
fn quantised(graph: &Graph) -> bool {
    let codes = |op: &dyn Op| {
        op.downcast::<Dequantize>().is_some()
            || op.downcast::<Quantize>().is_some()
            || op.downcast::<DynamicQuantize>().is_some()
    };
    let weight = |def: &Def| match def {
        Def::Weight(t) if matches!(t.dtype(), DType::I8 | DType::U8) => t.shape().len() > 1,
        Def::Weight(t) => t.dtype().is_quantized(),
        _ => false,
    };
    graph.nodes().iter().any(|node| codes(&*node.op)) || graph.values().iter().any(|v| weight(&v.def))
}

fn session_options(model: &GraphFiles, options: &LoadOptions) -> Result<SessionOptions, Error> {
    let buffers = &options.buffers;
    let keeper =
        |folder: &PackFolder| Arc::new(Keeper::new(folder.of_files(&model.sources))) as Arc<dyn PackStore>;
    let packs = buffers.packs.as_ref().filter(|_| !model.sources.is_empty()).map(keeper);
    let files = |from| LargeOutputs { from, files: Arc::new(OutputFolder::default()) };
    Ok(SessionOptions {
        pool: buffers.pool,
        max_elements: buffers.max_elements,
        large_outputs: buffers.large_outputs.map(files),
        ..SessionOptions::new(CpuBackend { packs, ..backend(options)? })
    })
}

pub(super) fn ports(graph: &Graph, ids: &[ValueId]) -> Vec<Port> {
    let port = |id: &ValueId| {
        let value = graph.value(*id);
        let ty = value.ty.tensor();
        let size = |dim: &Dim| dim.fixed();
        Port {
            name: value.name.clone(),
            dtype: ty.map(|ty| ty.dtype),
            shape: ty.map_or_else(Vec::new, |ty| ty.shape.iter().map(size).collect()),
            text: graph.type_text(&value.ty),
        }
    };
    ids.iter().map(port).collect()
}

impl Port {
    /// Whether a run may bring a value of any type here.
    pub fn is_open(&self) -> bool {
        self.text == Graph::default().type_text(&Type::Unknown)
    }

    /// The array as a tensor of this port's element type.
    pub(super) fn tensor(&self, array: &Array) -> Result<Tensor, Error> {
        let dtype = self.dtype.unwrap_or(DType::F32);
        let mut bytes = Vec::new();
        match dtype {
            DType::U8 => bytes.extend(array.data.iter().map(|x| x.round().clamp(0.0, 255.0) as u8)),
            DType::F64 => bytes.extend(array.data.iter().flat_map(|x| f64::from(*x).to_le_bytes())),
            DType::F32 | DType::F16 | DType::BF16 => {
                kinglet_tensor::quant::quantize(dtype, &array.data, &mut bytes).map_err(|source| {
                    Error::Model(kinglet_models::ModelError::Values { name: self.name.clone(), source })
                })?;
            }
            other => return Err(Error::Input { input: self.name.clone(), dtype: other }),
        }
        Tensor::new(&self.name, dtype, array.shape.clone(), bytes.into()).map_err(|e| Error::Model(e.into()))
    }
}

/// A tensor's numbers as f32; none for texts.
pub fn floats(tensor: &Tensor) -> Option<Array> {
    let literal = kinglet_formats::coreml::Literal::Tensor(tensor.clone());
    Array::new(tensor.shape(), literal.floats()?)
}
