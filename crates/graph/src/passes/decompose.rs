//! Every fused op replaced by its decomposition.

use std::collections::HashMap;

use super::rewrite::Rewrite;
use crate::ops::{Part, Slot};
use crate::{BuildError, Graph, Node};

/// The graph in plain ops only; values that fused nodes make keep their names.
pub fn decompose(graph: &Graph) -> Result<Graph, BuildError> {
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        match node.op.decompose() {
            None => rewrite.keep(node)?,
            Some(parts) => expand(&mut rewrite, node, &parts)?,
        }
    }
    rewrite.finish()
}

fn expand(rewrite: &mut Rewrite<'_>, node: &Node, parts: &[Part]) -> Result<(), BuildError> {
    let mut values = HashMap::new();
    values.extend(node.inputs.iter().enumerate().map(|(i, v)| (Slot::In(i), *v)));
    values.extend(node.outputs.iter().enumerate().map(|(i, v)| (Slot::Out(i), *v)));
    for part in parts {
        for slot in &part.outputs {
            if let Slot::Temp(i) = slot {
                values.insert(*slot, rewrite.temporary(&format!("{}.{i}", node.name)));
            }
        }
        let find =
            |slots: &[Slot]| slots.iter().filter_map(|slot| values.get(slot).copied()).collect::<Vec<_>>();
        rewrite.put(part.op.clone(), &find(&part.inputs), &find(&part.outputs), String::new())?;
    }
    Ok(())
}
