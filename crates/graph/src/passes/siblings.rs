//! Matrices that read the same input become one `Linear`: one pass over the input, one quantisation of it.

use std::sync::Arc;

use super::rewrite::Rewrite;
use crate::ops::Linear;
use crate::{BuildError, Graph, Node, ValueId};

/// Merges runs of neighbouring `Linear` nodes over one input (query, key and value; gate and up).
pub fn share_input(graph: &Graph) -> Result<Graph, BuildError> {
    let mut rewrite = Rewrite::of(graph)?;
    let mut nodes = graph.nodes();
    while let Some(first) = nodes.first() {
        let run = nodes.iter().take_while(|node| is_sibling(first, node)).count().max(1);
        if run == 1 {
            rewrite.keep(first)?
        } else {
            merge(&mut rewrite, &nodes[..run])?
        }
        nodes = &nodes[run..];
    }
    rewrite.finish()
}

fn is_sibling(first: &Node, node: &Node) -> bool {
    let linear = |n: &Node| n.op.downcast::<Linear>().is_some();
    linear(first) && linear(node) && first.inputs[0] == node.inputs[0]
}

fn merge(rewrite: &mut Rewrite<'_>, siblings: &[Node]) -> Result<(), BuildError> {
    let (mut weights, mut biases, mut biased) = (Vec::new(), Vec::new(), Vec::new());
    for node in siblings {
        let Some(op) = node.op.downcast::<Linear>() else { continue };
        weights.extend_from_slice(&node.inputs[1..=op.biased.len()]);
        biases.extend_from_slice(&node.inputs[1 + op.biased.len()..]);
        biased.extend_from_slice(&op.biased);
    }
    let inputs: Vec<ValueId> = [siblings[0].inputs[0]].into_iter().chain(weights).chain(biases).collect();
    let outputs: Vec<ValueId> = siblings.iter().flat_map(|n| n.outputs.iter().copied()).collect();
    let note = format!("{} matrices share one input", biased.len());
    rewrite.put(Arc::new(Linear { biased }), &inputs, &outputs, note)
}
