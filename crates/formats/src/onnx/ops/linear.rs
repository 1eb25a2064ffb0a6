//! Matrix products and convolutions.

use kinglet_graph::ops::{Conv, ConvTranspose, Gemm, MatMul, Pads, Window};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "MatMul", |cx| cx.emit(MatMul)),
    ("", "Gemm", |cx| {
        cx.emit(Gemm {
            alpha: cx.float("alpha", 1.0),
            beta: cx.float("beta", 1.0),
            trans_a: cx.flag("transA", false),
            trans_b: cx.flag("transB", false),
        })
    }),
    ("", "Conv", |cx| cx.emit(Conv { window: window(cx)?, groups: groups(cx)? })),
    ("", "ConvTranspose", |cx| {
        cx.emit(ConvTranspose {
            window: window(cx)?,
            groups: groups(cx)?,
            output_padding: cx.sizes("output_padding")?,
            output_shape: cx.sizes("output_shape")?,
        })
    }),
];

/// Strides, dilations and pads of a node.
pub(super) fn window(cx: &Cx<'_, '_>) -> Result<Window, OnnxError> {
    let given = cx.attrs.ints("pads").unwrap_or(&[]);
    if given.iter().any(|n| n.unsigned_abs() >= 1 << 31) {
        return Err(cx.fail(format!("pads of {given:?}")));
    }
    let pads = match cx.attrs.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" | "" => Pads::Given(given.to_vec()),
        "VALID" => Pads::default(),
        "SAME_UPPER" => Pads::SameUpper,
        "SAME_LOWER" => Pads::SameLower,
        other => return Err(cx.fail(format!("auto_pad `{other}` is not known"))),
    };
    Ok(Window { strides: cx.sizes("strides")?, dilations: cx.sizes("dilations")?, pads })
}

pub(super) fn groups(cx: &Cx<'_, '_>) -> Result<usize, OnnxError> {
    let groups = cx.int("group", 1);
    usize::try_from(groups).ok().filter(|n| *n > 0).ok_or_else(|| cx.fail(format!("{groups} groups")))
}
