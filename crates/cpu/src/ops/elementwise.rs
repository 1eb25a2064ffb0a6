//! `Add`, `Scale`, `Softcap`.

use kinglet_graph::ops::{Scale, Softcap};
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::ops;

use crate::lower::{Lowering, Work, op_of};

pub(super) fn add(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let (a, b, out) = (low.value(node.inputs[0])?, low.value(node.inputs[1])?, low.value(node.outputs[0])?);
    low.step(node, &[a, b], &[out], Work::default(), move |s| ops::add(s[a], s[b], s[out]));
    Ok(())
}

pub(super) fn scale(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let factor = op_of::<Scale>(node)?.factor;
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[x], &[out], Work::default(), move |s| ops::scale(s[x], s[out], factor));
    Ok(())
}

pub(super) fn softcap(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let cap = op_of::<Softcap>(node)?.cap;
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[x], &[out], Work::default(), move |s| ops::softcap(s[x], s[out], cap));
    Ok(())
}
