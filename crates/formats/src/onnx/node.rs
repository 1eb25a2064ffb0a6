//! What an operator's importer sees: its node with inputs already resolved, and ways to add ops to the graph.

use std::sync::Arc;

use kinglet_graph::ops::{Identity, int_tensor};
use kinglet_graph::{BuildError, Graph, GraphBuilder, Op, Type, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::attributes::Attributes;
use super::error::OnnxError;
use super::proto;
use super::read::Reader;
use crate::custom::{CustomNode, CustomOps};

/// Adds the ops for one node.
pub(crate) type Import = fn(&mut Cx<'_, '_>) -> Result<(), OnnxError>;

/// A node being imported.
pub(crate) struct Cx<'r, 'a> {
    pub(crate) reader: &'r mut Reader<'a>,
    pub(crate) node: &'r proto::Node,
    pub(crate) attrs: Attributes<'r>,
    /// Version of the operator set that the node's domain is imported with.
    pub(crate) opset: i64,
    inputs: Vec<ValueId>,
    temps: usize,
}

impl<'r, 'a> Cx<'r, 'a> {
    pub(crate) fn new(
        reader: &'r mut Reader<'a>,
        node: &'r proto::Node,
        opset: i64,
        inputs: Vec<ValueId>,
    ) -> Self {
        Self { reader, node, attrs: Attributes::of(node), opset, inputs, temps: 0 }
    }

    /// All inputs; absent ones in between stand as such.
    pub(crate) fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Input `i`, or the absent value.
    pub(crate) fn input(&mut self, i: usize) -> ValueId {
        self.inputs.get(i).copied().unwrap_or_else(|| self.builder().absent())
    }

    /// Whether input `i` is given.
    pub(crate) fn has(&mut self, i: usize) -> bool {
        let id = self.input(i);
        *self.builder().ty(id) != Type::Absent
    }

    /// Whether output `i` is wanted.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|name| !name.is_empty())
    }

    /// The type of input `i` as far as it is known.
    pub(crate) fn ty(&mut self, i: usize) -> Type {
        let id = self.input(i);
        self.builder().ty(id).clone()
    }

    pub(crate) fn builder(&mut self) -> &mut GraphBuilder {
        &mut self.reader.scopes.top().builder
    }

    /// The node as the op that is registered for it.
    pub(crate) fn custom(mut self, custom: &CustomOps, domain: &str) -> Result<(), OnnxError> {
        let (inputs, outputs) = (self.inputs.len(), self.node.output.len());
        let node = CustomNode { parameters: &self.attrs, opset: self.opset, inputs, outputs };
        let op = custom.make(domain, &self.node.op_type, &node).map_err(|reason| self.fail(reason))?;
        self.emit(op)
    }

    /// The node as one op with the inputs it has.
    pub(crate) fn emit(&mut self, op: impl Op) -> Result<(), OnnxError> {
        let inputs = self.inputs.clone();
        self.emit_with(op, &inputs)
    }

    /// The node's outputs as those of one op with these inputs.
    pub(crate) fn emit_with(&mut self, op: impl Op, inputs: &[ValueId]) -> Result<(), OnnxError> {
        let count = self.node.output.iter().rposition(|name| !name.is_empty()).map_or(1, |i| i + 1);
        let stem = self.stem();
        let label = |(i, name): (usize, &String)| {
            if name.is_empty() { format!("{stem}.unused.{i}") } else { name.clone() }
        };
        let names: Vec<String> = self.node.output.iter().take(count).enumerate().map(label).collect();
        let builder = self.builder();
        let fresh: Vec<String> = names.iter().map(|name| builder.fresh(name)).collect();
        let fresh: Vec<&str> = fresh.iter().map(String::as_str).collect();
        let made = builder.push(&fresh, Arc::new(op), inputs, String::new()).map_err(|e| self.named(e))?;
        for (i, id) in made.into_iter().enumerate() {
            self.bind(i, id)?;
        }
        Ok(())
    }

    /// Makes a value that was made by other means output `i`.
    pub(crate) fn bind(&mut self, i: usize, id: ValueId) -> Result<(), OnnxError> {
        let Some(name) = self.node.output.get(i).filter(|name| !name.is_empty()) else { return Ok(()) };
        let names = &mut self.reader.scopes.top().names;
        match names.insert(name.clone(), id) {
            None => Ok(()),
            Some(_) => Err(BuildError::DuplicateName(name.clone()).into()),
        }
    }

    /// Makes a value that was made by other means output `i`, under the output's own name.
    pub(crate) fn pass(&mut self, i: usize, id: ValueId) -> Result<(), OnnxError> {
        let Some(name) = self.node.output.get(i).filter(|name| !name.is_empty()) else { return Ok(()) };
        let builder = self.builder();
        let fresh = builder.fresh(name);
        let made = builder.push(&[&fresh], Arc::new(Identity), &[id], String::new());
        self.bind(i, made.map_err(|e| self.named(e))?[0])
    }

    /// An intermediate value.
    pub(crate) fn temp(&mut self, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, OnnxError> {
        Ok(self.temps(op, inputs, 1)?[0])
    }

    /// The first `count` outputs of an op as intermediate values.
    pub(crate) fn temps(
        &mut self,
        op: impl Op,
        inputs: &[ValueId],
        count: usize,
    ) -> Result<Vec<ValueId>, OnnxError> {
        let names: Vec<String> = (0..count).map(|_| self.temp_name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.builder().push(&names, Arc::new(op), inputs, String::new()).map_err(|e| self.named(e))
    }

    /// A constant.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> Result<ValueId, OnnxError> {
        let name = self.temp_name();
        Ok(self.builder().weight_as(&name, tensor)?)
    }

    /// Input `i`, which must be a constant.
    pub(crate) fn weight(&mut self, i: usize) -> Result<Tensor, OnnxError> {
        let id = self.input(i);
        let tensor = self.builder().graph().weight(id).cloned();
        tensor.ok_or_else(|| self.fail(format!("input {i} must be a constant")))
    }

    /// The numbers of input `i`, which must be a constant of floats.
    pub(crate) fn weight_floats(&mut self, i: usize) -> Result<Vec<f32>, OnnxError> {
        let tensor = self.weight(i)?;
        let mut list = vec![0.0; tensor.elements()];
        kinglet_tensor::quant::dequantize(tensor.dtype(), tensor.data(), &mut list)
            .map_err(|e| self.fail(e.to_string()))?;
        Ok(list)
    }

    /// A constant vector of I64.
    pub(crate) fn ints(&mut self, values: &[i64]) -> Result<ValueId, OnnxError> {
        let tensor =
            int_tensor(vec![values.len()], values).ok_or_else(|| self.fail("impossible integers"))?;
        self.constant(tensor)
    }

    /// A constant of floats, as `dtype` holds them.
    pub(crate) fn floats(
        &mut self,
        dtype: DType,
        shape: Vec<usize>,
        list: &[f32],
    ) -> Result<ValueId, OnnxError> {
        let mut bytes = Vec::new();
        kinglet_tensor::quant::quantize(dtype, list, &mut bytes).map_err(|e| self.fail(e.to_string()))?;
        let tensor = Tensor::new("", dtype, shape, Bytes::from(bytes));
        let tensor = tensor.map_err(|e| self.fail(e.to_string()))?;
        self.constant(tensor)
    }

    /// A constant scalar of a floating-point type.
    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> Result<ValueId, OnnxError> {
        let bytes = match dtype {
            DType::F64 => value.to_le_bytes().to_vec(),
            DType::F16 | DType::BF16 => {
                let mut out = Vec::new();
                kinglet_tensor::quant::quantize(dtype, &[value as f32], &mut out)
                    .map_err(|e| self.fail(e.to_string()))?;
                out
            }
            DType::F32 => (value as f32).to_le_bytes().to_vec(),
            DType::I64 | DType::U64 => (value as i64).to_le_bytes().to_vec(),
            DType::I32 | DType::U32 => (value as i32).to_le_bytes().to_vec(),
            DType::I16 | DType::U16 => (value as i16).to_le_bytes().to_vec(),
            DType::I8 | DType::U8 => vec![value as i8 as u8],
            other => return Err(self.fail(format!("no scalar of type {other}"))),
        };
        let tensor = Tensor::new("", dtype, Vec::new(), Bytes::from(bytes));
        let tensor = tensor.map_err(|e| self.fail(e.to_string()))?;
        self.constant(tensor)
    }

    /// The graph in an attribute, and what it reads from around it.
    pub(crate) fn body(&mut self, name: &str) -> Result<(Arc<Graph>, Vec<ValueId>), OnnxError> {
        let graph =
            self.attrs.graph(name).ok_or_else(|| self.fail(format!("attribute `{name}` is missing")))?;
        self.reader.body(graph)
    }

    /// The axes: an attribute in old versions, input `i` since version `since`; the absent value when not given.
    pub(crate) fn axes_or_input(&mut self, name: &str, i: usize, since: i64) -> Result<ValueId, OnnxError> {
        match (self.opset >= since, self.attrs.ints(name)) {
            (false, Some(list)) => self.ints(list),
            (true, _) => Ok(self.input(i)),
            (false, None) => Ok(self.builder().absent()),
        }
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attrs.int(name).unwrap_or(default)
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.attrs.int(name).map_or(default, |n| n != 0)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attrs.float(name).unwrap_or(default)
    }

    /// A list of sizes; empty when the attribute is missing.
    pub(crate) fn sizes(&self, name: &str) -> Result<Vec<usize>, OnnxError> {
        let size = |n: &i64| usize::try_from(*n).ok().filter(|n| *n < 1 << 31);
        let sizes: Option<Vec<usize>> = self.attrs.ints(name).unwrap_or(&[]).iter().map(size).collect();
        sizes.ok_or_else(|| self.fail(format!("attribute `{name}` holds an impossible size")))
    }

    pub(crate) fn fail(&self, reason: impl Into<String>) -> OnnxError {
        OnnxError::Node { node: self.stem(), op: self.node.op_type.clone(), reason: reason.into() }
    }

    /// A build error under the node's own name.
    fn named(&self, error: BuildError) -> OnnxError {
        match error {
            BuildError::Node { reason, .. } => self.fail(reason),
            other => other.into(),
        }
    }

    fn temp_name(&mut self) -> String {
        self.temps += 1;
        let name = format!("{}.{}", self.stem(), self.temps);
        self.builder().fresh(&name)
    }

    /// The node's name, or that of its first output.
    fn stem(&self) -> String {
        super::read::label(self.node)
    }
}
