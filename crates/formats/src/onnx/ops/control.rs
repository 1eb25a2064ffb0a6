//! Control flow: bodies become graphs of their own.

use kinglet_graph::ops::{If, Loop, Scan};

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
        return Err(cx.fail("the batched form of version 8 is not supported; convert the model to version 9"));
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
