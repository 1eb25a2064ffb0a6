//! Functions of one, two or three elements, casts and clips.

use kinglet_graph::ops::{
    Binary, BitCast, Cast, CastLike, Clip, Fun, Fun2, Identity, ScaleRound, Unary, Where,
};
use kinglet_graph::{Type, ValueId};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "Abs", |cx| cx.emit(Unary(Fun::Abs))),
    ("", "Neg", |cx| cx.emit(Unary(Fun::Neg))),
    ("", "Sign", |cx| cx.emit(Unary(Fun::Sign))),
    ("", "Ceil", |cx| cx.emit(Unary(Fun::Ceil))),
    ("", "Floor", |cx| cx.emit(Unary(Fun::Floor))),
    ("", "Round", |cx| cx.emit(Unary(Fun::Round))),
    ("", "Sqrt", |cx| cx.emit(Unary(Fun::Sqrt))),
    ("", "Reciprocal", |cx| cx.emit(Unary(Fun::Reciprocal))),
    ("", "Exp", |cx| cx.emit(Unary(Fun::Exp))),
    ("", "Log", |cx| cx.emit(Unary(Fun::Log))),
    ("", "Sin", |cx| cx.emit(Unary(Fun::Sin))),
    ("", "Cos", |cx| cx.emit(Unary(Fun::Cos))),
    ("", "Tan", |cx| cx.emit(Unary(Fun::Tan))),
    ("", "Asin", |cx| cx.emit(Unary(Fun::Asin))),
    ("", "Acos", |cx| cx.emit(Unary(Fun::Acos))),
    ("", "Atan", |cx| cx.emit(Unary(Fun::Atan))),
    ("", "Sinh", |cx| cx.emit(Unary(Fun::Sinh))),
    ("", "Cosh", |cx| cx.emit(Unary(Fun::Cosh))),
    ("", "Tanh", |cx| cx.emit(Unary(Fun::Tanh))),
    ("", "Asinh", |cx| cx.emit(Unary(Fun::Asinh))),
    ("", "Acosh", |cx| cx.emit(Unary(Fun::Acosh))),
    ("", "Atanh", |cx| cx.emit(Unary(Fun::Atanh))),
    ("", "Erf", |cx| cx.emit(Unary(Fun::Erf))),
    ("", "Not", |cx| cx.emit(Unary(Fun::Not))),
    ("", "BitwiseNot", |cx| cx.emit(Unary(Fun::BitwiseNot))),
    ("", "IsNaN", |cx| cx.emit(Unary(Fun::IsNan))),
    ("", "IsInf", |cx| {
        let (negative, positive) = (cx.flag("detect_negative", true), cx.flag("detect_positive", true));
        cx.emit(Unary(Fun::IsInf { negative, positive }))
    }),
    ("", "Relu", |cx| cx.emit(Unary(Fun::Relu))),
    ("", "Sigmoid", |cx| cx.emit(Unary(Fun::Sigmoid))),
    ("", "Softplus", |cx| cx.emit(Unary(Fun::Softplus))),
    ("", "Softsign", |cx| cx.emit(Unary(Fun::Softsign))),
    ("", "Mish", |cx| cx.emit(Unary(Fun::Mish))),
    ("", "HardSwish", |cx| cx.emit(Unary(Fun::HardSwish))),
    ("", "Swish", |cx| cx.emit(Unary(Fun::Swish(cx.float("alpha", 1.0))))),
    ("", "LeakyRelu", |cx| cx.emit(Unary(Fun::LeakyRelu(cx.float("alpha", 0.01))))),
    ("", "Elu", |cx| cx.emit(Unary(Fun::Elu(cx.float("alpha", 1.0))))),
    ("", "Celu", |cx| cx.emit(Unary(Fun::Celu(cx.float("alpha", 1.0))))),
    ("", "Selu", selu),
    ("", "HardSigmoid", |cx| {
        cx.emit(Unary(Fun::HardSigmoid { alpha: cx.float("alpha", 0.2), beta: cx.float("beta", 0.5) }))
    }),
    ("", "ThresholdedRelu", |cx| cx.emit(Unary(Fun::ThresholdedRelu(cx.float("alpha", 1.0))))),
    ("", "Shrink", |cx| {
        cx.emit(Unary(Fun::Shrink { lambda: cx.float("lambd", 0.5), bias: cx.float("bias", 0.0) }))
    }),
    ("", "SwiGLU", |cx| {
        let (gate, x) = (cx.input(0), cx.input(1));
        let gate = cx.temp(Unary(Fun::Swish(cx.float("alpha", 1.0))), &[gate])?;
        cx.emit_with(Binary(Fun2::Mul), &[gate, x])
    }),
    ("", "Gelu", |cx| cx.emit(Unary(Fun::Gelu { tanh: cx.attrs.text("approximate") == Some("tanh") }))),
    ("", "Add", |cx| binary(cx, Fun2::Add)),
    ("", "Sub", |cx| binary(cx, Fun2::Sub)),
    ("", "Mul", |cx| binary(cx, Fun2::Mul)),
    ("", "Div", |cx| binary(cx, Fun2::Div)),
    ("", "Pow", |cx| binary(cx, Fun2::Pow)),
    ("", "PRelu", prelu),
    ("", "Mod", |cx| cx.emit(Binary(if cx.flag("fmod", false) { Fun2::Fmod } else { Fun2::Mod }))),
    ("", "And", |cx| binary(cx, Fun2::And)),
    ("", "Or", |cx| binary(cx, Fun2::Or)),
    ("", "Xor", |cx| binary(cx, Fun2::Xor)),
    ("", "BitwiseAnd", |cx| cx.emit(Binary(Fun2::BitAnd))),
    ("", "BitwiseOr", |cx| cx.emit(Binary(Fun2::BitOr))),
    ("", "BitwiseXor", |cx| cx.emit(Binary(Fun2::BitXor))),
    ("", "BitShift", |cx| {
        let left = cx.attrs.text("direction") == Some("LEFT");
        cx.emit(Binary(if left { Fun2::ShiftLeft } else { Fun2::ShiftRight }))
    }),
    ("", "Equal", |cx| binary(cx, Fun2::Equal)),
    ("", "Less", |cx| binary(cx, Fun2::Less)),
    ("", "LessOrEqual", |cx| cx.emit(Binary(Fun2::LessOrEqual))),
    ("", "Greater", |cx| binary(cx, Fun2::Greater)),
    ("", "GreaterOrEqual", |cx| cx.emit(Binary(Fun2::GreaterOrEqual))),
    ("", "Min", |cx| chain(cx, Fun2::Min)),
    ("", "Max", |cx| chain(cx, Fun2::Max)),
    ("", "Sum", |cx| chain(cx, Fun2::Add)),
    ("", "Mean", mean),
    ("", "Where", |cx| cx.emit(Where)),
    ("", "Clip", clip),
    ("", "Cast", |cx| {
        let to = cast_type(cx)?;
        cast(cx, to)
    }),
    ("", "CastLike", |cx| {
        let (saturate, round) = rounding(cx);
        cx.emit(CastLike { saturate, round })
    }),
    ("", "BitCast", |cx| {
        let to = cast_type(cx)?;
        cx.emit(BitCast { to })
    }),
];

