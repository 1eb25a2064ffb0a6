//! Functions of one or two values, element by element, over plain values and images in blocks; copies in other orders.

use std::sync::Arc;

use kinglet_graph::ops::{BatchNorm, Binary, Fun, Fun2, Transpose, Unary};
use kinglet_graph::{ExecError, Node, ValueId};
use kinglet_kernels::nd::{self, Act, Axes, Side};

use super::chain::activation;
use crate::blocked::{Image, constant, rows_of, scalar};
use crate::lanes::ANY;
use crate::lower::{BufferId, Lowering, Spans, Work, op_of};

/// Binds a function of one value.
pub(crate) fn unary(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let f = match op_of::<Unary>(node)?.0 {
        Fun::Neg => nd::Unary::Neg,
        Fun::Abs => nd::Unary::Abs,
        Fun::Sqrt => nd::Unary::Sqrt,
        Fun::Reciprocal => nd::Unary::Reciprocal,
        Fun::Exp => nd::Unary::Exp,
        Fun::Erf => nd::Unary::Erf,
        _ => match activation(low, node) {
            Some(act) => nd::Unary::Act(act),
            None => return Ok(false),
        },
    };
    each(low, node, f)
}

/// Binds a clip between constants.
pub(crate) fn clip(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    match activation(low, node) {
        Some(act) => each(low, node, nd::Unary::Act(act)),
        None => Ok(false),
    }
}

fn each(low: &mut Lowering<'_>, node: &Node, f: nd::Unary) -> Result<bool, ExecError> {
    let x = node.inputs[0];
    if low.sizes(x).is_none() || low.graph.weight(x).is_some() {
        return Ok(false);
    }
    let (x, out) = match Image::of(low.graph, x).filter(|_| low.is_blocked(x)) {
        Some(image) => (low.blocked(node, x, image)?, low.make_blocked(node.outputs[0], image)),
        None => (low.value(x)?, low.value(node.outputs[0])?),
    };
    low.step(node, &[x], &[out], Work::default(), move |s| {
        nd::unary(f, rows_of(s, x, 1), rows_of(s, out, 1))
    })
    .parts = ANY;
    Ok(true)
}

/// Binds a function of two values.
pub(crate) fn binary(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (f, node) = match op_of::<Binary>(node)?.0 {
        Fun2::Add => (nd::Binary::Add, node.clone()),
        Fun2::Sub => (nd::Binary::Sub, node.clone()),
        Fun2::Mul => (nd::Binary::Mul, node.clone()),
        Fun2::Div => (nd::Binary::Div, node.clone()),
        // A square, when it is no larger than what is squared.
        Fun2::Pow
            if scalar(low.graph, node.inputs[1]) == Some(2.0)
                && low.sizes(node.inputs[0]) == low.sizes(node.outputs[0]) =>
        {
            (nd::Binary::Mul, Node { inputs: vec![node.inputs[0]; 2], ..node.clone() })
        }
        _ => return Ok(false),
    };
    let node = &node;
    let shapes = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|id| low.sizes(id));
    let [Some(a), Some(b), Some(out)] = shapes else { return Ok(false) };
    let act = follow(low, node);
    let (act, result) = act.unwrap_or((Act::NONE, node.outputs[0]));
    if blocked_pair(low, node, f, act, result)? {
        return Ok(true);
    }
    let strides = [broadcast(&a, &out), broadcast(&b, &out)];
    let (a, b) = (operand(low, node.inputs[0])?, operand(low, node.inputs[1])?);
    let to = low.value(result)?;
    pair(low, node, (f, act), (out, strides), [a, b], to);
    Ok(true)
}

/// The activation that follows as the only reader, and its output.
fn follow(low: &mut Lowering<'_>, node: &Node) -> Option<(Act, ValueId)> {
    let next = low.only_reader(node.outputs[0]).filter(|_| low.tuning.1)?;
    let reader = &low.graph.nodes()[next];
    let act = activation(low, reader)?;
    low.done(next);
    Some((act, reader.outputs[0]))
}

/// A side of a function: a buffer, or constants.
#[derive(Clone)]
pub(super) enum From {
    Buffer(BufferId),
    Values(Arc<[f32]>),
}

impl From {
    /// The buffer, when it is one.
    pub(super) fn buffer(&self) -> Option<BufferId> {
        if let Self::Buffer(id) = self { Some(*id) } else { None }
    }

    /// What kernels read, as one row.
    pub(super) fn side(&self, spans: &Spans) -> Side {
        match self {
            Self::Buffer(id) => Side::Span(rows_of(spans, *id, 1)),
            Self::Values(values) => Side::Values(values.clone()),
        }
    }
}

/// A value as a side.
pub(super) fn operand(low: &mut Lowering<'_>, id: ValueId) -> Result<From, ExecError> {
    match constant(low.graph, id) {
        Some(values) => Ok(From::Values(values.into())),
        None => low.value(id).map(From::Buffer),
    }
}

