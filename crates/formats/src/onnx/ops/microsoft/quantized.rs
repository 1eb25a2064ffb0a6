//! Quantised operators of the domain: pairs of `Dequantize` and `Quantize` around the plain op.

use kinglet_graph::ops::{
    Binary, Cast, Concat, Dequantize, DynamicQuantize, Fun, Fun2, MatMul, Pool, PoolKind, Quantize, Reduce,
    ReduceKind, Softmax, SoftmaxKind, Transpose, Unary, Where, Window,
};
use kinglet_graph::{Op, ValueId};
use kinglet_tensor::DType;

use super::{Entry, MS};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::ops::linear::window;
use crate::onnx::ops::quantize::{channels_first, channels_last, numbers};

pub(in crate::onnx) const OPS: &[Entry] = &[
    (MS, "QLinearAdd", |cx| binary(cx, Fun2::Add)),
    (MS, "QLinearMul", |cx| binary(cx, Fun2::Mul)),
    (MS, "QLinearSigmoid", |cx| single(cx, Unary(Fun::Sigmoid))),
    (MS, "QLinearLeakyRelu", |cx| {
        let slope = cx.float("alpha", 0.01);
        single(cx, Unary(Fun::LeakyRelu(slope)))
    }),
    (MS, "QLinearGlobalAveragePool", |cx| {
        let kind = PoolKind::Average { count_pad: false };
        picture(cx, Pool { kind, kernel: Vec::new(), window: Window::default(), ceil: false })
    }),
    (MS, "QLinearAveragePool", average_pool),
    (MS, "QLinearSoftmax", |cx| {
        let flat = cx.int("opset", 13) < 13;
        let axis = cx.int("axis", if flat { 1 } else { -1 });
        single(cx, Softmax { kind: SoftmaxKind::Soft, axis, flat })
    }),
    (MS, "QLinearReduceMean", |cx| {
        let x = numbers(cx, [0, 1, 2], -1)?;
        let axes = match cx.attrs.ints("axes") {
            Some(axes) => cx.ints(axes)?,
            None => cx.builder().absent(),
        };
        let op = Reduce { kind: ReduceKind::Mean, keep_dims: cx.flag("keepdims", true), keep_all: false };
        let made = cx.temp(op, &[x, axes])?;
        codes(cx, made, [3, 4])
    }),
    (MS, "QLinearWhere", |cx| {
        let (x, y) = (numbers(cx, [1, 2, 3], -1)?, numbers(cx, [4, 5, 6], -1)?);
        let condition = cx.input(0);
        let made = cx.temp(Where, &[condition, x, y])?;
        codes(cx, made, [7, 8])
    }),
    (MS, "QLinearConcat", concat),
    (MS, "QGemm", gemm),
    (MS, "DynamicQuantizeMatMul", dynamic_matmul),
    (MS, "MatMulIntegerToFloat", matmul_to_float),
];

/// The node as the codes of `x`, with scale and zero point at the given inputs.
fn codes(cx: &mut Cx<'_, '_>, x: ValueId, at: [usize; 2]) -> Result<(), OnnxError> {
    let like = if cx.has(at[1]) { at[1] } else { 0 };
    let to = cx.ty(like).tensor().map_or(DType::U8, |ty| ty.dtype);
    let (scale, zero) = (cx.input(at[0]), cx.input(at[1]));
    cx.emit_with(Quantize { axis: -1, block: 0, to, saturate: true }, &[x, scale, zero])
}

fn binary(cx: &mut Cx<'_, '_>, fun: Fun2) -> Result<(), OnnxError> {
    let (a, b) = (numbers(cx, [0, 1, 2], -1)?, numbers(cx, [3, 4, 5], -1)?);
    let made = cx.temp(Binary(fun), &[a, b])?;
    codes(cx, made, [6, 7])
}

/// Inputs: codes, scale, zero point, and those of the result.
fn single(cx: &mut Cx<'_, '_>, op: impl Op) -> Result<(), OnnxError> {
    let x = numbers(cx, [0, 1, 2], -1)?;
    let made = cx.temp(op, &[x])?;
    codes(cx, made, [3, 4])
}

