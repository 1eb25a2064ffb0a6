//! Fourier transforms and windows.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Cast, Dft, Fun, Fun2, MelWeights, Range, Stft, Unary};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "DFT", dft),
    ("", "STFT", |cx| cx.emit(Stft { onesided: cx.flag("onesided", true) })),
    ("", "MelWeightMatrix", |cx| {
        let number = i32::try_from(cx.int("output_datatype", 1)).ok();
        let dtype =
            number.and_then(dtype_of).ok_or_else(|| cx.fail("`output_datatype` is no element type"))?;
        cx.emit(MelWeights { dtype })
    }),
    ("", "HannWindow", |cx| cosines(cx, [0.5, -0.5, 0.0])),
    ("", "HammingWindow", |cx| cosines(cx, [25.0 / 46.0, -21.0 / 46.0, 0.0])),
    ("", "BlackmanWindow", |cx| cosines(cx, [0.42, -0.5, 0.08])),
];

/// The axis is an attribute before version 20.
fn dft(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, length) = (cx.input(0), cx.input(1));
    let axis = if cx.opset < 20 {
        let axis = cx.int("axis", 1);
        cx.scalar(DType::I64, axis as f64)?
    } else {
        cx.input(2)
    };
    cx.emit_with(
        Dft { inverse: cx.flag("inverse", false), onesided: cx.flag("onesided", false) },
        &[x, length, axis],
    )
}

/// `a + b cos(t) + c cos(2 t)` of `t` once around over the size, or over the size less one when it is not periodic.
fn cosines(cx: &mut Cx<'_, '_>, [a, b, c]: [f64; 3]) -> Result<(), OnnxError> {
    let to =
        dtype_of(cx.int("output_datatype", 1) as i32).ok_or_else(|| cx.fail("an unknown output_datatype"))?;
    let size = cx.input(0);
    let number = |cx: &mut Cx<'_, '_>, x: f64| cx.scalar(DType::F64, x);
    let (zero, one) = (number(cx, 0.0)?, number(cx, 1.0)?);
    let size = cx.temp(Cast::to(DType::F64), &[size])?;
    let steps = cx.temp(Range, &[zero, size, one])?;
    let around = if cx.flag("periodic", true) { size } else { cx.temp(Binary(Fun2::Sub), &[size, one])? };
    let turn = number(cx, 2.0 * std::f64::consts::PI)?;
    let angle = cx.temp(Binary(Fun2::Mul), &[steps, turn])?;
    let angle = cx.temp(Binary(Fun2::Div), &[angle, around])?;
    let term = |cx: &mut Cx<'_, '_>, angle: ValueId, factor: f64| {
        let cos = cx.temp(Unary(Fun::Cos), &[angle])?;
        let factor = cx.scalar(DType::F64, factor)?;
        cx.temp(Binary(Fun2::Mul), &[cos, factor])
    };
    let double = cx.temp(Binary(Fun2::Add), &[angle, angle])?;
    let (first, second, start) = (term(cx, angle, b)?, term(cx, double, c)?, number(cx, a)?);
    let sum = cx.temp(Binary(Fun2::Add), &[first, second])?;
    let sum = cx.temp(Binary(Fun2::Add), &[sum, start])?;
    cx.emit_with(Cast::to(to), &[sum])
}
