//! Nodes and constants that no output depends on go away.

use super::rewrite::Rewrite;
use crate::{BuildError, Def, Graph};

/// The graph without what nobody reads; inputs stay.
pub fn prune(graph: &Graph) -> Result<Graph, BuildError> {
    let mut live = vec![false; graph.nodes().len()];
    let mut wanted: Vec<_> = graph.outputs().to_vec();
    while let Some(id) = wanted.pop() {
        if let Def::Node(index, _) = graph.value(id).def
            && !std::mem::replace(&mut live[index], true)
        {
            wanted.extend(&graph.nodes()[index].inputs);
        }
    }
    let mut rewrite = Rewrite::of(graph)?;
    for (node, _) in graph.nodes().iter().zip(live).filter(|(_, live)| *live) {
        rewrite.keep(node)?;
    }
    rewrite.finish()
}
