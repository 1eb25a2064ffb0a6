//! Quantised operators: pairs around plain ops, which fusion turns into integer products.

use std::sync::Arc;

use kinglet_graph::ops::{
    Binary, Conv, Dequantize, DynamicQuantize, Fun2, IntegerProduct, MatMul, Quantize, Transpose,
};
use kinglet_graph::{TensorType, ValueId};
use kinglet_tensor::DType;

use super::Entry;
use super::linear::{groups, window};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "QuantizeLinear", quantize),
    ("", "DequantizeLinear", dequantize),
    ("com.microsoft", "QuantizeLinear", quantize),
    ("com.microsoft", "DequantizeLinear", dequantize),
    ("", "DynamicQuantizeLinear", |cx| cx.emit(DynamicQuantize::default())),
    ("", "QLinearMatMul", qlinear_matmul),
    ("", "QLinearConv", qlinear_conv),
    ("com.microsoft", "QLinearConv", qlinear_conv),
    ("", "MatMulInteger", matmul_integer),
    ("", "ConvInteger", conv_integer),
];

fn block(cx: &Cx<'_, '_>) -> usize {
    usize::try_from(cx.int("block_size", 0)).unwrap_or(0)
}

fn quantize(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let to = cx.attrs.int("output_dtype").filter(|n| *n != 0).and_then(|n| dtype_of(n as i32));
    cx.emit(Quantize {
        axis: cx.int("axis", 1),
        block: block(cx),
        to: to.unwrap_or(DType::U8),
        saturate: cx.flag("saturate", true),
    })
}

fn dequantize(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let to = cx.attrs.int("output_dtype").filter(|n| *n != 0).and_then(|n| dtype_of(n as i32));
    cx.emit(Dequantize { axis: cx.int("axis", 1), block: block(cx), to })
}

/// The numbers of codes, with scale and zero point at the given inputs.
pub(super) fn numbers(cx: &mut Cx<'_, '_>, at: [usize; 3], axis: i64) -> Result<ValueId, OnnxError> {
    let inputs = at.map(|i| cx.input(i));
    cx.temp(Dequantize { axis, block: 0, to: None }, &inputs)
}

fn qlinear_matmul(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (a, b) = (numbers(cx, [0, 1, 2], -2)?, numbers(cx, [3, 4, 5], -1)?);
    let product = cx.temp(MatMul, &[a, b])?;
    let (scale, zero) = (cx.input(6), cx.input(7));
    cx.emit_with(Quantize { axis: -2, block: 0, to: DType::U8, saturate: true }, &[product, scale, zero])
}

/// The bias holds integers in units of both scales.
fn qlinear_conv(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, w) = (numbers(cx, [0, 1, 2], 1)?, numbers(cx, [3, 4, 5], 0)?);
    let x = channels_first(cx, x, false)?;
    let mut inputs = vec![x, w];
    if cx.has(8) {
        let (sx, sw, bias) = (cx.input(1), cx.input(4), cx.input(8));
        let unit = cx.temp(Binary(Fun2::Mul), &[sx, sw])?;
        let absent = cx.builder().absent();
        inputs.push(cx.temp(Dequantize { axis: 0, block: 0, to: None }, &[bias, unit, absent])?);
    }
    let y = cx.temp(Conv { window: window(cx)?, groups: groups(cx)? }, &inputs)?;
    let y = channels_last(cx, y, false)?;
    let (scale, zero) = (cx.input(6), cx.input(7));
    cx.emit_with(Quantize { axis: 1, block: 0, to: DType::U8, saturate: true }, &[y, scale, zero])
}

/// A picture with its channels in front of its rows, where the node has them behind; `last` when it does not say where.
pub(super) fn channels_first(cx: &mut Cx<'_, '_>, x: ValueId, last: bool) -> Result<ValueId, OnnxError> {
    moved(cx, x, last, |rank| [0, rank - 1].into_iter().chain(1..rank - 1).collect())
}

/// A picture with its channels where the node has them.
pub(super) fn channels_last(cx: &mut Cx<'_, '_>, x: ValueId, last: bool) -> Result<ValueId, OnnxError> {
    moved(cx, x, last, |rank| [0].into_iter().chain(2..rank).chain([1]).collect())
}

fn moved(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    last: bool,
    perm: impl Fn(usize) -> Vec<usize>,
) -> Result<ValueId, OnnxError> {
    if !cx.flag("channels_last", last) {
        return Ok(x);
    }
    let rank = cx.ty(0).tensor().map(TensorType::rank).filter(|rank| *rank > 2);
    let rank = rank.ok_or_else(|| cx.fail("channels stand last in a value of unknown rank"))?;
    cx.temp(Transpose { perm: perm(rank) }, &[x])
}

fn matmul_integer(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    cx.emit(IntegerProduct { op: Arc::new(MatMul) })
}

fn conv_integer(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    cx.emit(IntegerProduct { op: Arc::new(Conv { window: window(cx)?, groups: groups(cx)? }) })
}
