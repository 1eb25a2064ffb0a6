//! Control flow: bodies become graphs of their own.

use std::sync::Arc;

use kinglet_graph::ops::{If, Loop, Scan};
use kinglet_graph::{Graph, GraphBuilder, Type, ValueId};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[("", "If", branch), ("", "Loop", repeat), ("", "Scan", scan)];

fn branch(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (then, mut reads) = cx.body("then_branch")?;
    let (otherwise, more) = cx.body("else_branch")?;
    let outputs = cx.node.output.len();
    if then.outputs().len() < outputs || otherwise.outputs().len() < outputs {
        return Err(cx.fail("a branch makes too few values"));
    }
    reads.extend(more);
    reads.insert(0, cx.input(0));
    cx.emit_with(If { then, otherwise }, &reads)
}

fn repeat(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (body, reads) = cx.body("body")?;
    let carried = cx.inputs().len().saturating_sub(2);
    let (given, made) = (body.inputs().len() - reads.len(), body.outputs().len());
    if given != carried + 2 || made < carried + 1 {
        return Err(cx.fail(format!("a body from {given} to {made} values, {carried} are carried")));
    }
    let inputs: Vec<_> = (0..carried + 2).map(|i| cx.input(i)).chain(reads).collect();
    cx.emit_with(Loop { body, carried }, &inputs)
}

fn scan(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (body, reads) = cx.body("body")?;
    if cx.opset < 9 {
        return batched(cx, body, reads);
    }
    let scanned = usize::try_from(cx.int("num_scan_inputs", 0)).unwrap_or(0);
    let carried = cx.inputs().len().checked_sub(scanned).ok_or_else(|| cx.fail("too few inputs"))?;
    let (given, made) = (body.inputs().len() - reads.len(), body.outputs().len());
    if given != carried + scanned || made < carried {
        return Err(cx.fail(format!("a body from {given} to {made} values, {carried} are carried")));
    }
    let list = |name: &str, count: usize| -> Vec<i64> {
        let given = cx.attrs.ints(name).unwrap_or(&[]);
        (0..count).map(|i| given.get(i).copied().unwrap_or(0)).collect()
    };
    let pairs = |axes: &str, directions: &str, count: usize| -> Vec<(i64, bool)> {
        list(axes, count).into_iter().zip(list(directions, count).into_iter().map(|d| d != 0)).collect()
    };
    let ins = pairs("scan_input_axes", "scan_input_directions", scanned);
    let outs = pairs("scan_output_axes", "scan_output_directions", made - carried);
    let inputs: Vec<_> = cx.inputs().iter().copied().chain(reads).collect();
    cx.emit_with(Scan { body, carried, inputs: ins, outputs: outs }, &inputs)
}

/// Version 8: inputs are lengths, states and sequences, all with a batch in front; each of its elements is scanned by itself.
fn batched(cx: &mut Cx<'_, '_>, body: Arc<Graph>, reads: Vec<ValueId>) -> Result<(), OnnxError> {
    if cx.has(0) {
        return Err(cx.fail("lengths of version 8 are not supported; convert the model to version 9"));
    }
    let scanned = usize::try_from(cx.int("num_scan_inputs", 0)).unwrap_or(0);
    let given = cx.inputs().len().saturating_sub(1);
    let carried = given.checked_sub(scanned).ok_or_else(|| cx.fail("too few inputs"))?;
    let (taken, made) = (body.inputs().len() - reads.len(), body.outputs().len());
    if taken != given || made < carried {
        return Err(cx.fail(format!("a body from {taken} to {made} values, {carried} are carried")));
    }
    let back = cx.attrs.ints("directions").unwrap_or(&[]);
    let inputs = (0..scanned).map(|i| (0, back.get(i).is_some_and(|d| *d != 0))).collect();
    let around: Vec<(String, Type)> = body
        .inputs()
        .iter()
        .enumerate()
        .map(|(i, id)| {
            (body.value(*id).name.clone(), if i < given { Type::Unknown } else { body.value(*id).ty.clone() })
        })
        .collect();
    let scan = Scan { body, carried, inputs, outputs: vec![(0, false); made - carried] };
    let mut b = GraphBuilder::new();
    let taken = around.into_iter().map(|(name, ty)| b.input(&name, ty)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = (0..made).map(|i| b.fresh(&format!("made.{i}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results = b.push(&names, Arc::new(scan), &taken, String::new())?;
    results.into_iter().for_each(|id| b.output(id));
    let each = Scan {
        body: Arc::new(b.finish()),
        carried: 0,
        inputs: vec![(0, false); given],
        outputs: vec![(0, false); made],
    };
    let inputs: Vec<ValueId> = cx.inputs()[1..].iter().copied().chain(reads).collect();
    cx.emit_with(each, &inputs)
}
