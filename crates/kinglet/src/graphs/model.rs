//! A model bound to this machine, run on tensors.

use std::path::Path;
use std::sync::Arc;

use kinglet_cpu::{CpuBackend, Feed, LargeOutputs, PackStore, Session, SessionOptions, TensorView, Value};
use kinglet_graph::{Dim, Graph, Type, ValueId};
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
    /// What it keeps from run to run.
    states: Vec<Tensor>,
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
        let files = match &options.function {
            Some(function) => GraphFiles::open_function(path, function)?,
            None => GraphFiles::open(path)?,
        };
        Self::new(files, options)
    }

    /// Binds a model that was read to this machine.
    pub fn new(mut files: GraphFiles, options: &LoadOptions) -> Result<Self, Error> {
        let graph = std::mem::take(&mut files.graph);
        let (mut inputs, mut outputs) = (ports(&graph, graph.inputs()), ports(&graph, graph.outputs()));
        outputs.truncate(outputs.len().saturating_sub(files.states));
        // Values that several outputs share, and those of functions, have other names in the graph.
        for (port, (name, _)) in outputs.iter_mut().zip(&files.outputs) {
            port.name.clone_from(name);
        }
        let states = inputs.split_off(inputs.len().saturating_sub(files.states));
        let states = states.iter().map(zeros).collect::<Result<_, _>>()?;
        let session = Session::new(graph, &session_options(&files, options)?)?;
        watch(session.pool());
        Ok(Self { files, session, inputs, outputs, states })
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

    /// Runs it on one tensor for each input, in order. States of the model go on from the last run. An output that is no
    /// tensor of numbers is an error, see [`Self::run_values`].
    pub fn run(&mut self, feeds: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let values = self.run_values(feeds)?;
        self.tensors(values)
    }

    /// Outputs of a run as tensors under their names.
    pub(super) fn tensors(&self, values: Vec<Value>) -> Result<Vec<Tensor>, Error> {
        values.into_iter().zip(&self.outputs).map(|(value, port)| tensor_of(value, &port.name)).collect()
    }

    /// The same with outputs of any kind: texts, lists, nothing.
    pub fn run_values(&mut self, feeds: &[Tensor]) -> Result<Vec<Value>, Error> {
        self.session.run(&borrowed(&self.with_states(feeds)))?;
        let mut values = self.handed_out()?;
        let states = values.split_off(values.len().saturating_sub(self.states.len())).into_iter();
        let named = states.zip(&self.states).map(|(value, state)| tensor_of(value, state.name()));
        self.states = named.collect::<Result<_, _>>()?;
        Ok(values)
    }

    /// Sets all states back to zero, as they are before the first run.
    pub fn reset(&mut self) {
        for state in &mut self.states {
            let data = vec![0; state.data().len()].into();
            if let Ok(zeros) = Tensor::new(state.name(), state.dtype(), state.shape().to_vec(), data) {
                *state = zeros;
            }
        }
    }

    /// What the session takes: a tensor for each input, and the states.
    pub(super) fn with_states(&self, feeds: &[Tensor]) -> Vec<Tensor> {
        feeds.iter().chain(&self.states).cloned().collect()
    }

    /// The outputs of the last run: in buffers that go back to the session's pool, or in files when they are large.
    pub(super) fn handed_out(&self) -> Result<Vec<Value>, Error> {
        (0..self.session.outputs()).map(|i| Ok(self.session.output_value(i)?)).collect()
    }
}

/// Zeros for a state.
fn zeros(port: &Port) -> Result<Tensor, Error> {
    let unknown = || Error::NoTensor { output: port.name.clone() };
    let shape: Vec<usize> = port.shape.iter().copied().collect::<Option<_>>().ok_or_else(unknown)?;
    let dtype = port.dtype.ok_or_else(unknown)?;
    let bytes = Tensor::bytes_of(dtype, &shape).ok_or_else(unknown)?;
    Tensor::new(&port.name, dtype, shape, vec![0; bytes].into()).map_err(|e| Error::Model(e.into()))
}

