//! Builds graphs: names values, infers and checks types, keeps running order.

use std::collections::HashSet;
use std::sync::Arc;

use kinglet_tensor::{DType, KvSpec, Tensor};

use crate::ir::{Def, Dim, Graph, Node, SymDim, TensorType, Value, ValueId};
use crate::ops::Op;

/// Why a node could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum BuildError {
    #[error("node `{node}` ({op}): {reason}")]
    Node { node: String, op: String, reason: String },
    #[error("two values are called `{0}`")]
    DuplicateName(String),
    #[error("`{0}` is not a value of this graph")]
    UnknownValue(u32),
}

/// Makes a [`Graph`] node by node.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    names: HashSet<String>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a size that each run brings.
    pub fn dim(&mut self, name: &str, max: usize) -> Dim {
        self.graph.dims.push(SymDim { name: name.into(), max });
        Dim::Sym(self.graph.dims.len() - 1)
    }

    /// Declares the key/value state that `Attention` nodes use.
    pub fn kv(&mut self, spec: KvSpec) {
        self.graph.kv = Some(spec);
    }

    /// Declares a value that each run brings.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Result<ValueId, BuildError> {
        let id = self.value(name, ty, Def::Input)?;
        self.graph.inputs.push(id);
        Ok(id)
    }

    /// Adds a constant; the same tensor may back several values.
    pub fn weight(&mut self, tensor: Tensor) -> Result<ValueId, BuildError> {
        let shape = tensor.shape().iter().map(|&n| Dim::Fixed(n)).collect();
        let ty = TensorType { dtype: tensor.dtype(), shape };
        let name = tensor.name().to_owned();
        self.value(&name, ty, Def::Weight(tensor))
    }

    /// Adds a node with one output called `name`.
    pub fn node(&mut self, name: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, BuildError> {
        Ok(self.push(&[name], Arc::new(op), inputs, String::new())?[0])
    }

    /// Adds a node with several outputs; `note` says what a pass did.
    pub fn push(
        &mut self,
        names: &[&str],
        op: Arc<dyn Op>,
        inputs: &[ValueId],
        note: String,
    ) -> Result<Vec<ValueId>, BuildError> {
        let fail = |reason: String| BuildError::Node { node: names.join("+"), op: op.name().into(), reason };
        if let Some(bad) = inputs.iter().find(|v| v.index() >= self.graph.values.len()) {
            return Err(BuildError::UnknownValue(bad.0));
        }
        let types: Vec<&TensorType> = inputs.iter().map(|v| &self.graph.value(*v).ty).collect();
        let outputs = op.infer(&types).map_err(&fail)?;
        if outputs.len() != names.len() {
            return Err(fail(format!("makes {} values, {} are named", outputs.len(), names.len())));
        }
        let index = self.graph.nodes.len();
        let made = names.iter().zip(outputs).enumerate();
        let ids = made.map(|(i, (name, ty))| self.value(name, ty, Def::Node(index, i)));
        let outputs = ids.collect::<Result<Vec<_>, _>>()?;
        let node =
            Node { name: names[0].into(), op, inputs: inputs.to_vec(), outputs: outputs.clone(), note };
        self.graph.nodes.push(node);
        Ok(outputs)
    }

    /// Declares what each run leaves.
    pub fn output(&mut self, id: ValueId) {
        self.graph.outputs.push(id);
    }

    /// Type of a value made so far.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.graph.value(id).ty
    }

    /// Element type of a value made so far.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.ty(id).dtype
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    fn value(&mut self, name: &str, ty: TensorType, def: Def) -> Result<ValueId, BuildError> {
        if !self.names.insert(name.to_owned()) {
            return Err(BuildError::DuplicateName(name.into()));
        }
        self.graph.values.push(Value { name: name.into(), ty, def });
        Ok(ValueId(self.graph.values.len() as u32 - 1))
    }
}
