//! `SelectRows`.

use kinglet_graph::{ExecError, Node};
use kinglet_kernels::ops;

use crate::lower::{Lowering, Work};

pub(super) fn select_rows(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let (x, rows, out) =
        (low.value(node.inputs[0])?, low.value(node.inputs[1])?, low.value(node.outputs[0])?);
    let work = Work { gathers: true, ..Work::default() };
    low.step(node, &[x, rows], &[out], work, move |s| ops::select_rows(s[x], s[rows], s[out]));
    Ok(())
}
