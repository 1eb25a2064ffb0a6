//! Shapes and places of elements.

use kinglet_graph::ops::{
    Concat, DepthSpace, Expand, Flatten, Pad, PadMode, Reshape, Slice, Split, Squeeze, Tile, Transpose,
    Trilu, Unsqueeze,
};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "Reshape", reshape),
    ("", "Flatten", |cx| cx.emit(Flatten { axis: cx.int("axis", 1) })),
    ("", "Squeeze", |cx| {
        let (x, axes) = (cx.input(0), cx.axes_or_input("axes", 1, 13)?);
        cx.emit_with(Squeeze, &[x, axes])
    }),
    ("", "Unsqueeze", |cx| {
        let (x, axes) = (cx.input(0), cx.axes_or_input("axes", 1, 13)?);
        cx.emit_with(Unsqueeze, &[x, axes])
    }),
    ("", "Transpose", |cx| cx.emit(Transpose { perm: cx.sizes("perm")? })),
    ("", "Expand", |cx| cx.emit(Expand)),
    ("", "Tile", |cx| cx.emit(Tile)),
    ("", "Concat", |cx| cx.emit(Concat { axis: cx.int("axis", 1) })),
    ("", "Split", split),
    ("", "Slice", slice),
    ("", "Pad", pad),
    ("com.microsoft", "Pad", |cx| {
        let mode = pad_mode(cx)?;
        cx.emit(Pad { mode })
    }),
    ("", "Trilu", |cx| cx.emit(Trilu { upper: cx.flag("upper", true) })),
    ("", "DepthToSpace", |cx| {
        let channels_first = cx.attrs.text("mode") == Some("CRD");
        cx.emit(DepthSpace { block: cx.int("blocksize", 0).max(0) as usize, to_space: true, channels_first })
    }),
    ("", "SpaceToDepth", |cx| {
        let channels_first = cx.attrs.text("mode") == Some("CRD");
        cx.emit(DepthSpace { block: cx.int("blocksize", 0).max(0) as usize, to_space: false, channels_first })
    }),
];

fn reshape(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, shape) = (cx.input(0), cx.axes_or_input("shape", 1, 5)?);
    cx.emit_with(Reshape { allow_zero: cx.flag("allowzero", false) }, &[x, shape])
}

fn split(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, sizes) = (cx.input(0), cx.axes_or_input("split", 1, 13)?);
    cx.emit_with(Split { axis: cx.int("axis", 0), parts: cx.node.output.len() }, &[x, sizes])
}

/// Everything is an attribute before version 10.
fn slice(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    if cx.opset >= 10 {
        return cx.emit(Slice);
    }
    let list = |cx: &mut Cx<'_, '_>, name: &str| match cx.attrs.ints(name) {
        Some(list) => cx.ints(list),
        None => Ok(cx.builder().absent()),
    };
    let x = cx.input(0);
    let (starts, ends, axes) = (list(cx, "starts")?, list(cx, "ends")?, list(cx, "axes")?);
    cx.emit_with(Slice, &[x, starts, ends, axes])
}

/// Pads and value are attributes before version 11.
fn pad_mode(cx: &Cx<'_, '_>) -> Result<PadMode, OnnxError> {
    Ok(match cx.attrs.text("mode").unwrap_or("constant") {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => return Err(cx.fail(format!("mode `{other}` is not known"))),
    })
}

fn pad(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let mode = pad_mode(cx)?;
    if cx.opset >= 11 {
        return cx.emit(Pad { mode });
    }
    let x = cx.input(0);
    let pads = cx.attrs.ints("pads").or(cx.attrs.ints("paddings")).unwrap_or(&[]);
    let pads = cx.ints(pads)?;
    let dtype = cx.builder().dtype(x).unwrap_or(kinglet_tensor::DType::F32);
    let value = cx.scalar(dtype, cx.float("value", 0.0).into())?;
    cx.emit_with(Pad { mode }, &[x, pads, value])
}
