//! Algebraic clean-ups: nodes that change nothing go away, pairs that undo or repeat each other become one.
//!
//! Every rule keeps values exactly as they are, but for the sign of zero and the rounding of a square or a root.

use std::sync::Arc;

use kinglet_tensor::DType;

use super::log::Log;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::{
    Binary, Clip, Concat, Conv, Fun, Fun2, Pad, PadMode, Pads, Reshape, Transpose, Unary, Window,
};
use crate::{Args, BuildError, Def, Graph, Node, Op, ValueId, ints};

/// Rounds until nothing changes; rules feed each other no further than this.
const ROUNDS: usize = 8;

/// Applies every rule until none applies.
pub fn simplify(graph: &Graph) -> Result<Graph, BuildError> {
    rounds(graph, &mut Log::default())
}

pub(super) fn rounds(graph: &Graph, log: &mut Log) -> Result<Graph, BuildError> {
    let mut graph = prune(graph)?;
    for _ in 0..ROUNDS {
        let before = log.done.len();
        graph = prune(&round(&graph, log)?)?;
        if log.done.len() == before {
            break;
        }
    }
    Ok(graph)
}

fn round(graph: &Graph, log: &mut Log) -> Result<Graph, BuildError> {
    let look = Look { graph, readers: graph.readers() };
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        let found = RULES.iter().find_map(|(what, rule)| Some((*what, rule(&look, node)?)));
        match found {
            None => rewrite.keep(node)?,
            Some((what, Edit::Same(id))) => {
                log.did("simplify", node, what);
                rewrite.alias(node.outputs[0], id);
            }
            Some((what, Edit::Op(op, inputs))) => {
                log.did("simplify", node, what);
                let note = [node.note.as_str(), what].into_iter().filter(|s| !s.is_empty());
                rewrite.put(op, &inputs, &node.outputs, note.collect::<Vec<_>>().join("; "))?;
            }
        }
    }
    rewrite.finish()
}

/// What a node becomes.
enum Edit {
    /// Another value.
    Same(ValueId),
    /// Another op over other inputs.
    Op(Arc<dyn Op>, Vec<ValueId>),
}

type Rule = fn(&Look<'_>, &Node) -> Option<Edit>;

const RULES: &[(&str, Rule)] = &[
    ("changes nothing", neutral),
    ("undoes what is before it", inverse),
    ("is a square", square),
    ("is a root", root),
    ("repeats what is before it", repeated),
    ("two transpositions in one", transposed_twice),
    ("two changes of shape in one", reshaped_twice),
    ("two bounds in one", clamped),
    ("two joins in one", joined_twice),
    ("does the padding that stood before it", padded),
];

struct Look<'a> {
    graph: &'a Graph,
    readers: Vec<Vec<usize>>,
}

impl Look<'_> {
    /// The node that makes a value as its first output, when its op is a `T`.
    fn made_by<T: Op>(&self, id: ValueId) -> Option<(&Node, &T)> {
        let Def::Node(index, 0) = self.graph.value(id).def else { return None };
        let node = &self.graph.nodes()[index];
        Some((node, node.op.downcast()?))
    }

    fn read_once(&self, id: ValueId) -> bool {
        self.readers[id.index()].len() == 1 && !self.graph.outputs().contains(&id)
    }

    /// The only element of a constant of floats or integers.
    fn scalar(&self, id: ValueId) -> Option<f64> {
        let tensor = self.graph.weight(id).filter(|t| t.elements() == 1)?;
        match tensor.dtype() {
            DType::F32 => Some(f32::from_le_bytes(tensor.data().get(..4)?.try_into().ok()?).into()),
            _ => ints(tensor).map(|list| list[0] as f64),
        }
    }

    fn rank(&self, id: ValueId) -> Option<usize> {
        self.graph.tensor_type(id).map(crate::TensorType::rank)
    }

    /// Whether a value has the type of another one, every dimension known or of the same name.
    fn same_type(&self, a: ValueId, b: ValueId) -> bool {
        self.graph.tensor_type(a).is_some_and(|ty| {
            ty.shape.iter().all(|dim| *dim != crate::Dim::Unknown) && self.graph.tensor_type(b) == Some(ty)
        })
    }
}

