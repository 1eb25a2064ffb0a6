//! Operations over the last dimension: softmax, layer normalisation.

use kinglet_graph::ops::{LayerNorm, Softmax, SoftmaxKind};
use kinglet_graph::{Def, ExecError, Node, ValueId};
use kinglet_kernels::{nd, ops};
use kinglet_tensor::DType;

use crate::blocked::{constant, rows_of};
use crate::lower::{Lowering, Work, op_of};

/// Rows and columns of a value of floats whose columns are the dimensions from `axis` on.
fn matrix(low: &Lowering<'_>, id: ValueId, axis: i64) -> Option<(usize, usize)> {
    let ty = low.graph.value(id).ty.known().filter(|ty| ty.dtype == DType::F32)?;
    let dims = ty.dims()?;
    let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
    let (outer, inner) = dims.split_at_checked(usize::try_from(axis).ok()?)?;
    let (rows, cols) = (outer.iter().product(), inner.iter().product());
    (rows > 0 && cols > 0 && low.graph.weight(id).is_none()).then_some((rows, cols))
}

/// Binds softmax along the last dimension.
pub(crate) fn softmax(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<Softmax>(node)?;
    let rank = low.graph.tensor_type(node.inputs[0]).map_or(0, |ty| ty.rank()) as i64;
    let last = op.axis == -1 || op.axis == rank - 1 || op.flat;
    let Some((rows, _)) = matrix(low, node.inputs[0], op.axis).filter(|_| last) else { return Ok(false) };
    if op.kind != SoftmaxKind::Soft {
        return Ok(false);
    }
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[x], &[out], Work::default(), move |s| {
        nd::softmax(rows_of(s, x, rows), rows_of(s, out, rows))
    })
    .parts = rows;
    Ok(true)
}

/// Binds layer normalisation by constants.
pub(crate) fn layer_norm(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<LayerNorm>(node)?;
    let Some((rows, cols)) = matrix(low, node.inputs[0], op.axis).filter(|_| op.centre) else {
        return Ok(false);
    };
    let graph = low.graph;
    let bias = node.inputs.get(2).filter(|id| !matches!(graph.value(**id).def, Def::Absent));
    let bias = match bias.map(|id| constant(graph, *id)) {
        Some(None) => return Ok(false),
        other => other.flatten(),
    };
    let Some(weight) = constant(graph, node.inputs[1]).filter(|w| w.len() == cols) else { return Ok(false) };
    let whole = bias.as_ref().is_none_or(|bias| bias.len() == cols);
    if !whole || node.outputs.iter().skip(1).any(|id| !low.unread(*id)) {
        return Ok(false);
    }
    let (weight, bias): (std::sync::Arc<[f32]>, _) = (weight.into(), bias.map(std::sync::Arc::<[f32]>::from));
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[x], &[out], Work::default(), move |s| {
        let span = |id| rows_of(s, id, rows);
        ops::layer_norm(span(x), weight.clone(), bias.clone(), op.eps, span(out))
    })
    .parts = rows;
    Ok(true)
}
