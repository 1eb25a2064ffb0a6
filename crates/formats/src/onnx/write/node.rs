//! What an op's exporter sees: its node with named inputs, and ways to add nodes to the model.

use kinglet_graph::{Graph, Node, Op, TensorType, Type, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::{Frame, Writer, tensor, types};
use crate::onnx::proto;

/// Adds the nodes for one op; an error says why ONNX cannot express it.
pub(in crate::onnx) type Export = fn(&mut Ex<'_, '_>) -> Result<(), String>;

/// A node being written.
pub(in crate::onnx) struct Ex<'w, 'a> {
    pub(super) writer: &'w mut Writer<'a>,
    pub(super) graph: &'w Graph,
    pub(super) node: &'w Node,
    pub(super) frame: &'w mut Frame,
    temps: usize,
}

/// A node with neither attributes nor a name of its own.
pub(super) fn plain(op: &str, name: &str, inputs: &[String], outputs: &[String]) -> proto::Node {
    proto::Node {
        input: inputs.to_vec(),
        output: outputs.to_vec(),
        name: name.into(),
        op_type: op.into(),
        ..Default::default()
    }
}

impl<'w, 'a> Ex<'w, 'a> {
    pub(super) fn new(
        writer: &'w mut Writer<'a>,
        graph: &'w Graph,
        node: &'w Node,
        frame: &'w mut Frame,
    ) -> Self {
        Self { writer, graph, node, frame, temps: 0 }
    }

    /// The op as what it is.
    pub(super) fn op<T: Op>(&self) -> Result<&'w T, String> {
        self.node.op.downcast().ok_or_else(|| "which is not what its name says".into())
    }

    /// Whether input `i` is given.
    pub(super) fn has(&self, i: usize) -> bool {
        self.node.inputs.get(i).is_some_and(|id| self.graph.value(*id).ty != Type::Absent)
    }

    /// The name of input `i`; empty when it is not given.
    pub(super) fn input(&mut self, i: usize) -> String {
        self.node.inputs.get(i).copied().map_or_else(String::new, |id| self.name_of(id))
    }

    /// The names of all inputs, without absent ones at the end.
    pub(super) fn inputs(&mut self) -> Vec<String> {
        trimmed((0..self.node.inputs.len()).map(|i| self.input(i)).collect())
    }

    pub(super) fn name_of(&mut self, id: ValueId) -> String {
        self.writer.name_of(self.graph, self.frame, id)
    }

    /// The tensor type of input `i`.
    pub(super) fn ty(&self, i: usize) -> Option<&'w TensorType> {
        self.graph.tensor_type(*self.node.inputs.get(i)?)
    }

    /// The element type of input `i`; f32 when nothing is known of it.
    pub(super) fn dtype(&self, i: usize) -> DType {
        self.ty(i).map_or(DType::F32, |ty| ty.dtype)
    }

    /// The number of dimensions of input `i`.
    pub(super) fn rank(&self, i: usize) -> Result<usize, String> {
        self.ty(i).map(TensorType::rank).ok_or_else(|| "whose number of dimensions is not known".into())
    }

    /// Whether the wanted set of operators is at least this one.
    pub(super) fn allows(&self, opset: i64) -> bool {
        self.writer.opset >= opset
    }

    /// Raises the set of operators; an error when an older one is asked for.
    pub(super) fn needs(&mut self, opset: i64) -> Result<(), String> {
        match self.writer.options.opset {
            Some(wanted) if wanted < opset => Err(format!("which needs opset {opset}")),
            _ => {
                self.writer.opset = self.writer.opset.max(opset);
                Ok(())
            }
        }
    }

    /// Raises the set of operators unless another one is asked for.
    pub(super) fn prefers(&mut self, opset: i64) {
        if self.writer.options.opset.is_none() {
            self.writer.opset = self.writer.opset.max(opset);
        }
    }

    /// Raises the set of operators to one that knows the element types of all inputs and outputs.
    pub(super) fn needs_types(&mut self) -> Result<(), String> {
        let ids = self.node.inputs.iter().chain(&self.node.outputs);
        let types = ids.filter_map(|id| self.graph.tensor_type(*id));
        let least = types.map(|ty| types::opset_of(ty.dtype)).max().unwrap_or(1);
        self.needs(least)
    }

    /// The node as one operator with the inputs it has.
    pub(super) fn emit(&mut self, op: &str, attributes: Vec<proto::Attribute>) -> Result<(), String> {
        let inputs = self.inputs();
        self.emit_with(op, &inputs, attributes)
    }

    /// The node's outputs as those of one operator with these inputs.
    pub(super) fn emit_with(
        &mut self,
        op: &str,
        inputs: &[String],
        attribute: Vec<proto::Attribute>,
    ) -> Result<(), String> {
        let outputs: Vec<String> = self.node.outputs.iter().map(|id| self.name_of(*id)).collect();
        let node = proto::Node { attribute, ..plain(op, &self.label(), &trimmed(inputs.to_vec()), &outputs) };
        self.writer.push(self.frame, node);
        Ok(())
    }

    /// Names further outputs of the last node, up to `count`: those that nobody wants, where ONNX asks for them.
    pub(super) fn fill_outputs(&mut self, count: usize) {
        for _ in self.node.outputs.len()..count {
            let name = self.writer.fresh(&format!("{}.unused", self.label()));
            if let Some(node) = self.frame.nodes.last_mut() {
                node.output.push(name);
            }
        }
    }

    /// The name of output `i`.
    pub(super) fn output(&mut self, i: usize) -> String {
        self.node.outputs.get(i).copied().map_or_else(String::new, |id| self.name_of(id))
    }

    /// A value between the operators of a spelling.
    pub(super) fn temp(&mut self, op: &str, inputs: &[&str], attribute: Vec<proto::Attribute>) -> String {
        let name = self.temp_name();
        self.named(op, inputs, attribute, &name);
        name
    }

    /// An operator whose result is called `name`.
    pub(super) fn named(&mut self, op: &str, inputs: &[&str], attribute: Vec<proto::Attribute>, name: &str) {
        let inputs = trimmed(inputs.iter().map(|name| (*name).to_owned()).collect());
        let node = proto::Node { attribute, ..plain(op, name, &inputs, &[name.to_owned()]) };
        self.writer.push(self.frame, node);
    }

    /// A constant vector of I64.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.constant(DType::I64, vec![values.len()], bytes)
    }

    /// A constant scalar of a floating-point type.
    pub(super) fn scalar(&mut self, dtype: DType, value: f32) -> Result<String, String> {
        let mut bytes = Vec::new();
        match dtype {
            DType::F64 => bytes.extend(f64::from(value).to_le_bytes()),
            _ => kinglet_tensor::quant::quantize(dtype, &[value], &mut bytes)
                .map_err(|e| format!("which needs a constant: {e}"))?,
        }
        Ok(self.constant(dtype, Vec::new(), bytes))
    }

    fn constant(&mut self, dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> String {
        let name = self.temp_name();
        let made = Tensor::new("", dtype, shape, Bytes::from(bytes)).map_err(|e| e.to_string());
        match made.and_then(|tensor| tensor::message(&tensor, &name)) {
            Ok(message) => self.writer.initializers.push(message),
            Err(reason) => self.writer.missing.add("constant", reason, &name),
        }
        name
    }

    fn temp_name(&mut self) -> String {
        self.temps += 1;
        let stem = format!("{}.{}", self.label(), self.temps);
        self.writer.fresh(&stem)
    }

    /// The name of the node.
    pub(super) fn label(&self) -> String {
        format!("{}{}", self.frame.prefix, self.node.name)
    }
}

/// Without empty names at the end.
fn trimmed(mut names: Vec<String>) -> Vec<String> {
    names.truncate(names.iter().rposition(|name| !name.is_empty()).map_or(0, |i| i + 1));
    names
}
