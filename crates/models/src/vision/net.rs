//! A network under construction: values named after the modules whose weights they read.
//!
//! Every helper takes the path of a module as the checkpoint spells it (`layer1.0.conv1`), reads that module's tensors and
//! names what it makes after it. What the shapes of tensors say (channels, kernels, groups) is read from them; what
//! they do not say is an argument.

use std::collections::{BTreeMap, BTreeSet};

use kinglet_graph::ops::{
    BatchNorm, Binary, Conv, Fun, Fun2, LayerNorm, MatMul, Op, Pads, Pool, PoolKind, Reduce, ReduceKind,
    Reshape, Transpose, Unary, Window, float_scalar, int_tensor,
};
use kinglet_graph::{Dim, Graph, GraphBuilder, TensorType, Type, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor, WeightSource, quant};

use crate::ModelError;

/// Tensors that checkpoints carry although inference does not need them.
const IGNORED: [&str; 3] = ["num_batches_tracked", "position_ids", "mask_token"];

/// A network under construction.
pub(super) struct Net<'a> {
    graph: GraphBuilder,
    source: &'a dyn WeightSource,
    /// What stands before every tensor's name.
    root: &'static str,
    present: BTreeSet<String>,
    used: BTreeMap<String, ValueId>,
}

/// How far a window moves, and what is added around the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stride {
    /// Pixels from one window to the next.
    pub by: usize,
    /// TensorFlow's `SAME`, whose odd pixel lies behind, in the place of half a kernel on each side.
    pub same: bool,
}

/// Every pixel, with half a kernel around.
pub(super) const EACH: Stride = Stride::of(1);

impl Stride {
    /// Half a kernel around.
    pub(super) const fn of(by: usize) -> Self {
        Self { by, same: false }
    }

    fn window(self, kernel: [usize; 2]) -> Window {
        let half = kernel.map(|n| (n / 2) as i64);
        let pads =
            if self.same { Pads::SameUpper } else { Pads::Given(vec![half[0], half[1], half[0], half[1]]) };
        Window { strides: vec![self.by; 2], dilations: Vec::new(), pads }
    }
}

impl<'a> Net<'a> {
    /// Reads tensors of `source`; wrappers put `timm_model.` before every name.
    pub(super) fn new(source: &'a dyn WeightSource) -> Self {
        const WRAPPER: &str = "timm_model.";
        let present: BTreeSet<String> = source.names().into_iter().collect();
        let wrapped = !present.is_empty() && present.iter().all(|name| name.starts_with(WRAPPER));
        let root = if wrapped { WRAPPER } else { "" };
        Self { graph: GraphBuilder::new(), source, root, present, used: BTreeMap::new() }
    }

    /// Pictures `[N, channels, height, width]`, of any size when none is given.
    pub(super) fn image(&mut self, channels: usize, size: Option<[usize; 2]>) -> Result<ValueId, ModelError> {
        let batch = self.graph.dim("N", usize::MAX);
        let [height, width] = match size {
            Some(size) => size.map(Dim::Fixed),
            None => ["H", "W"].map(|name| self.graph.dim(name, usize::MAX)),
        };
        let shape = vec![batch, Dim::Fixed(channels), height, width];
        Ok(self.graph.input("pixel_values", TensorType { dtype: DType::F32, shape })?)
    }

    /// Declares an output of this name.
    pub(super) fn output(&mut self, name: &str, x: ValueId) -> Result<(), ModelError> {
        let named = self.node(name, kinglet_graph::ops::Identity, &[x])?;
        self.graph.output(named);
        Ok(())
    }

    /// The graph, and its outputs' names and types; an error when the checkpoint holds tensors that nothing asked for.
    pub(super) fn finish(self) -> Result<(Graph, Vec<(String, Type)>), ModelError> {
        let ignored = |name: &str| IGNORED.iter().any(|part| name.ends_with(part));
        let unused = |name: &&String| !self.used.contains_key(*name) && !ignored(name);
        let mut left = self.present.iter().filter(unused);
        if let Some(first) = left.next() {
            return Err(ModelError::UnusedTensors { first: first.clone(), count: 1 + left.count() });
        }
        let graph = self.graph.finish();
        let output = |id: &ValueId| {
            let value = graph.value(*id);
            (value.name.clone(), value.ty.clone())
        };
        let outputs = graph.outputs().iter().map(output).collect();
        Ok((graph, outputs))
    }

