//! `Glu`: the result is quantised while it is in registers when a product reads it.

use kinglet_graph::ops::{Activation, Glu};
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::ops;

use crate::lower::{Lowering, Work, op_of};

pub(super) fn glu(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let act = match op_of::<Glu>(node)?.act {
        Activation::Silu => ops::Activation::Silu,
        Activation::GeluTanh => ops::Activation::GeluTanh,
        Activation::GeluErf => ops::Activation::GeluErf,
    };
    let (gate, up) = (low.value(node.inputs[0])?, low.value(node.inputs[1])?);
    let out = low.forms(node.outputs[0])?;
    low.step(node, &[gate, up], &out.buffers(), Work::default(), move |s| {
        ops::glu(act, s[gate], s[up], out.rows_out(s))
    });
    Ok(())
}
