//! `SequenceMap`: a body for each element of a list, as the loop that the standard defines it by.

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::proto::{Attribute, Graph, Node, ValueInfo};
use kinglet_graph::Type;

pub(in crate::onnx) const OPS: &[Entry] = &[("", "SequenceMap", map)];

/// Inputs: a list, and further lists of its length or tensors that each round takes whole.
fn map(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let body = cx.attrs.graph("body").ok_or_else(|| cx.fail("attribute `body` is missing"))?;
    let inputs: Vec<String> = cx.node.input.clone();
    if body.input.len() != inputs.len() || body.output.len() != cx.node.output.len() || inputs.is_empty() {
        return Err(cx.fail("its body takes or makes another number of values"));
    }
    let stem = format!("{}.map", super::super::read::label(cx.node));
    let name = |what: &str| format!("{stem}.{what}");
    let mut round = Graph { initializer: body.initializer.clone(), name: stem.clone(), ..Graph::default() };
    for what in ["round", "go"] {
        round.input.push(ValueInfo { name: name(what), ..ValueInfo::default() });
    }
    for (i, (formal, actual)) in body.input.iter().zip(&inputs).enumerate() {
        let list = i == 0 || matches!(cx.ty(i), Type::Sequence(_));
        let takes = if list { vec![actual.clone(), name("round")] } else { vec![actual.clone()] };
        let op = if list { "SequenceAt" } else { "Identity" };
        round.node.push(node(op, &takes, std::slice::from_ref(&formal.name)));
    }
    round.node.extend(body.node.iter().cloned());
    round.node.push(node("Identity", &[name("go")], &[name("again")]));
    round.output.push(ValueInfo { name: name("again"), ..ValueInfo::default() });
    let mut carried = vec![name("count"), String::new()];
    for (i, made) in body.output.iter().enumerate() {
        let [before, after, first] = ["before", "after", "first"].map(|what| format!("{stem}.{what}.{i}"));
        round.input.push(ValueInfo { name: before.clone(), ..ValueInfo::default() });
        round.node.push(node("SequenceInsert", &[before, made.name.clone()], std::slice::from_ref(&after)));
        round.output.push(ValueInfo { name: after, ..ValueInfo::default() });
        cx.reader.node(&node("SequenceEmpty", &[], std::slice::from_ref(&first)))?;
        carried.push(first);
    }
    cx.reader.node(&node("SequenceLength", &inputs[..1], &[name("count")]))?;
    let mut repeat = node("Loop", &carried, &cx.node.output);
    repeat.attribute.push(Attribute { name: "body".into(), g: Some(round), ..Attribute::default() });
    cx.reader.node(&repeat)
}

fn node(op: &str, input: &[String], output: &[String]) -> Node {
    Node { op_type: op.into(), input: input.to_vec(), output: output.to_vec(), ..Node::default() }
}
