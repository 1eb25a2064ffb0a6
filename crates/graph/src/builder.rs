//! Builds graphs: names values, infers and checks types, keeps running order.

use std::collections::HashSet;
use std::sync::Arc;

use kinglet_tensor::{DType, KvSpec, Tensor};

use crate::args::{Arg, Args};
use crate::ir::{Def, Dim, Graph, Node, SymDim, TensorType, Type, Value, ValueId};
use crate::ops::Op;

/// Values take at most this many bytes: sizes and offsets stay far from overflow.
const MAX_BYTES: u64 = 1 << 46;

/// Why a node could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum BuildError {
    #[error("node `{node}` ({op}): {reason}")]
    Node { node: String, op: String, reason: String },
    #[error("two values are called `{0}`; the model is damaged, export it again")]
    DuplicateName(String),
    #[error("`{0}` is not a value of this graph")]
    UnknownValue(u32),
}

/// Makes a [`Graph`] node by node.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    names: HashSet<String>,
    absent: Option<ValueId>,
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
    pub fn input(&mut self, name: &str, ty: impl Into<Type>) -> Result<ValueId, BuildError> {
        let id = self.value(name, ty.into(), Def::Input)?;
        self.graph.inputs.push(id);
        Ok(id)
    }

    /// Adds a constant; the same tensor may back several values.
    pub fn weight(&mut self, tensor: Tensor) -> Result<ValueId, BuildError> {
        let name = tensor.name().to_owned();
        self.weight_as(&name, tensor)
    }

    /// Adds a constant under another name than its own.
    pub fn weight_as(&mut self, name: &str, tensor: Tensor) -> Result<ValueId, BuildError> {
        let ty = TensorType::fixed(tensor.dtype(), tensor.shape());
        self.value(name, ty.into(), Def::Weight(tensor))
    }

    /// Stands for an optional argument that is not given.
    pub fn absent(&mut self) -> ValueId {
        if let Some(id) = self.absent {
            return id;
        }
        self.graph.values.push(Value { name: String::new(), ty: Type::Absent, def: Def::Absent });
        let id = ValueId(self.graph.values.len() as u32 - 1);
        self.absent = Some(id);
        id
    }

    /// A name that no value has yet: `stem`, or `stem` with a number.
    pub fn fresh(&self, stem: &str) -> String {
        if !self.names.contains(stem) {
            return stem.into();
        }
        // Numbers are given in order: the first free one lies between the last taken power of two and the next.
        let name = |n: u64| format!("{stem}.{n}");
        let taken = |n: u64| self.names.contains(&name(n));
        let mut free = 1;
        while taken(free) {
            free *= 2;
        }
        let mut used = free / 2;
        while free - used > 1 {
            let middle = used.midpoint(free);
            if taken(middle) { used = middle } else { free = middle }
        }
        name(free)
    }

    /// Adds a node with one output called `name`.
    pub fn node(&mut self, name: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, BuildError> {
        Ok(self.push(&[name], Arc::new(op), inputs, String::new())?[0])
    }

    /// Adds a node with several outputs; outputs behind the last name are not wanted. `note` says what a pass did.
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
        let name = (*names.first().ok_or_else(|| fail("has no output".into()))?).to_owned();
        let outputs = self.infer(&*op, inputs, names.len()).map_err(&fail)?;
        let index = self.graph.nodes.len();
        let made = names.iter().zip(outputs).enumerate();
        let ids = made.map(|(i, (name, ty))| self.value(name, ty, Def::Node(index, i)));
        let outputs = ids.collect::<Result<Vec<_>, _>>()?;
        let node = Node { name, op, inputs: inputs.to_vec(), outputs: outputs.clone(), note };
        self.graph.nodes.push(node);
        Ok(outputs)
    }

    /// Declares what each run leaves.
    pub fn output(&mut self, id: ValueId) {
        self.graph.outputs.push(id);
    }

    /// Type of a value made so far.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.graph.value(id).ty
    }

    /// Element type of a tensor made so far.
    pub fn dtype(&self, id: ValueId) -> Option<DType> {
        Some(self.ty(id).tensor()?.dtype)
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The finished graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// Types of the outputs; unknown where an input's type is.
    fn infer(&self, op: &dyn Op, inputs: &[ValueId], outputs: usize) -> Result<Vec<Type>, String> {
        let graph = &self.graph;
        if inputs.iter().any(|v| graph.value(*v).ty == Type::Unknown) {
            return Ok(vec![Type::Unknown; outputs]);
        }
        let args: Vec<Arg<'_>> = inputs.iter().map(|v| graph.arg(*v)).collect();
        let types = op.infer(&Args(&args))?;
        if types.len() < outputs {
            return Err(format!("makes {} values, {outputs} are named", types.len()));
        }
        types.iter().try_for_each(check_size)?;
        Ok(types)
    }

    fn value(&mut self, name: &str, ty: Type, def: Def) -> Result<ValueId, BuildError> {
        if !self.names.insert(name.to_owned()) {
            return Err(BuildError::DuplicateName(name.into()));
        }
        self.graph.values.push(Value { name: name.into(), ty, def });
        Ok(ValueId(self.graph.values.len() as u32 - 1))
    }
}

/// `Ok` unless the known dimensions alone are more than any memory holds.
fn check_size(ty: &Type) -> Result<(), String> {
    let Type::Tensor(TensorType { dtype, shape }) = ty else { return Ok(()) };
    let mut known = shape.iter().filter_map(|dim| dim.fixed()).filter(|n| *n > 0);
    let bytes = known.try_fold(dtype.block_bytes(), usize::checked_mul);
    match bytes {
        Some(bytes) if bytes as u64 <= MAX_BYTES => Ok(()),
        _ => {
            let sizes = shape.iter().map(|dim| dim.fixed().map_or_else(|| "?".into(), |n| n.to_string()));
            Err(format!("a result of shape [{}] is too large", sizes.collect::<Vec<_>>().join(", ")))
        }
    }
}
