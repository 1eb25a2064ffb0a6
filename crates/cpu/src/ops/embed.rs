//! `Embed`: rows are decoded from the table where it lies; few of its pages are ever touched.

use std::sync::Arc;

use kinglet_graph::ops::Embed;
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::matmul::Matrix;
use kinglet_kernels::ops::{self, RowTable};

use crate::lower::{Lowering, Work, op_of};

pub(super) fn embed(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let scale = op_of::<Embed>(node)?.scale;
    let fail = |reason: String| ExecError::Node { node: node.name.clone(), reason };
    let table =
        low.graph.weight(node.inputs[1]).ok_or_else(|| fail("the table must be a constant".into()))?;
    let &[rows, cols] = table.shape() else { return Err(fail("the table must be a matrix".into())) };
    let row_bytes = table.data().len() / rows.max(1);
    let matrix = Matrix::new(table.dtype(), rows, cols, table.data().clone());
    let table: Arc<dyn RowTable> = Arc::new(matrix.map_err(|e| fail(e.to_string()))?);
    let (ids, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[ids], &[out], Work { row_bytes, ..Work::default() }, move |s| {
        ops::embed(s[ids], table.clone(), scale, s[out])
    });
    Ok(())
}
