//! Every fused op replaced by its decomposition.

use std::collections::HashMap;

use super::rewrite::Rewrite;
use crate::ops::{Parts, Slot};
use crate::{Args, BuildError, Graph, Node, Op};

/// The graph in plain ops only; values that fused nodes make keep their names.
pub fn decompose(graph: &Graph) -> Result<Graph, BuildError> {
    only(graph, |_| true)
}

/// The graph with those ops replaced by their decomposition that `which` names.
pub(super) fn only(graph: &Graph, which: impl Fn(&dyn Op) -> bool) -> Result<Graph, BuildError> {
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
        match node.op.decompose(&Args(&args)).filter(|_| which(&*node.op)) {
            None => rewrite.keep(node)?,
            Some(parts) => expand(&mut rewrite, node, parts)?,
        }
    }
    rewrite.finish()
}

fn expand(rewrite: &mut Rewrite<'_>, node: &Node, parts: Parts) -> Result<(), BuildError> {
    let mut values = HashMap::new();
    values.extend(node.inputs.iter().enumerate().map(|(i, v)| (Slot::In(i), *v)));
    values.extend(node.outputs.iter().enumerate().map(|(i, v)| (Slot::Out(i), *v)));
    for (i, tensor) in parts.constants.into_iter().enumerate() {
        let id = rewrite.constant(&format!("{}.constant{i}", node.name), Some(tensor))?;
        values.insert(Slot::Constant(i), id);
    }
    for part in parts.nodes {
        for slot in &part.outputs {
            if let Slot::Temp(i) = slot {
                values.insert(*slot, rewrite.temporary(&format!("{}.{i}", node.name)));
            }
        }
        let find =
            |slots: &[Slot]| slots.iter().filter_map(|slot| values.get(slot).copied()).collect::<Vec<_>>();
        let outputs = find(&part.outputs);
        // Outputs of the node that nobody named are not made.
        if !outputs.is_empty() {
            rewrite.put(part.op, &find(&part.inputs), &outputs, String::new())?;
        }
    }
    Ok(())
}