fn selu(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (alpha, gamma) = if cx.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    cx.emit(Unary(Fun::Selu { alpha: cx.float("alpha", alpha), gamma: cx.float("gamma", gamma) }))
}

/// Before version 7, the second operand may be aligned at an axis of the first.
fn binary(cx: &mut Cx<'_, '_>, fun: Fun2) -> Result<(), OnnxError> {
    let (a, b) = (cx.input(0), cx.input(1));
    let (Some(along), Type::Tensor(x), Type::Tensor(y)) = (cx.attrs.int("axis"), cx.ty(0), cx.ty(1)) else {
        return cx.emit(Binary(fun));
    };
    let along = kinglet_graph::axis(along, x.rank()).map_err(|e| cx.fail(e))?;
    let behind = x.rank().saturating_sub(along + y.rank());
    if cx.opset >= 7 || behind == 0 {
        return cx.emit(Binary(fun));
    }
    let axes: Vec<i64> = (y.rank() as i64..(y.rank() + behind) as i64).collect();
    let axes = cx.ints(&axes)?;
    let b = cx.temp(kinglet_graph::ops::Unsqueeze, &[b, axes])?;
    cx.emit_with(Binary(fun), &[a, b])
}

/// A slope for each channel, as old exporters write it, is aligned at the channels.
fn prelu(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, slope) = (cx.input(0), cx.input(1));
    let (Type::Tensor(data), Type::Tensor(list)) = (cx.ty(0), cx.ty(1)) else {
        return cx.emit(Binary(Fun2::PRelu));
    };
    let channels = list.rank() == 1 && data.rank() > 2 && list.shape[0].fixed().is_some_and(|n| n > 1);
    if !channels || data.shape[1] != list.shape[0] || data.shape.last() == list.shape.first() {
        return cx.emit(Binary(Fun2::PRelu));
    }
    let axes: Vec<i64> = (1..data.rank() as i64 - 1).collect();
    let axes = cx.ints(&axes)?;
    let slope = cx.temp(kinglet_graph::ops::Unsqueeze, &[slope, axes])?;
    cx.emit_with(Binary(Fun2::PRelu), &[x, slope])
}

