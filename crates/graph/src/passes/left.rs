//! What is left to be optimised in a graph, and why it was not.

use super::log::Log;
use crate::ops::{Dequantize, Fun, MatMul, Shape, Softmax, Unary};
use crate::{Def, Dim, Graph, Node, Type, ValueId};

/// Tells of nodes that look as if a pass could have done something.
pub(super) fn explain(graph: &Graph, log: &mut Log) {
    let readers = graph.readers();
    for node in graph.nodes() {
        if let Some((pass, why)) = reason(graph, &readers, node) {
            log.leave(pass, node, why);
        }
    }
    for (node, why) in super::codes::left(graph) {
        log.leave("fuse", node, why);
    }
}

fn reason(graph: &Graph, readers: &[Vec<usize>], node: &Node) -> Option<(&'static str, String)> {
    if node.op.downcast::<Shape>().is_some() {
        return Some(("fold", open_sizes(graph, node.inputs[0])?));
    }
    let constant = |id: &ValueId| matches!(graph.value(*id).def, Def::Weight(_) | Def::Absent);
    if !node.inputs.is_empty() && node.inputs.iter().all(constant) {
        return Some(("fold", not_folded(graph, node).into()));
    }
    if let Some(Unary(Fun::Erf)) = node.op.downcast() {
        return Some(("fuse", "the error function is no part of a spelling of GELU that is known".into()));
    }
    if node.op.downcast::<Softmax>().is_some() && between_products(graph, readers, node) {
        let open = node.outputs.iter().find_map(|id| open_sizes(graph, *id));
        let why = open
            .unwrap_or_else(|| "the products around it are no spelling of attention that is known".into());
        return Some(("fuse", why));
    }
    None
}

/// Whether a softmax stands between two products: as attention does.
fn between_products(graph: &Graph, readers: &[Vec<usize>], node: &Node) -> bool {
    let product = |index: usize| graph.nodes()[index].op.downcast::<MatMul>().is_some();
    let behind = readers[node.outputs[0].index()].iter().any(|index| product(*index));
    let mut id = node.inputs[0];
    // Scale and mask stand between the first product and the softmax.
    for _ in 0..4 {
        match graph.value(id).def {
            Def::Node(index, _) if product(index) => return behind,
            Def::Node(index, _) if !graph.nodes()[index].inputs.is_empty() => {
                id = graph.nodes()[index].inputs[0]
            }
            _ => return false,
        }
    }
    false
}

/// Which sizes of a value each run brings.
fn open_sizes(graph: &Graph, id: ValueId) -> Option<String> {
    let Type::Tensor(ty) = &graph.value(id).ty else { return Some("only the data decides its shape".into()) };
    let names: Vec<&str> = ty
        .shape
        .iter()
        .filter_map(|dim| match dim {
            Dim::Fixed(_) => None,
            Dim::Unknown => Some("?"),
            Dim::Sym(s) => graph.dims().get(*s).map(|dim| dim.name.as_str()),
        })
        .collect();
    (!names.is_empty()).then(|| format!("sizes of it are open: {}", names.join(", ")))
}

/// Why a node that reads constants only is no constant.
fn not_folded(graph: &Graph, node: &Node) -> &'static str {
    match () {
        () if node.op.downcast::<Dequantize>().is_some() => "its codes are kept for integer arithmetic",
        () if !node.op.pure() => "it is random",
        () if !node.op.bodies().is_empty() => "it is control flow",
        () if node.outputs.iter().any(|id| graph.tensor_type(*id).is_none()) => "its result is no tensor",
        () => "its result is larger than what it is made of",
    }
}
