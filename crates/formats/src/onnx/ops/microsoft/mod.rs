//! Operators of the domain `com.microsoft` as ONNX Runtime defines them in its document of contrib operators: exporters and
//! ONNX Runtime's own optimiser write them. They become the ops that the standard operators become.

pub(in crate::onnx) mod attention;
pub(in crate::onnx) mod grouped;
pub(in crate::onnx) mod linear;
pub(in crate::onnx) mod norm;
mod packed;
pub(in crate::onnx) mod pictures;
pub(in crate::onnx) mod quantized;

use kinglet_graph::ops::{Binary, Cast, Fun, Fun2, GatherNd, Range, Reshape, Slice, Trilu, Unary, Unsqueeze};
use kinglet_graph::{TensorType, ValueId};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

/// The domain.
const MS: &str = "com.microsoft";

pub(in crate::onnx) const OPS: &[Entry] = &[
    (MS, "Gelu", |cx| cx.emit(Unary(Fun::Gelu { tanh: false }))),
    (MS, "QuickGelu", |cx| cx.emit(Unary(Fun::Swish(cx.float("alpha", 1.702))))),
    (MS, "BiasGelu", |cx| biased(cx, Fun::Gelu { tanh: false })),
    (MS, "FastGelu", |cx| biased(cx, Fun::Gelu { tanh: true })),
    (MS, "BiasAdd", |cx| {
        let sum = summed(cx, &[0, 1, 2])?;
        cx.pass(0, sum)
    }),
    (MS, "BiasSplitGelu", |cx| {
        let (sum, width) = (summed(cx, &[0, 1])?, width(cx, 0)?);
        let (x, gate) = (columns(cx, sum, 0, width / 2)?, columns(cx, sum, width / 2, width)?);
        let gate = cx.temp(Unary(Fun::Gelu { tanh: false }), &[gate])?;
        cx.emit_with(Binary(Fun2::Mul), &[x, gate])
    }),
    (MS, "Range", |cx| cx.emit(Range)),
    (MS, "GatherND", |cx| cx.emit(GatherNd { batch_dims: 0 })),
    (MS, "Trilu", |cx| cx.emit(Trilu { upper: cx.flag("upper", true) })),
    (MS, "ExpandDims", |cx| {
        let (x, axis) = (cx.input(0), cx.input(1));
        let one = cx.ints(&[1])?;
        let axes = cx.temp(Reshape { allow_zero: false }, &[axis, one])?;
        let axes = cx.temp(Cast::to(DType::I64), &[axes])?;
        cx.emit_with(Unsqueeze, &[x, axes])
    }),
];

/// A function of the sum of inputs 0 and 1, the latter optional.
fn biased(cx: &mut Cx<'_, '_>, fun: Fun) -> Result<(), OnnxError> {
    let sum = summed(cx, &[0, 1])?;
    cx.emit_with(Unary(fun), &[sum])
}

/// The sum of those of the listed inputs that are given.
fn summed(cx: &mut Cx<'_, '_>, inputs: &[usize]) -> Result<ValueId, OnnxError> {
    let mut sum = cx.input(inputs[0]);
    for i in &inputs[1..] {
        if cx.has(*i) {
            let next = cx.input(*i);
            sum = cx.temp(Binary(Fun2::Add), &[sum, next])?;
        }
    }
    Ok(sum)
}

/// The type of input `i`, which must be a tensor of known rank.
fn tensor(cx: &mut Cx<'_, '_>, i: usize) -> Result<TensorType, OnnxError> {
    let ty = cx.ty(i).tensor().cloned();
    ty.ok_or_else(|| cx.fail(format!("the rank of input {i} is not known")))
}

/// The last dimension of input `i`, which must be known.
fn width(cx: &mut Cx<'_, '_>, i: usize) -> Result<usize, OnnxError> {
    let last = tensor(cx, i)?.shape.last().and_then(|dim| dim.fixed());
    last.ok_or_else(|| cx.fail(format!("the width of input {i} is not known")))
}

/// An attribute that counts something.
fn count(cx: &Cx<'_, '_>, name: &str) -> Result<usize, OnnxError> {
    let n = cx.int(name, 0);
    usize::try_from(n)
        .ok()
        .filter(|n| (1..1 << 20).contains(n))
        .ok_or_else(|| cx.fail(format!("attribute `{name}` is {n}")))
}

/// `x[.., from..to]` along the last dimension.
fn columns(cx: &mut Cx<'_, '_>, x: ValueId, from: usize, to: usize) -> Result<ValueId, OnnxError> {
    let (from, to, last) = (cx.ints(&[from as i64])?, cx.ints(&[to as i64])?, cx.ints(&[-1])?);
    cx.temp(Slice, &[x, from, to, last])
}

/// Refuses attributes and inputs that change the result and are not supported.
fn refuse(
    cx: &mut Cx<'_, '_>,
    attributes: &[(&str, i64)],
    inputs: &[(usize, &str)],
) -> Result<(), OnnxError> {
    for (name, neutral) in attributes {
        let given = cx.int(name, *neutral);
        if given != *neutral {
            return Err(cx.fail(format!("attribute `{name}` of {given} is not supported")));
        }
    }
    for (i, name) in inputs {
        if cx.has(*i) {
            return Err(cx.fail(format!("input `{name}` is not supported")));
        }
    }
    Ok(())
}
