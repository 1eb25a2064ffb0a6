//! Quantised operators: pairs around plain ops, which fusion turns into integer products.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Conv, Dequantize, DynamicQuantize, Fun2, MatMul, Quantize, Unsqueeze,
};
use kinglet_tensor::DType;

use super::Entry;
use super::linear::{groups, window};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

pub(super) const OPS: &[Entry] = &[
    ("", "QuantizeLinear", quantize),
    ("", "DequantizeLinear", dequantize),
    ("com.microsoft", "QuantizeLinear", quantize),
    ("com.microsoft", "DequantizeLinear", dequantize),
    ("", "DynamicQuantizeLinear", |cx| cx.emit(DynamicQuantize)),
    ("", "QLinearMatMul", qlinear_matmul),
    ("", "QLinearConv", qlinear_conv),
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
    let mut inputs = vec![x, w];
    if cx.has(8) {
        let (sx, sw, bias) = (cx.input(1), cx.input(4), cx.input(8));
        let unit = cx.temp(Binary(Fun2::Mul), &[sx, sw])?;
        let absent = cx.builder().absent();
        inputs.push(cx.temp(Dequantize { axis: 0, block: 0, to: None }, &[bias, unit, absent])?);
    }
    let y = cx.temp(Conv { window: window(cx)?, groups: groups(cx)? }, &inputs)?;
    let (scale, zero) = (cx.input(6), cx.input(7));
    cx.emit_with(Quantize { axis: 1, block: 0, to: DType::U8, saturate: true }, &[y, scale, zero])
}

/// Codes less their zero point, as I32; `behind` dimensions are added behind a zero point for each row.
fn centred(cx: &mut Cx<'_, '_>, i: usize, zero: usize, behind: Option<usize>) -> Result<ValueId, OnnxError> {
    let x = cx.input(i);
    let x = cx.temp(Cast::to(DType::I32), &[x])?;
    if !cx.has(zero) {
        return Ok(x);
    }
    let z = cx.input(zero);
    let rank = cx.builder().ty(z).tensor().map_or(0, |ty| ty.rank());
    let mut z = cx.temp(Cast::to(DType::I32), &[z])?;
    if let (Some(behind), 1) = (behind, rank) {
        let axes = cx.ints(&(1..=behind as i64).collect::<Vec<_>>())?;
        z = cx.temp(Unsqueeze, &[z, axes])?;
    }
    cx.temp(Binary(Fun2::Sub), &[x, z])
}

fn matmul_integer(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (a, b) = (centred(cx, 0, 2, Some(1))?, centred(cx, 1, 3, None)?);
    cx.emit_with(MatMul, &[a, b])
}

fn conv_integer(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let rank = cx.ty(1).tensor().map_or(4, |ty| ty.rank());
    let (x, w) = (centred(cx, 0, 2, None)?, centred(cx, 1, 3, Some(rank.saturating_sub(1)))?);
    cx.emit_with(Conv { window: window(cx)?, groups: groups(cx)? }, &[x, w])
}
