//! Common subexpressions: equal nodes over equal inputs are computed once, equal constants are stored once.

use std::collections::HashMap;

use kinglet_tensor::DType;

use super::log::Log;
use super::rewrite::Rewrite;
use crate::{BuildError, Def, Graph, Node, ValueId};

/// The graph without repetition. Random ops and control flow are never shared; values that go away are those of the later
/// node.
pub fn share_equal(graph: &Graph) -> Result<Graph, BuildError> {
    share(graph, &mut Log::default())
}

pub(super) fn share(graph: &Graph, log: &mut Log) -> Result<Graph, BuildError> {
    let mut first = constants(graph);
    let copies = copies(graph, &mut first, log);
    let mut rewrite = Rewrite::of(graph)?;
    for (index, node) in graph.nodes().iter().enumerate() {
        match &copies[index] {
            Copies::Later => {}
            Copies::First(names) => {
                let inputs: Vec<ValueId> = node.inputs.iter().map(|id| first[id.index()]).collect();
                let also =
                    if names.is_empty() { String::new() } else { format!("also {}", names.join(", ")) };
                let note = [node.note.clone(), also].into_iter().filter(|s| !s.is_empty());
                rewrite.put(node.op.clone(), &inputs, &node.outputs, note.collect::<Vec<_>>().join("; "))?;
            }
        }
    }
    graph.outputs().iter().for_each(|id| rewrite.alias(*id, first[id.index()]));
    rewrite.finish()
}

/// What a node is among its equals.
#[derive(Clone)]
enum Copies {
    /// The first, with the names of the others.
    First(Vec<String>),
    /// Another one.
    Later,
}

/// The first of its equals for every node; `first` learns the same of values.
fn copies(graph: &Graph, first: &mut [ValueId], log: &mut Log) -> Vec<Copies> {
    let mut seen: HashMap<(&str, String, Vec<ValueId>, usize), usize> = HashMap::new();
    let mut copies = vec![Copies::First(Vec::new()); graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        if !node.op.pure() || !node.op.bodies().is_empty() {
            continue;
        }
        let inputs: Vec<ValueId> = node.inputs.iter().map(|id| first[id.index()]).collect();
        let key = (node.op.name(), format!("{:?}", node.op), inputs, node.outputs.len());
        let Some(original) = seen.get(&key).copied() else {
            seen.insert(key, index);
            continue;
        };
        let made: &Node = &graph.nodes()[original];
        node.outputs.iter().zip(&made.outputs).for_each(|(copy, own)| first[copy.index()] = *own);
        log.did("share", node, format!("is the same as {}", made.name));
        copies[index] = Copies::Later;
        if let Copies::First(names) = &mut copies[original] {
            names.push(node.name.clone());
        }
    }
    copies
}

/// For each value itself, or the first constant with the same content.
fn constants(graph: &Graph) -> Vec<ValueId> {
    let mut seen: HashMap<(DType, &[usize], &[u8]), ValueId> = HashMap::new();
    let mut first = Vec::with_capacity(graph.values().len());
    for (index, value) in graph.values().iter().enumerate() {
        let own = ValueId(index as u32);
        first.push(match &value.def {
            Def::Weight(t) => *seen.entry((t.dtype(), t.shape(), t.data().as_ref())).or_insert(own),
            _ => own,
        });
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Binary, Dropout, Fun, Fun2, Unary};
    use crate::{GraphBuilder, TensorType};

    #[test]
    fn equal_nodes_are_one_and_random_ones_are_not() -> Result<(), BuildError> {
        let mut b = GraphBuilder::new();
        let x = b.input("x", TensorType::fixed(DType::F32, &[2]))?;
        let (a, c) = (b.node("a", Unary(Fun::Exp), &[x])?, b.node("c", Unary(Fun::Exp), &[x])?);
        let (d, e) = (b.node("d", Unary(Fun::Neg), &[a])?, b.node("e", Unary(Fun::Neg), &[c])?);
        let random = Dropout { seed: None };
        let (f, g) = (b.node("f", random, &[d])?, b.node("g", random, &[e])?);
        let sum = b.node("sum", Binary(Fun2::Add), &[f, g])?;
        [sum, e].into_iter().for_each(|id| b.output(id));
        let mut log = Log::default();
        let shared = share(&b.finish(), &mut log)?;
        let names: Vec<&str> = shared.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "d", "f", "g", "sum"]);
        assert_eq!(shared.value(shared.outputs()[1]).name, "d");
        assert_eq!(
            log.done.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(),
            ["is the same as a", "is the same as d"]
        );
        Ok(())
    }
}
