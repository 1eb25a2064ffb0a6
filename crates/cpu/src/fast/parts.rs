//! Parts and repetitions of values: `Split`, `Slice`, `Expand`, and `Gather` of one index. They become views, which readers
//! take in place or copy.

use kinglet_graph::ops::{Expand, Gather, Slice, Split};
use kinglet_graph::{Args, ExecError, Node, axis, ints};

use super::elementwise::broadcast;
use crate::lower::{Lowering, op_of};
use crate::views::View;

/// Binds the parts of a value.
pub(crate) fn split(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (*op_of::<Split>(node)?, low.graph);
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    let (Ok(Some(sizes)), Some(shape)) = (op.sizes(&Args(&args)), low.sizes(node.inputs[0])) else {
        return Ok(false);
    };
    let Ok(along) = axis(op.axis, shape.len()) else { return Ok(false) };
    if node.outputs.iter().any(|id| low.sizes(*id).is_none()) {
        return Ok(false);
    }
    let Some(whole) = low.place_of(node.inputs[0])? else { return Ok(false) };
    let mut before = 0;
    for (id, size) in node.outputs.iter().zip(sizes) {
        let skip = whole.skip + before * whole.strides[along];
        low.make_view(*id, View { skip, ..whole.clone() });
        before += size;
    }
    Ok(true)
}

/// Binds a slice whose steps go forward.
pub(crate) fn slice(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let graph = low.graph;
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    let (Some(shape), Some(_)) = (low.sizes(node.inputs[0]), low.sizes(node.outputs[0])) else {
        return Ok(false);
    };
    let Ok(Some(cuts)) = Slice::cuts(&Args(&args), &shape) else { return Ok(false) };
    if cuts.iter().any(|cut| cut.step <= 0) {
        return Ok(false);
    }
    let Some(whole) = low.place_of(node.inputs[0])? else { return Ok(false) };
    let skip = cuts.iter().zip(&whole.strides).map(|(cut, stride)| cut.start * stride).sum::<usize>();
    let strides = cuts.iter().zip(&whole.strides).map(|(cut, stride)| cut.step as usize * stride).collect();
    low.make_view(node.outputs[0], View { from: whole.from, skip: whole.skip + skip, strides });
    Ok(true)
}

/// Binds a value that is repeated.
pub(crate) fn expand(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    op_of::<Expand>(node)?;
    let sizes = [node.inputs[0], node.outputs[0]].map(|id| low.sizes(id));
    let [Some(from), Some(to)] = sizes else { return Ok(false) };
    let Some(whole) = low.place_of(node.inputs[0])? else { return Ok(false) };
    let repeated = broadcast(&from, &to);
    let behind = to.len() - from.len();
    let stride = |(i, step): (usize, &usize)| if *step == 0 { 0 } else { whole.strides[i - behind] };
    let strides = repeated.iter().enumerate().map(stride).collect();
    low.make_view(node.outputs[0], View { strides, ..whole });
    Ok(true)
}

/// Binds the slice that one constant index picks.
pub(crate) fn gather(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (*op_of::<Gather>(node)?, low.graph);
    let (Some(shape), Some(_)) = (low.sizes(node.inputs[0]), low.sizes(node.outputs[0])) else {
        return Ok(false);
    };
    let index = graph.weight(node.inputs[1]).filter(|t| t.elements() == 1 && t.shape().len() <= 1);
    let Some((index, rank)) = index.and_then(|t| Some((*ints(t)?.first()?, t.shape().len()))) else {
        return Ok(false);
    };
    let Ok(along) = axis(op.axis, shape.len()) else { return Ok(false) };
    let at = if index < 0 { index + shape[along] as i64 } else { index };
    let Some(at) = usize::try_from(at).ok().filter(|at| *at < shape[along]) else { return Ok(false) };
    let Some(whole) = low.place_of(node.inputs[0])? else { return Ok(false) };
    let skip = whole.skip + at * whole.strides[along];
    let mut strides = whole.strides;
    if rank == 0 {
        strides.remove(along);
    }
    low.make_view(node.outputs[0], View { from: whole.from, skip, strides });
    Ok(true)
}