/// `x + 0`, `x - 0`, `x * 1`, `x / 1`, `x ^ 1`.
fn neutral(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let Binary(fun) = *node.op.downcast::<Binary>()?;
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let wanted = match fun {
        Fun2::Add | Fun2::Sub => 0.0,
        Fun2::Mul | Fun2::Div | Fun2::Pow => 1.0,
        _ => return None,
    };
    let keeps = |x: ValueId, c: ValueId| {
        let small = look.scalar(c)? == wanted && look.rank(c)? <= look.rank(x)?;
        small.then_some(Edit::Same(x))
    };
    let commutes = matches!(fun, Fun2::Add | Fun2::Mul);
    keeps(a, b).or_else(|| if commutes { keeps(b, a) } else { None })
}

/// `-(-x)`, `not not x`.
fn inverse(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let Unary(fun @ (Fun::Neg | Fun::Not)) = *node.op.downcast::<Unary>()? else { return None };
    let (before, op) = look.made_by::<Unary>(node.inputs[0])?;
    (op.0 == fun).then(|| Edit::Same(before.inputs[0]))
}

/// `x ^ 2`.
fn square(look: &Look<'_>, node: &Node) -> Option<Edit> {
    power(look, node, 2.0).map(|x| Edit::Op(Arc::new(Binary(Fun2::Mul)), vec![x, x]))
}

/// `x ^ 0.5`.
fn root(look: &Look<'_>, node: &Node) -> Option<Edit> {
    power(look, node, 0.5).map(|x| Edit::Op(Arc::new(Unary(Fun::Sqrt)), vec![x]))
}

/// The base of a power with this constant exponent, in f32.
fn power(look: &Look<'_>, node: &Node, exponent: f64) -> Option<ValueId> {
    let Binary(Fun2::Pow) = *node.op.downcast::<Binary>()? else { return None };
    let (x, e) = (node.inputs[0], node.inputs[1]);
    let plain = look.scalar(e) == Some(exponent) && look.rank(e)? <= look.rank(x)?;
    (plain && look.graph.tensor_type(x)?.dtype == DType::F32).then_some(x)
}

/// Functions that do nothing the second time.
fn repeated(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let Unary(fun @ (Fun::Relu | Fun::Abs | Fun::Ceil | Fun::Floor | Fun::Round | Fun::Sign)) =
        *node.op.downcast::<Unary>()?
    else {
        return None;
    };
    let (_, op) = look.made_by::<Unary>(node.inputs[0])?;
    (op.0 == fun).then(|| Edit::Same(node.inputs[0]))
}

fn transposed_twice(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let op = node.op.downcast::<Transpose>()?;
    let (before, inner) = look.made_by::<Transpose>(node.inputs[0])?;
    let rank = look.rank(before.inputs[0])?;
    let (outer, inner) = (op.order(rank), inner.order(rank));
    let perm: Vec<usize> = outer.iter().map(|i| inner[*i]).collect();
    if perm.iter().copied().eq(0..rank) {
        return Some(Edit::Same(before.inputs[0]));
    }
    look.read_once(node.inputs[0]).then(|| Edit::Op(Arc::new(Transpose { perm }), vec![before.inputs[0]]))
}

/// A reshape to a shape that refers to no dimension of what it reads.
fn reshaped_twice(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let op = node.op.downcast::<Reshape>()?;
    let shape = ints(look.graph.weight(*node.inputs.get(1)?)?)?;
    if shape.contains(&0) {
        return None;
    }
    let Def::Node(index, 0) = look.graph.value(node.inputs[0]).def else { return None };
    let before = &look.graph.nodes()[index];
    let moves_nothing = ["Reshape", "Flatten", "Squeeze", "Unsqueeze"].contains(&before.op.name());
    if !moves_nothing || !look.read_once(node.inputs[0]) {
        return None;
    }
    let x = before.inputs[0];
    if look.same_type(x, node.outputs[0]) {
        return Some(Edit::Same(x));
    }
    Some(Edit::Op(Arc::new(*op), vec![x, node.inputs[1]]))
}

