//! What the inputs of an op over codes are.

use kinglet_graph::ops::{Clip, Coded, Fun, Link, Source, Unary};
use kinglet_graph::{Def, Node, ValueId};
pub(super) use kinglet_kernels::nd::codes::Scale;
use kinglet_tensor::DType;

use crate::blocked::{constant, scalar};
use crate::lower::Lowering;

/// An input of a link: where it starts among the node's inputs, and what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) source: Source,
}

/// The inputs of each link, in order.
pub(super) fn operands(op: &Coded) -> Vec<Vec<Operand>> {
    let mut at = 0;
    let mut of = |link: &Link| {
        let one = |source: &Source| {
            let operand = Operand { at, source: *source };
            at += source.width();
            operand
        };
        link.inputs.iter().map(one).collect()
    };
    op.links.iter().map(&mut of).collect()
}

/// The codes that an operand stands for, when a step makes them.
pub(super) fn codes_of(low: &Lowering<'_>, node: &Node, operand: Operand) -> Option<ValueId> {
    let id = node.inputs[operand.at];
    let codes = matches!(operand.source, Source::Codes(_)) && low.graph.weight(id).is_none();
    codes.then_some(id)
}

/// The only scale and the zero point that stand at `at`, of codes that are `id`, as of unsigned codes.
pub(super) fn scale_at(low: &Lowering<'_>, node: &Node, at: usize, id: ValueId) -> Option<Scale> {
    let scale = scalar(low.graph, *node.inputs.get(at)?).filter(|scale| *scale > 0.0 && scale.is_finite())?;
    let signed = match low.graph.tensor_type(id)?.dtype {
        DType::U8 => false,
        DType::I8 => true,
        _ => return None,
    };
    let zero = match node.inputs.get(at + 1) {
        Some(id) if !matches!(low.graph.value(*id).def, Def::Absent) => {
            let tensor = low.graph.weight(*id).filter(|t| t.elements() == 1)?;
            *tensor.data().first()?
        }
        _ => 0,
    };
    Some(Scale { scale, zero: if signed { zero ^ 0x80 } else { zero } })
}

/// What the result of a node is coded with.
pub(super) fn result_scale(low: &Lowering<'_>, node: &Node) -> Option<Scale> {
    scale_at(low, node, node.inputs.len().checked_sub(2)?, node.outputs[0])
}

/// The numbers of a constant operand, its codes' scales being along `axis` of the value; `None` when it is none.
pub(super) fn numbers(low: &Lowering<'_>, node: &Node, operand: Operand) -> Option<Vec<f32>> {
    let id = node.inputs[operand.at];
    let Source::Codes(axis) = operand.source else { return constant(low.graph, id) };
    let tensor = low.graph.weight(id)?;
    let scales = constant(low.graph, node.inputs[operand.at + 1])?;
    let zeros = match node.inputs.get(operand.at + 2) {
        Some(id) if !matches!(low.graph.value(*id).def, Def::Absent) => integers(low, *id)?,
        _ => vec![0; scales.len()],
    };
    let rank = tensor.shape().len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok();
    let inner =
        axis.and_then(|axis| tensor.shape().get(axis + 1..)).map_or(1, |inner| inner.iter().product());
    let owner = |i: usize| if scales.len() == 1 { 0 } else { i / usize::max(inner, 1) % scales.len() };
    let codes = integers(low, id)?;
    if scales.is_empty() || zeros.len() != scales.len() {
        return None;
    }
    let number =
        |(i, code): (usize, &i64)| ((code - zeros[owner(i)]) as f64 * f64::from(scales[owner(i)])) as f32;
    Some(codes.iter().enumerate().map(number).collect())
}

/// The elements of a constant of integers.
pub(super) fn integers(low: &Lowering<'_>, id: ValueId) -> Option<Vec<i64>> {
    let tensor = low.graph.weight(id)?;
    Some(crate::host::numbers::to_i64(tensor.dtype(), tensor.data()).ok()?.into_owned())
}

/// Bounds that the links from number `from` on come to; none when they are more than bounds.
pub(super) fn bounds(low: &Lowering<'_>, node: &Node, op: &Coded, from: usize) -> Option<(f32, f32)> {
    let (mut lo, mut hi) = (f32::NEG_INFINITY, f32::INFINITY);
    for (link, operands) in op.links.iter().zip(operands(op)).skip(from) {
        let (least, most) = if link.op.downcast() == Some(&Unary(Fun::Relu)) {
            (0.0, f32::INFINITY)
        } else {
            link.op.downcast::<Clip>()?;
            let bound = |i: usize, open: f32| match operands.get(i) {
                Some(operand) if !matches!(low.graph.value(node.inputs[operand.at]).def, Def::Absent) => {
                    numbers(low, node, *operand)?.first().copied()
                }
                _ => Some(open),
            };
            (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?)
        };
        (lo, hi) = (lo.max(least).min(most), hi.max(least).min(most));
    }
    (lo <= hi).then_some((lo, hi))
}