/// A function of any number of inputs, from left to right.
fn chain(cx: &mut Cx<'_, '_>, fun: Fun2) -> Result<(), OnnxError> {
    let (first, last) = folded(cx, fun)?;
    match last {
        None => cx.emit_with(Identity, &[first]),
        Some(last) => cx.emit_with(Binary(fun), &[first, last]),
    }
}

/// All inputs but the last folded into one, and the last, when there are several.
fn folded(cx: &mut Cx<'_, '_>, fun: Fun2) -> Result<(ValueId, Option<ValueId>), OnnxError> {
    let inputs = cx.inputs().to_vec();
    let (Some(&first), rest) = (inputs.first(), inputs.get(1..).unwrap_or(&[])) else {
        return Err(cx.fail("needs an input"));
    };
    let Some((last, middle)) = rest.split_last() else { return Ok((first, None)) };
    let mut sum = first;
    for next in middle {
        sum = cx.temp(Binary(fun), &[sum, *next])?;
    }
    Ok((sum, Some(*last)))
}

fn mean(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let count = cx.inputs().len();
    let (first, last) = folded(cx, Fun2::Add)?;
    let sum = match last {
        None => first,
        Some(last) => cx.temp(Binary(Fun2::Add), &[first, last])?,
    };
    let dtype = cx.builder().dtype(sum).unwrap_or(DType::F32);
    let count = cx.scalar(dtype, count as f64)?;
    cx.emit_with(Binary(Fun2::Div), &[sum, count])
}

/// Bounds are attributes before version 11.
fn clip(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    if cx.opset >= 11 {
        return cx.emit(Clip);
    }
    let x = cx.input(0);
    let dtype = cx.builder().dtype(x).unwrap_or(DType::F32);
    let bound = |cx: &mut Cx<'_, '_>, name: &str| match cx.attrs.float(name) {
        Some(value) => cx.scalar(dtype, value.into()),
        None => Ok(cx.builder().absent()),
    };
    let (low, high) = (bound(cx, "min")?, bound(cx, "max")?);
    cx.emit_with(Clip, &[x, low, high])
}

/// The type in `to`: a number, or a name before version 6.
fn cast_type(cx: &mut Cx<'_, '_>) -> Result<DType, OnnxError> {
    let number = cx.attrs.int("to").and_then(|n| dtype_of(i32::try_from(n).ok()?));
    let named = cx.attrs.text("to").and_then(|name| match name {
        "FLOAT" => Some(DType::F32),
        "DOUBLE" => Some(DType::F64),
        "FLOAT16" => Some(DType::F16),
        "INT64" => Some(DType::I64),
        "INT32" => Some(DType::I32),
        "BOOL" => Some(DType::Bool),
        _ => None,
    });
    number.or(named).ok_or_else(|| cx.fail("attribute `to` names no type that can be read"))
}

fn cast(cx: &mut Cx<'_, '_>, to: DType) -> Result<(), OnnxError> {
    let (saturate, round) = rounding(cx);
    let x = cx.input(0);
    cx.emit_with(Cast { to, saturate, round }, &[x])
}

fn rounding(cx: &Cx<'_, '_>) -> (bool, ScaleRound) {
    let round = match cx.attrs.text("round_mode") {
        Some("down") => ScaleRound::Down,
        Some("nearest") => ScaleRound::Nearest,
        _ => ScaleRound::Up,
    };
    (cx.flag("saturate", true), round)
}