/// Adds a function of two sides, whose elements have these strides along the sizes of the result.
fn pair(
    low: &mut Lowering<'_>,
    node: &Node,
    (f, act): (nd::Binary, Act),
    (sizes, strides): (Vec<usize>, [Vec<usize>; 2]),
    [a, b]: [From; 2],
    out: BufferId,
) {
    let reads: Vec<BufferId> = [&a, &b].into_iter().filter_map(From::buffer).collect();
    let rows = sizes.first().copied().unwrap_or(1);
    let apart = [&a, &b].into_iter().zip(&strides).map(|(side, strides)| {
        let stride = strides.first().copied().unwrap_or(0);
        low.rows_apart(side.buffer(), rows, stride, 0)
    });
    let apart = apart.min().unwrap_or(0);
    low.step(node, &reads, &[out], Work::default(), move |s| {
        let axes = Axes::new(&s.shared(&sizes), [&strides[0], &strides[1]]);
        nd::binary(f, &axes, act, a.side(s), b.side(s), rows_of(s, out, 1))
    })
    .parts = apart;
}

/// Images of one shape, or an image and one value for each of its channels, at least one of them in blocks.
fn blocked_pair(
    low: &mut Lowering<'_>,
    node: &Node,
    f: nd::Binary,
    act: Act,
    result: ValueId,
) -> Result<bool, ExecError> {
    let [a, b] = [node.inputs[0], node.inputs[1]];
    let images = [a, b, node.outputs[0]].map(|id| Image::of(low.graph, id));
    let [Some(x), Some(y), Some(out)] = images else { return Ok(false) };
    let rank = |id: ValueId| low.graph.tensor_type(id).map(|ty| ty.rank());
    if rank(a) != rank(b) {
        return Ok(false);
    }
    let spread =
        |image: Image| Image { size: out.size, ..image } == out && (image == out || image.size == [1, 1]);
    let constants = low.graph.weight(a).is_some() || low.graph.weight(b).is_some();
    let fits = spread(x) && spread(y) && !constants;
    if !fits || !(low.is_blocked(a) || low.is_blocked(b)) {
        return Ok(false);
    }
    let step = |image: Image| usize::from(image.size == out.size) * nd::BLOCK;
    let plane = |image: Image| image.pixels() * nd::BLOCK;
    let sizes = [out.images * out.channels.div_ceil(nd::BLOCK), out.pixels(), nd::BLOCK];
    let strides = [x, y].map(|side| vec![plane(side), step(side), 1]);
    let sides = [From::Buffer(low.blocked(node, a, x)?), From::Buffer(low.blocked(node, b, y)?)];
    let to = low.make_blocked(result, out);
    pair(low, node, (f, act), (sizes.to_vec(), strides), sides, to);
    Ok(true)
}

/// Binds a normalisation by constants that no product took in.
pub(crate) fn batch_norm(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let norm = *op_of::<BatchNorm>(node)?;
    let Some(shape) = low.sizes(node.inputs[0]).filter(|shape| shape.len() >= 2) else { return Ok(false) };
    let Some((scale, shift)) = super::chain::batch_norm_affine(low, node, &norm) else { return Ok(false) };
    let mut strides = vec![0; shape.len()];
    strides[1] = 1;
    let dense = broadcast(&shape, &shape);
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    let scaled = low.floats(1, shape.iter().product());
    let sides = [From::Buffer(x), From::Values(scale.into())];
    let axes = (shape, [dense, strides]);
    pair(low, node, (nd::Binary::Mul, Act::NONE), axes.clone(), sides, scaled);
    let sides = [From::Buffer(scaled), From::Values(shift.into())];
    pair(low, node, (nd::Binary::Add, Act::NONE), axes, sides, out);
    Ok(true)
}

/// Binds another order of dimensions.
pub(crate) fn transpose(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = op_of::<Transpose>(node)?.clone();
    let sizes = low.sizes(node.inputs[0]).or_else(|| low.code_sizes(node.inputs[0]));
    let Some(shape) = sizes else { return Ok(false) };
    if low.graph.weight(node.inputs[0]).is_some() {
        return Ok(false);
    }
    let strides = broadcast(&shape, &shape);
    let order = op.order(shape.len());
    let pick = |from: &[usize]| order.iter().map(|&i| from[i]).collect::<Vec<_>>();
    let (sizes, strides) = (pick(&shape), pick(&strides));
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    let first = (sizes.first().copied().unwrap_or(1), strides.first().copied().unwrap_or(1));
    let apart = low.rows_apart(Some(x), first.0, first.1, 0);
    low.step(node, &[x], &[out], Work::default(), move |s| {
        nd::copy(&Axes::new(&s.shared(&sizes), [&strides]), 0, rows_of(s, x, 1), rows_of(s, out, 1))
    })
    .parts = apart;
    Ok(true)
}

/// Row-major strides of an operand of `shape` that is broadcast to `out`.
pub(super) fn broadcast(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut stride = 1;
    for (axis, &size) in shape.iter().enumerate().rev() {
        let at = axis + out.len() - shape.len();
        strides[at] = if size == 1 { 0 } else { stride };
        stride *= size;
    }
    strides
}
