//! Matrix products and convolutions.

use kinglet_graph::ops::{Conv, ConvTranspose, Gemm, Pads, Window};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::proto::Attribute;
use crate::onnx::write::attribute::{flag, float, ints, size, sizes, text};

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("MatMul", |ex| ex.emit("MatMul", vec![])),
    ("Gemm", |ex| {
        let Gemm { alpha, beta, trans_a, trans_b } = *ex.op()?;
        let factors = [float("alpha", alpha), float("beta", beta)];
        let turns = [flag("transA", trans_a), flag("transB", trans_b)];
        ex.emit("Gemm", factors.into_iter().chain(turns).collect())
    }),
    ("Conv", |ex| {
        if !matches!(ex.dtype(0), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            return Err(format!("of {} elements", ex.dtype(0)));
        }
        let Conv { window, groups } = ex.op()?;
        let mut attributes = attributes(window);
        attributes.push(size("group", *groups));
        ex.emit("Conv", attributes)
    }),
    ("ConvTranspose", |ex| {
        let ConvTranspose { window, groups, output_padding, output_shape } = ex.op()?;
        let mut attributes = attributes(window);
        attributes.push(size("group", *groups));
        let lists = [("output_padding", output_padding), ("output_shape", output_shape)];
        let given = lists.iter().filter(|(_, list)| !list.is_empty());
        attributes.extend(given.map(|(name, list)| sizes(name, list)));
        ex.emit("ConvTranspose", attributes)
    }),
];

/// Strides, dilations and pads.
pub(super) fn attributes(window: &Window) -> Vec<Attribute> {
    let mut attributes = Vec::new();
    if !window.strides.is_empty() {
        attributes.push(sizes("strides", &window.strides));
    }
    if !window.dilations.is_empty() {
        attributes.push(sizes("dilations", &window.dilations));
    }
    match &window.pads {
        Pads::Given(pads) if pads.is_empty() => {}
        Pads::Given(pads) => attributes.push(ints("pads", pads.iter().copied())),
        Pads::SameUpper => attributes.push(text("auto_pad", "SAME_UPPER")),
        Pads::SameLower => attributes.push(text("auto_pad", "SAME_LOWER")),
    }
    attributes
}
