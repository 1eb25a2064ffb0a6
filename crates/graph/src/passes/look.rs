//! Reading a graph backwards: what made a value, and with which constants. What patterns are written in.

use kinglet_tensor::DType;

use crate::ops::{Binary, Fun, Fun2, Op, Transpose, Unary};
use crate::{Def, Graph, Node, ValueId};

/// A graph, and who reads its values.
pub(super) struct Look<'a> {
    pub(super) graph: &'a Graph,
    readers: Vec<Vec<usize>>,
}

impl<'a> Look<'a> {
    pub(super) fn at(graph: &'a Graph) -> Self {
        Self { graph, readers: graph.readers() }
    }

    /// The node that makes a value.
    pub(super) fn node(&self, id: ValueId) -> Option<&'a Node> {
        match self.graph.value(id).def {
            Def::Node(index, _) => Some(&self.graph.nodes()[index]),
            _ => None,
        }
    }

    /// The node and its op, when the value is output 0 of a `T`.
    pub(super) fn made_by<T: Op>(&self, id: ValueId) -> Option<(&'a Node, &'a T)> {
        let node = self.node(id).filter(|node| node.outputs[0] == id)?;
        Some((node, node.op.downcast()?))
    }

    /// Whether a value is read once, and is no result.
    pub(super) fn is_read_once(&self, id: ValueId) -> bool {
        self.reader(id).is_some()
    }

    /// How often a value is read by nodes.
    pub(super) fn readers_of(&self, id: ValueId) -> usize {
        self.readers[id.index()].len()
    }

    /// The node that reads a value, when nothing else does.
    pub(super) fn reader(&self, id: ValueId) -> Option<&'a Node> {
        match self.readers[id.index()].as_slice() {
            [reader] if !self.graph.outputs().contains(&id) => Some(&self.graph.nodes()[*reader]),
            _ => None,
        }
    }

    /// The dimensions of a value of f32, when all are known.
    pub(super) fn dims(&self, id: ValueId) -> Option<Vec<usize>> {
        self.graph.tensor_type(id).filter(|ty| ty.dtype == DType::F32)?.dims()
    }

    /// The only element of a constant of floats.
    pub(super) fn scalar(&self, id: ValueId) -> Option<f32> {
        let tensor = self.graph.weight(id).filter(|t| t.dtype() == DType::F32 && t.elements() == 1)?;
        Some(f32::from_le_bytes(tensor.data().get(..4)?.try_into().ok()?))
    }

    /// What `id` is a function of, and which.
    pub(super) fn unary(&self, id: ValueId) -> Option<(ValueId, Fun)> {
        self.made_by::<Unary>(id).map(|(node, Unary(fun))| (node.inputs[0], *fun))
    }

    /// The operands of `fun` that makes `id`.
    pub(super) fn binary(&self, id: ValueId, fun: Fun2) -> Option<[ValueId; 2]> {
        let (node, _) = self.made_by::<Binary>(id).filter(|(_, op)| op.0 == fun)?;
        Some([node.inputs[0], node.inputs[1]])
    }

    /// The constant and the value that `id` is made of by a function of two.
    pub(super) fn with_constant(&self, id: ValueId, fun: Fun2) -> Option<(f32, ValueId)> {
        let [a, b] = self.binary(id, fun)?;
        match (self.scalar(a), self.scalar(b)) {
            (None, Some(c)) => Some((c, a)),
            (Some(c), None) if matches!(fun, Fun2::Add | Fun2::Mul) => Some((c, b)),
            _ => None,
        }
    }

    /// The value of which `id` is a multiple, and by which factor.
    pub(super) fn multiple(&self, id: ValueId) -> Option<(f32, ValueId)> {
        let divided = || self.with_constant(id, Fun2::Div).map(|(c, value)| (1.0 / c, value));
        self.with_constant(id, Fun2::Mul).or_else(divided)
    }

    /// The value of which `id` is `perm`.
    pub(super) fn transposed(&self, id: ValueId, perm: &[usize]) -> Option<ValueId> {
        let (node, op) = self.made_by::<Transpose>(id)?;
        (op.order(perm.len()) == perm).then_some(node.inputs[0])
    }
}
