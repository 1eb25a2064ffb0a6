//! Control flow: bodies become graphs of nodes.

use kinglet_graph::ops::{If, Loop, Scan};

use super::Entry;
use crate::onnx::write::attribute::{graph, ints, size};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("If", branch), ("Loop", repeat), ("Scan", scan)];

fn branch(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let If { then, otherwise } = ex.op()?;
    let around = all(ex);
    let outputs = ex.node.outputs.len();
    let split = (1 + then.inputs().len()).min(around.len());
    let first = ex.body("then", then, &around[1..split], outputs);
    let second = ex.body("else", otherwise, &around[split..], outputs);
    ex.emit_with("If", &around[..1], vec![graph("then_branch", first), graph("else_branch", second)])
}

fn repeat(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Loop { body, carried } = ex.op()?;
    let around = all(ex);
    let own = (2 + carried).min(around.len());
    let message = ex.body("body", body, &around[own..], usize::MAX);
    ex.emit_with("Loop", &around[..own], vec![graph("body", message)])?;
    ex.fill_outputs(body.outputs().len().saturating_sub(1));
    Ok(())
}

fn scan(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Scan { body, carried, inputs, outputs } = ex.op()?;
    let around = all(ex);
    let own = (carried + inputs.len()).min(around.len());
    let message = ex.body("body", body, &around[own..], usize::MAX);
    let axes = |list: &[(i64, bool)]| list.iter().map(|(axis, _)| *axis).collect::<Vec<_>>();
    let ways = |list: &[(i64, bool)]| list.iter().map(|(_, back)| i64::from(*back)).collect::<Vec<_>>();
    let mut attributes = vec![graph("body", message), size("num_scan_inputs", inputs.len())];
    attributes.push(ints("scan_input_axes", axes(inputs)));
    attributes.push(ints("scan_input_directions", ways(inputs)));
    if !outputs.is_empty() {
        attributes.push(ints("scan_output_axes", axes(outputs)));
        attributes.push(ints("scan_output_directions", ways(outputs)));
    }
    ex.emit_with("Scan", &around[..own], attributes)?;
    ex.fill_outputs(body.outputs().len());
    Ok(())
}

/// The names of all inputs, absent ones too.
fn all(ex: &mut Ex<'_, '_>) -> Vec<String> {
    (0..ex.node.inputs.len()).map(|i| ex.input(i)).collect()
}