/// Tensors as a session takes them.
pub(super) fn borrowed(feeds: &[Tensor]) -> Vec<Feed<'_>> {
    feeds
        .iter()
        .map(|t| Feed::Tensor(TensorView { dtype: t.dtype(), shape: t.shape(), data: t.data() }))
        .collect()
}

/// An output of a run as a tensor of this name.
pub(super) fn tensor_of(value: Value, name: &str) -> Result<Tensor, Error> {
    let tensor = match value {
        Value::Tensor(array) => array.into_tensor(name),
        _ => None,
    };
    tensor.ok_or_else(|| Error::NoTensor { output: name.into() })
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
        max_rounds: buffers.max_rounds,
        max_list: buffers.max_list,
        fuse: options.fuse,
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

    /// How many elements it takes; none where a run decides.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, dim| count.checked_mul((*dim)?))
    }

    /// A tensor as this port takes it: floats of another width become its own, rounded to the nearest; integers of 32 and of
    /// 64 bits become each other, and truth values integers of 32 bits. Any other tensor, and one with a number that the
    /// port's type does not reach, stays as it is, for a run to refuse.
    pub fn fitted(&self, tensor: &Tensor) -> Result<Tensor, Error> {
        let float = |dtype| matches!(dtype, DType::F16 | DType::BF16 | DType::F32);
        let changed = match (tensor.dtype(), self.dtype) {
            (DType::F64, Some(to)) if float(to) => {
                floats(tensor).map(|array| self.tensor(&array)).transpose()?.filter(reaches(tensor))
            }
            (from, Some(to)) if from != to && float(from) && (float(to) || to == DType::F64) => {
                floats(tensor).map(|array| self.tensor(&array)).transpose()?
            }
            (DType::I32, Some(DType::I64)) => {
                let numbers = tensor.data().as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
                let data: Vec<u8> = numbers.flat_map(|n| i64::from(n).to_le_bytes()).collect();
                Some(self.whole(tensor, data)?)
            }
            (DType::I64, Some(DType::I32)) => {
                let numbers = tensor.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
                let short: Option<Vec<i32>> = numbers.map(|n| i32::try_from(n).ok()).collect();
                let data = short.map(|short| short.into_iter().flat_map(i32::to_le_bytes).collect());
                data.map(|data| self.whole(tensor, data)).transpose()?
            }
            (DType::Bool, Some(DType::I32)) => {
                let numbers = tensor.data().iter().map(|b| i32::from(*b != 0));
                Some(self.whole(tensor, numbers.flat_map(i32::to_le_bytes).collect())?)
            }
            _ => None,
        };
        Ok(changed.unwrap_or_else(|| tensor.clone()))
    }

    /// These integers of the port's type in the shape of the tensor; a single number in that of the port, where it has one
    /// element.
    fn whole(&self, tensor: &Tensor, data: Vec<u8>) -> Result<Tensor, Error> {
        let mut shape = tensor.shape().to_vec();
        let one = self.shape.iter().all(|dim| *dim == Some(1));
        if shape.is_empty() && one {
            shape.resize(self.shape.len(), 1);
        }
        let dtype = self.dtype.unwrap_or(DType::I64);
        Tensor::new(&self.name, dtype, shape, data.into()).map_err(|e| Error::Model(e.into()))
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

/// Whether what became of a tensor is infinite only where the tensor is.
fn reaches(tensor: &Tensor) -> impl Fn(&Tensor) -> bool {
    let infinite = |t: &Tensor| floats(t).map(|a| a.data.iter().filter(|x| x.is_infinite()).count());
    let given = tensor.data().as_chunks::<8>().0.iter();
    let expected = given.filter(|b| f64::from_le_bytes(**b).is_infinite()).count();
    move |made| infinite(made) == Some(expected)
}

/// A tensor's numbers as f32, rounded to the nearest; none for texts.
pub fn floats(tensor: &Tensor) -> Option<Array> {
    if tensor.dtype() == DType::F64 {
        let numbers = tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32);
        return Array::new(tensor.shape(), numbers.collect());
    }
    let literal = kinglet_formats::coreml::Literal::Tensor(tensor.clone());
    Array::new(tensor.shape(), literal.floats()?)
}