    /// Whether the checkpoint holds this tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.present.contains(&format!("{}{name}", self.root))
    }

    /// Whether it holds any tensor of a module.
    pub(super) fn has_module(&self, path: &str) -> bool {
        let start = format!("{}{path}.", self.root);
        self.present.range(start.clone()..).next().is_some_and(|name| name.starts_with(&start))
    }

    /// The modules `path.0`, `path.1`, … that it holds, as far as none is missing.
    pub(super) fn modules(&self, path: &str) -> Vec<String> {
        (0..).map(|i| format!("{path}.{i}")).take_while(|module| self.has_module(module)).collect()
    }

    /// The first of several spellings of a module that the checkpoint holds; the first one when it holds none.
    pub(super) fn spelt(&self, spellings: &[String]) -> String {
        let found = spellings.iter().find(|path| self.has_module(path)).or(spellings.first());
        found.cloned().unwrap_or_default()
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>, ModelError> {
        Ok(self.source.tensor(&format!("{}{name}", self.root))?.shape().to_vec())
    }

    /// A tensor as F32.
    pub(super) fn weight(&mut self, name: &str) -> Result<ValueId, ModelError> {
        let full = format!("{}{name}", self.root);
        if let Some(id) = self.used.get(&full) {
            return Ok(*id);
        }
        let tensor = as_f32(self.source.tensor(&full)?)?;
        let id = self.graph.weight(tensor)?;
        self.used.insert(full, id);
        Ok(id)
    }

    /// A constant of I64, a vector.
    pub(super) fn ints(&mut self, name: &str, values: &[i64]) -> Result<ValueId, ModelError> {
        let wrong = || ModelError::MissingKey { key: name.into() };
        let tensor = int_tensor(vec![values.len()], values).ok_or_else(wrong)?;
        Ok(self.graph.weight_as(&self.graph.fresh(name), tensor)?)
    }

    /// A constant of I64, a scalar.
    pub(super) fn index(&mut self, name: &str, value: i64) -> Result<ValueId, ModelError> {
        let wrong = || ModelError::MissingKey { key: name.into() };
        let tensor = int_tensor(Vec::new(), &[value]).ok_or_else(wrong)?;
        Ok(self.graph.weight_as(&self.graph.fresh(name), tensor)?)
    }

    /// A constant of F32, a scalar.
    pub(super) fn float(&mut self, name: &str, value: f32) -> Result<ValueId, ModelError> {
        let wrong = || ModelError::MissingKey { key: name.into() };
        let tensor = float_scalar(value).ok_or_else(wrong)?;
        Ok(self.graph.weight_as(&self.graph.fresh(name), tensor)?)
    }

    /// A constant of F32.
    pub(super) fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<ValueId, ModelError> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = Tensor::new(name, DType::F32, shape.to_vec(), Bytes::from(bytes))?;
        Ok(self.graph.weight_as(&self.graph.fresh(name), tensor)?)
    }

    /// Adds a node.
    pub(super) fn node(
        &mut self,
        name: &str,
        op: impl Op,
        inputs: &[ValueId],
    ) -> Result<ValueId, ModelError> {
        let name = self.graph.fresh(name);
        Ok(self.graph.node(&name, op, inputs)?)
    }

    /// Adds a node of several outputs, `name.0`, `name.1`, ….
    pub(super) fn parts(
        &mut self,
        name: &str,
        op: impl Op,
        inputs: &[ValueId],
        count: usize,
    ) -> Result<Vec<ValueId>, ModelError> {
        let names: Vec<String> = (0..count).map(|i| self.graph.fresh(&format!("{name}.{i}"))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(self.graph.push(&names, std::sync::Arc::new(op), inputs, String::new())?)
    }

    /// The dimension of a value, when it is known.
    pub(super) fn dim(&self, x: ValueId, axis: usize) -> Option<usize> {
        self.graph.ty(x).tensor()?.shape.get(axis)?.fixed()
    }

    /// A convolution; groups follow from the channels of `x` and of the kernel.
    pub(super) fn conv(&mut self, at: &str, x: ValueId, stride: Stride) -> Result<ValueId, ModelError> {
        let name = format!("{at}.weight");
        let shape = self.shape(&name)?;
        let channels = self.dim(x, 1).unwrap_or(0);
        let wrong = |found: &[usize]| ModelError::Shape {
            name: name.clone(),
            found: found.into(),
            expected: vec![channels],
        };
        let &[_, inner, height, width] = shape.as_slice() else { return Err(wrong(&shape)) };
        if inner == 0 || !channels.is_multiple_of(inner) {
            return Err(wrong(&shape));
        }
        let op = Conv { window: stride.window([height, width]), groups: channels / inner };
        let mut inputs = vec![x, self.weight(&name)?];
        self.bias(at, &mut inputs)?;
        self.node(at, op, &inputs)
    }

    /// A convolution whose windows of `side` pixels lie beside each other.
    pub(super) fn conv_apart(&mut self, at: &str, x: ValueId, side: usize) -> Result<ValueId, ModelError> {
        let window = Window { strides: vec![side; 2], ..Window::default() };
        let mut inputs = vec![x, self.weight(&format!("{at}.weight"))?];
        self.bias(at, &mut inputs)?;
        self.node(at, Conv { window, groups: 1 }, &inputs)
    }

    /// `x W^T + b` along the last dimension.
    pub(super) fn linear(&mut self, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
        let w = self.weight(&format!("{at}.weight"))?;
        let w = self.node(&format!("{at}.columns"), Transpose { perm: vec![1, 0] }, &[w])?;
        let product = self.node(at, MatMul, &[x, w])?;
        let mut inputs = vec![product];
        self.bias(at, &mut inputs)?;
        match inputs[..] {
            [product, bias] => self.add(at, product, bias),
            _ => Ok(product),
        }
    }

    fn bias(&mut self, at: &str, inputs: &mut Vec<ValueId>) -> Result<(), ModelError> {
        let name = format!("{at}.bias");
        if self.has(&name) {
            inputs.push(self.weight(&name)?);
        }
        Ok(())
    }

    /// A batch norm by its running statistics.
    pub(super) fn batch_norm(&mut self, at: &str, x: ValueId, eps: f32) -> Result<ValueId, ModelError> {
        let mut inputs = vec![x];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weight(&format!("{at}.{part}"))?);
        }
        self.node(at, BatchNorm { eps, momentum: 0.9, training: false }, &inputs)
    }

    /// A norm of each row.
    pub(super) fn layer_norm(&mut self, at: &str, x: ValueId, eps: f32) -> Result<ValueId, ModelError> {
        let mut inputs = vec![x, self.weight(&format!("{at}.weight"))?];
        self.bias(at, &mut inputs)?;
        self.node(at, LayerNorm { axis: -1, eps, centre: true }, &inputs)
    }

    /// A function of each element.
    pub(super) fn map(&mut self, at: &str, fun: Fun, x: ValueId) -> Result<ValueId, ModelError> {
        self.node(at, Unary(fun), &[x])
    }

    /// The sum of two values.
    pub(super) fn add(&mut self, at: &str, a: ValueId, b: ValueId) -> Result<ValueId, ModelError> {
        self.node(at, Binary(Fun2::Add), &[a, b])
    }

    /// The product of two values, element by element.
    pub(super) fn mul(&mut self, at: &str, a: ValueId, b: ValueId) -> Result<ValueId, ModelError> {
        self.node(at, Binary(Fun2::Mul), &[a, b])
    }

    /// The mean over these dimensions.
    pub(super) fn mean(
        &mut self,
        at: &str,
        x: ValueId,
        axes: &[i64],
        keep_dims: bool,
    ) -> Result<ValueId, ModelError> {
        let axes = self.ints(&format!("{at}.axes"), axes)?;
        self.node(at, Reduce { kind: ReduceKind::Mean, keep_dims, keep_all: false }, &[x, axes])
    }

    /// The largest of each square of pixels, half of one around.
    pub(super) fn max_pool(
        &mut self,
        at: &str,
        x: ValueId,
        kernel: usize,
        stride: usize,
    ) -> Result<ValueId, ModelError> {
        let window = Stride::of(stride).window([kernel; 2]);
        let kind = PoolKind::Max { column_major: false };
        self.node(at, Pool { kind, kernel: vec![kernel; 2], window, ceil: false }, &[x])
    }

    /// The mean of each square of pixels; one that overhangs counts its own pixels only.
    pub(super) fn average_pool(&mut self, at: &str, x: ValueId, side: usize) -> Result<ValueId, ModelError> {
        let window = Window { strides: vec![side; 2], ..Window::default() };
        let kind = PoolKind::Average { count_pad: false };
        self.node(at, Pool { kind, kernel: vec![side; 2], window, ceil: true }, &[x])
    }

    /// The same elements in another shape: 0 keeps a dimension, -1 takes what is left.
    pub(super) fn reshape(&mut self, at: &str, x: ValueId, shape: &[i64]) -> Result<ValueId, ModelError> {
        let shape = self.ints(&format!("{at}.shape"), shape)?;
        self.node(at, Reshape { allow_zero: false }, &[x, shape])
    }

    /// Dimensions in another order.
    pub(super) fn transpose(&mut self, at: &str, x: ValueId, perm: &[usize]) -> Result<ValueId, ModelError> {
        self.node(at, Transpose { perm: perm.to_vec() }, &[x])
    }
}

/// The tensor itself when it is F32, what its elements stand for otherwise.
fn as_f32(tensor: Tensor) -> Result<Tensor, ModelError> {
    if tensor.dtype() == DType::F32 {
        return Ok(tensor);
    }
    let mut values = vec![0.0; tensor.elements()];
    quant::dequantize(tensor.dtype(), tensor.data(), &mut values)
        .map_err(|source| ModelError::Values { name: tensor.name().into(), source })?;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(Tensor::new(tensor.name(), DType::F32, tensor.shape().to_vec(), Bytes::from(bytes))?)
}
