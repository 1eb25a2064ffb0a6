//! A residual sum whose next use is a norm becomes `AddRmsNorm`: the sum is normalised while it is in cache.

use std::sync::Arc;

use super::rewrite::Rewrite;
use crate::ops::{Add, AddRmsNorm, RmsNorm};
use crate::{BuildError, Graph, Node, TensorType};

/// Fuses `RmsNorm(Add(a, b), w)` where the two nodes are neighbours and the norm spans whole rows.
pub fn fuse_add_norm(graph: &Graph) -> Result<Graph, BuildError> {
    let mut rewrite = Rewrite::of(graph)?;
    let mut nodes = graph.nodes();
    while let Some(first) = nodes.first() {
        let fused = nodes.get(1).and_then(|second| pattern(graph, first, second).map(|op| (op, second)));
        let Some((op, norm)) = fused else {
            rewrite.keep(first)?;
            nodes = &nodes[1..];
            continue;
        };
        let inputs = [first.inputs[0], first.inputs[1], norm.inputs[1]];
        let note = "residual sum and norm in one pass".into();
        rewrite.put(Arc::new(op), &inputs, &[first.outputs[0], norm.outputs[0]], note)?;
        nodes = &nodes[2..];
    }
    rewrite.finish()
}

fn pattern(graph: &Graph, add: &Node, norm: &Node) -> Option<AddRmsNorm> {
    add.op.downcast::<Add>()?;
    let op = norm.op.downcast::<RmsNorm>()?;
    let cols = |id| graph.tensor_type(id).and_then(TensorType::cols);
    let whole_rows = cols(norm.inputs[1]) == cols(norm.inputs[0]);
    (norm.inputs[0] == add.outputs[0] && whole_rows).then_some(AddRmsNorm { eps: op.eps })
}
