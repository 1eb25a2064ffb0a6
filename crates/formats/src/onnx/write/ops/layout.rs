//! Shapes and places of elements.

use kinglet_graph::ops::{Concat, DepthSpace, Flatten, Pad, PadMode, Reshape, Split, Transpose, Trilu};

use super::Entry;
use crate::onnx::write::attribute::{flag, int, size, sizes, text};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Reshape", |ex| {
        let allow_zero = ex.op::<Reshape>()?.allow_zero;
        ex.emit("Reshape", if allow_zero { vec![flag("allowzero", true)] } else { vec![] })
    }),
    ("Flatten", |ex| {
        let axis = ex.op::<Flatten>()?.axis;
        ex.emit("Flatten", vec![int("axis", axis)])
    }),
    ("Squeeze", |ex| ex.emit("Squeeze", vec![])),
    ("Unsqueeze", |ex| ex.emit("Unsqueeze", vec![])),
    ("Transpose", |ex| {
        let perm = &ex.op::<Transpose>()?.perm;
        ex.emit("Transpose", if perm.is_empty() { vec![] } else { vec![sizes("perm", perm)] })
    }),
    ("Expand", |ex| ex.emit("Expand", vec![])),
    ("Tile", |ex| ex.emit("Tile", vec![])),
    ("Concat", |ex| {
        let axis = ex.op::<Concat>()?.axis;
        ex.emit("Concat", vec![int("axis", axis)])
    }),
    ("Split", split),
    ("Slice", |ex| ex.emit("Slice", vec![])),
    ("Pad", pad),
    ("Trilu", |ex| {
        let upper = ex.op::<Trilu>()?.upper;
        ex.emit("Trilu", vec![flag("upper", upper)])
    }),
    ("DepthSpace", depth_space),
];

fn split(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Split { axis, parts } = *ex.op()?;
    let mut attributes = vec![int("axis", axis)];
    if !ex.has(1) {
        attributes.push(size("num_outputs", parts));
    }
    ex.emit("Split", attributes)?;
    ex.fill_outputs(parts);
    Ok(())
}

fn pad(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let mode = match ex.op::<Pad>()?.mode {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => {
            ex.needs(19)?;
            "wrap"
        }
    };
    ex.emit("Pad", vec![text("mode", mode)])
}

fn depth_space(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let DepthSpace { block, to_space, channels_first } = *ex.op()?;
    match (to_space, channels_first) {
        (true, first) => {
            let mode = text("mode", if first { "CRD" } else { "DCR" });
            ex.emit("DepthToSpace", vec![size("blocksize", block), mode])
        }
        (false, false) => ex.emit("SpaceToDepth", vec![size("blocksize", block)]),
        (false, true) => {
            ex.needs(28)?;
            ex.emit("SpaceToDepth", vec![size("blocksize", block), text("mode", "CRD")])
        }
    }
}