fn average_pool(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let kind = PoolKind::Average { count_pad: cx.flag("count_include_pad", false) };
    let (kernel, window, ceil) = (cx.sizes("kernel_shape")?, window(cx)?, cx.flag("ceil_mode", false));
    if kernel.is_empty() || kernel.contains(&0) {
        return Err(cx.fail(format!("a kernel of {kernel:?}")));
    }
    picture(cx, Pool { kind, kernel, window, ceil })
}

/// The same for pictures, whose channels may stand last.
fn picture(cx: &mut Cx<'_, '_>, op: impl Op) -> Result<(), OnnxError> {
    let x = numbers(cx, [0, 1, 2], -1)?;
    let x = channels_first(cx, x, false)?;
    let made = cx.temp(op, &[x])?;
    let made = channels_last(cx, made, false)?;
    codes(cx, made, [3, 4])
}

/// Inputs: scale and zero point of the result, then codes, scale and zero point of each part.
fn concat(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let count = cx.inputs().len();
    if count < 5 || count % 3 != 2 {
        return Err(
            cx.fail(format!("takes a scale, a zero point and parts of three inputs, got {count} inputs"))
        );
    }
    let parts = (2..count).step_by(3).map(|i| numbers(cx, [i, i + 1, i + 2], -1));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let made = cx.temp(Concat { axis: cx.int("axis", 0) }, &parts)?;
    codes(cx, made, [0, 1])
}

/// `alpha a b`, plus a bias of integers in units of `alpha`, a's scale and b's scale; floats without a scale of the result.
fn gemm(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let b_axis = if cx.flag("transB", false) { 0 } else { 1 };
    let (a, b) = (numbers(cx, [0, 1, 2], -1)?, numbers(cx, [3, 4, 5], b_axis)?);
    let mut turned = |x, name| {
        let turn = cx.flag(name, false);
        if turn { cx.temp(Transpose { perm: vec![1, 0] }, &[x]) } else { Ok(x) }
    };
    let (a, b) = (turned(a, "transA")?, turned(b, "transB")?);
    let mut made = cx.temp(MatMul, &[a, b])?;
    if cx.has(6) {
        let (bias, sa, sb) = (cx.input(6), cx.input(1), cx.input(4));
        let unit = cx.temp(Binary(Fun2::Mul), &[sa, sb])?;
        let bias = cx.temp(Cast::to(DType::F32), &[bias])?;
        let bias = cx.temp(Binary(Fun2::Mul), &[bias, unit])?;
        made = cx.temp(Binary(Fun2::Add), &[made, bias])?;
    }
    let alpha = cx.scalar(DType::F32, cx.float("alpha", 1.0).into())?;
    if !cx.has(7) {
        return cx.emit_with(Binary(Fun2::Mul), &[made, alpha]);
    }
    made = cx.temp(Binary(Fun2::Mul), &[made, alpha])?;
    codes(cx, made, [7, 8])
}

/// `a b + bias` for numbers `a`, which are rounded to 8 bits first, and codes `b`.
fn dynamic_matmul(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let a = cx.input(0);
    let quantised = cx.temps(DynamicQuantize::default(), &[a], 3)?;
    let a = cx.temp(Dequantize { axis: -1, block: 0, to: None }, &quantised)?;
    let b = numbers(cx, [1, 2, 3], -1)?;
    plus(cx, a, b, 4)
}

/// Inputs: codes `a` and `b`, their scales, their zero points, a bias.
fn matmul_to_float(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (a, b) = (numbers(cx, [0, 2, 4], -1)?, numbers(cx, [1, 3, 5], -1)?);
    plus(cx, a, b, 6)
}

/// The node as `a b`, plus input `bias` when it is given.
fn plus(cx: &mut Cx<'_, '_>, a: ValueId, b: ValueId, bias: usize) -> Result<(), OnnxError> {
    if !cx.has(bias) {
        return cx.emit_with(MatMul, &[a, b]);
    }
    let (made, bias) = (cx.temp(MatMul, &[a, b])?, cx.input(bias));
    cx.emit_with(Binary(Fun2::Add), &[made, bias])
}
