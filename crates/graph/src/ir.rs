//! Graphs: named, typed values and the nodes that make them.
//!
//! Nodes stand in running order (every input is made before it is read); [`crate::GraphBuilder`] is the only way to make
//! one and checks types on the way. Deliberately absent: control flow, and anything about how a backend runs it.

use std::sync::Arc;

use kinglet_tensor::{DType, KvSpec, Tensor};

use crate::Op;

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A dimension: a number, or a named size that each run brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when the graph is built.
    Fixed(usize),
    /// Index into [`Graph::dims`].
    Sym(usize),
}

/// A size that each run brings, e.g. `T`, the tokens of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymDim {
    /// Name, e.g. `T`.
    pub name: String,
    /// Largest size that a run may bring.
    pub max: usize,
}

/// Element type and dimensions, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// `f32[rows, cols]`, the type of most activations.
    pub fn rows_of(rows: Dim, cols: usize) -> Self {
        Self { dtype: DType::F32, shape: vec![rows, Dim::Fixed(cols)] }
    }

    /// The innermost dimension, when it is fixed.
    pub fn cols(&self) -> Option<usize> {
        match self.shape.last() {
            Some(Dim::Fixed(n)) => Some(*n),
            _ => None,
        }
    }
}

/// What makes a value.
#[derive(Clone, Debug)]
pub enum Def {
    /// The caller, at each run.
    Input,
    /// A constant from the model file.
    Weight(Tensor),
    /// Output `.1` of node `.0`.
    Node(usize, usize),
}

/// A named, typed value.
#[derive(Clone, Debug)]
pub struct Value {
    /// Stable name, e.g. `blk.3.attn_norm`.
    pub name: String,
    /// Type.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: Def,
}

/// One application of an op.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of its first output.
    pub name: String,
    /// What it computes.
    pub op: Arc<dyn Op>,
    /// Arguments.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// What passes did to it, for `explain`; empty as built.
    pub note: String,
}

/// A whole computation.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) dims: Vec<SymDim>,
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    pub(crate) kv: Option<KvSpec>,
}

impl Graph {
    /// Sizes that each run brings.
    pub fn dims(&self) -> &[SymDim] {
        &self.dims
    }

    /// All values.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Nodes in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What each run brings, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// What each run leaves, in order.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Shape of the key/value state, when there is any.
    pub fn kv(&self) -> Option<&KvSpec> {
        self.kv.as_ref()
    }

    /// The constant behind a value, when it is one.
    pub fn weight(&self, id: ValueId) -> Option<&Tensor> {
        match &self.value(id).def {
            Def::Weight(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Nodes that read each value, indexed by value.
    pub fn readers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); self.values.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers[v.index()].push(n));
        }
        readers
    }

    /// Type as text with the symbolic names, e.g. `F32[T, 576]`.
    pub fn type_text(&self, ty: &TensorType) -> String {
        let dims: Vec<String> = ty.shape.iter().map(|d| self.dim_text(*d)).collect();
        format!("{}[{}]", ty.dtype, dims.join(", "))
    }

    fn dim_text(&self, dim: Dim) -> String {
        match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Sym(s) => self.dims.get(s).map_or_else(|| "?".into(), |d| d.name.clone()),
        }
    }
}
