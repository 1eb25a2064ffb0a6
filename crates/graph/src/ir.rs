//! Graphs: named, typed values and the nodes that make them.
//!
//! Nodes stand in running order (every input is made before it is read); [`crate::GraphBuilder`] is the only way to make
//! one and checks types on the way. Control flow is an op that owns closed graphs: what a body reads from around it is an
//! input of the node. Deliberately absent: anything about how a backend runs it.

use std::sync::Arc;

use kinglet_tensor::{DType, KvSpec, Tensor};

use crate::{Arg, Op};

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A dimension: a number, a named size that each run brings, or one that only the data decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known when the graph is built.
    Fixed(usize),
    /// Index into [`Graph::dims`].
    Sym(usize),
    /// Known when the value is made.
    Unknown,
}

impl Dim {
    /// The number, when it is known.
    pub fn fixed(self) -> Option<usize> {
        if let Self::Fixed(n) = self { Some(n) } else { None }
    }

    /// The dimension that `f` makes of a known one; unknown otherwise.
    pub fn map(self, f: impl FnOnce(usize) -> usize) -> Self {
        self.fixed().map_or(Self::Unknown, |n| Self::Fixed(f(n)))
    }
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
    /// Known dimensions.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Self {
        Self { dtype, shape: shape.iter().map(|&n| Dim::Fixed(n)).collect() }
    }

    /// This many dimensions that only the data decides.
    pub fn of_rank(dtype: DType, rank: usize) -> Self {
        Self { dtype, shape: vec![Dim::Unknown; rank] }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The dimensions, when all are known.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|dim| dim.fixed()).collect()
    }

    /// Number of elements, when all dimensions are known and it does not overflow.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(dim.fixed()?))
    }

    /// The same shape with other elements.
    pub fn with(&self, dtype: DType) -> Self {
        Self { dtype, shape: self.shape.clone() }
    }

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

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A tensor whose rank is known.
    Tensor(TensorType),
    /// A list of values of one type.
    Sequence(Box<Type>),
    /// A value or none.
    Optional(Box<Type>),
    /// Only the data decides, even the rank.
    Unknown,
    /// Stands for an optional argument that was not given.
    Absent,
}

impl Type {
    /// The tensor type, when it is one.
    pub fn tensor(&self) -> Option<&TensorType> {
        if let Self::Tensor(ty) = self { Some(ty) } else { None }
    }

    /// The tensor type, when every dimension is known.
    pub fn known(&self) -> Option<&TensorType> {
        self.tensor().filter(|ty| ty.shape.iter().all(|dim| dim.fixed().is_some()))
    }

    /// The type without the names of its graph's dims, which mean nothing in another graph.
    pub fn closed(self) -> Self {
        match self {
            Self::Tensor(mut ty) => {
                ty.shape.iter_mut().for_each(|dim| *dim = dim.fixed().map_or(Dim::Unknown, Dim::Fixed));
                ty.into()
            }
            other => other,
        }
    }

    /// What is known, in another graph, of a value that has one of two types.
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Tensor(a), Self::Tensor(b)) if a.dtype == b.dtype && a.rank() == b.rank() => {
                let one = |(a, b): (&Dim, &Dim)| match (a.fixed(), b.fixed()) {
                    (Some(a), Some(b)) if a == b => Dim::Fixed(a),
                    _ => Dim::Unknown,
                };
                TensorType { dtype: a.dtype, shape: a.shape.iter().zip(&b.shape).map(one).collect() }.into()
            }
            _ => Self::Unknown,
        }
    }
}

impl From<TensorType> for Type {
    fn from(ty: TensorType) -> Self {
        Self::Tensor(ty)
    }
}

/// What makes a value.
#[derive(Clone, Debug)]
pub enum Def {
    /// Nothing: an optional argument that was not given.
    Absent,
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
    pub ty: Type,
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

    /// The tensor type of a value, when it is a tensor.
    pub fn tensor_type(&self, id: ValueId) -> Option<&TensorType> {
        self.value(id).ty.tensor()
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

    /// Puts tensors that lie elsewhere in the place of constants, to share their memory. What `other` answers must have the
    /// content of what it is asked for; another type or shape is not taken.
    pub fn share_weights(&mut self, mut other: impl FnMut(&Tensor) -> Option<Tensor>) {
        for value in &mut self.values {
            let Def::Weight(tensor) = &mut value.def else { continue };
            let fits = |new: &Tensor| new.dtype() == tensor.dtype() && new.shape() == tensor.shape();
            if let Some(new) = other(tensor).filter(fits) {
                *tensor = new;
            }
        }
    }

    /// A value as inference sees it.
    pub fn arg(&self, id: ValueId) -> Arg<'_> {
        Arg { ty: &self.value(id).ty, constant: self.weight(id) }
    }

    /// The same graph with another result; what only served the old ones is left for [`crate::passes::prune`].
    #[must_use]
    pub fn ending_in(mut self, id: ValueId) -> Self {
        self.outputs = vec![id];
        self
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
    pub fn type_text(&self, ty: &Type) -> String {
        match ty {
            Type::Tensor(ty) => {
                let dims: Vec<String> = ty.shape.iter().map(|d| self.dim_text(*d)).collect();
                format!("{}[{}]", ty.dtype, dims.join(", "))
            }
            Type::Sequence(element) => format!("sequence of {}", self.type_text(element)),
            Type::Optional(element) => format!("optional {}", self.type_text(element)),
            Type::Unknown => "?".into(),
            Type::Absent => "none".into(),
        }
    }

    fn dim_text(&self, dim: Dim) -> String {
        match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Unknown => "?".into(),
            Dim::Sym(s) => self.dims.get(s).map_or_else(|| "?".into(), |d| d.name.clone()),
        }
    }
}
