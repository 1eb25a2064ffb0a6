//! `RmsNorm` and `AddRmsNorm`: the result is quantised while it is in cache when a product reads it.

use kinglet_graph::ops::{AddRmsNorm, RmsNorm};
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::ops;

use crate::lower::{Lowering, Work, op_of};
use crate::weights::WeightBank;

pub(super) fn rms_norm(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let eps = op_of::<RmsNorm>(node)?.eps;
    let w = WeightBank::vector(low.graph, node, node.inputs[1])?;
    let (x, out) = (low.value(node.inputs[0])?, low.forms(node.outputs[0])?);
    low.step(node, &[x], &out.buffers(), Work::bytes(4 * w.len()), move |s| {
        ops::rms_norm(s[x], w.clone(), eps, out.rows_out(s))
    });
    Ok(())
}

pub(super) fn add_rms_norm(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let eps = op_of::<AddRmsNorm>(node)?.eps;
    let w = WeightBank::vector(low.graph, node, node.inputs[2])?;
    let (a, b, sum) = (low.value(node.inputs[0])?, low.value(node.inputs[1])?, low.value(node.outputs[0])?);
    let out = low.forms(node.outputs[1])?;
    let writes = [vec![sum], out.buffers()].concat();
    low.step(node, &[a, b], &writes, Work::bytes(4 * w.len()), move |s| {
        ops::add_rms_norm(s[a], s[b], s[sum], w.clone(), eps, out.rows_out(s))
    });
    Ok(())
}