/// `min(max(x, low), high)` and `max(min(x, high), low)` of scalars, `low <= high`.
fn clamped(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let Binary(outer) = *node.op.downcast::<Binary>()?;
    let wanted = match outer {
        Fun2::Min => Fun2::Max,
        Fun2::Max => Fun2::Min,
        _ => return None,
    };
    let bound = |node: &Node| {
        let &[a, b] = node.inputs.as_slice() else { return None };
        let flat = |id: ValueId| look.rank(id) == Some(0) && look.scalar(id).is_some();
        if flat(b) { Some((a, b)) } else { flat(a).then_some((b, a)) }
    };
    let (inner, first) = bound(node)?;
    let (before, op) = look.made_by::<Binary>(inner)?;
    let (x, second) = bound(before).filter(|_| op.0 == wanted && look.read_once(inner))?;
    let (low, high) = if outer == Fun2::Min { (second, first) } else { (first, second) };
    let ordered = look.scalar(low)? <= look.scalar(high)?;
    ordered.then(|| Edit::Op(Arc::new(Clip), vec![x, low, high]))
}

/// A join of which one part is itself a join along the same axis.
fn joined_twice(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let op = node.op.downcast::<Concat>()?;
    let rank = look.rank(node.outputs[0])?;
    let along = crate::axis(op.axis, rank).ok()?;
    let parts = |id: &ValueId| {
        let (before, inner) = look.made_by::<Concat>(*id)?;
        let same = crate::axis(inner.axis, rank).ok()? == along && look.read_once(*id);
        same.then(|| before.inputs.clone())
    };
    if !node.inputs.iter().any(|id| parts(id).is_some()) {
        return None;
    }
    let all = node.inputs.iter().flat_map(|id| parts(id).unwrap_or_else(|| vec![*id])).collect();
    Some(Edit::Op(node.op.clone(), all))
}

/// Zeroes around the spatial dimensions of what a convolution reads.
fn padded(look: &Look<'_>, node: &Node) -> Option<Edit> {
    let conv = node.op.downcast::<Conv>()?;
    let Pads::Given(own) = &conv.window.pads else { return None };
    let (before, pad) = look.made_by::<Pad>(node.inputs[0])?;
    let zero = before.inputs.get(2).is_none_or(|id| match look.graph.value(*id).def {
        Def::Absent => true,
        _ => look.scalar(*id) == Some(0.0),
    });
    if pad.mode != PadMode::Constant || !zero {
        return None;
    }
    let args: Vec<_> = before.inputs.iter().map(|id| look.graph.arg(*id)).collect();
    let amounts = Pad::amounts(&Args(&args)).ok()??;
    let (outer, spatial) = amounts.split_at_checked(2)?;
    let fits = outer.iter().all(|pair| *pair == (0, 0)) && spatial.iter().all(|(a, b)| *a >= 0 && *b >= 0);
    if !fits {
        return None;
    }
    let old = |i: usize| own.get(i).copied().unwrap_or(0);
    let begins = spatial.iter().enumerate().map(|(i, (a, _))| a + old(i));
    let ends = spatial.iter().enumerate().map(|(i, (_, b))| b + old(spatial.len() + i));
    let pads = Pads::Given(begins.chain(ends).collect());
    let op = Conv { window: Window { pads, ..conv.window.clone() }, groups: conv.groups };
    let inputs = std::iter::once(before.inputs[0]).chain(node.inputs[1..].iter().copied()).collect();
    Some(Edit::Op(Arc::new(op), inputs))
}
