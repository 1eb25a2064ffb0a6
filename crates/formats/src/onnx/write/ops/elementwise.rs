//! Functions of one, two or three elements, casts and clips.

use kinglet_graph::ops::{Binary, BitCast, Cast, CastLike, Fun, Fun2, ScaleRound, Unary};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::proto::Attribute;
use crate::onnx::write::attribute::{flag, float, int, text};
use crate::onnx::write::node::Ex;
use crate::onnx::write::tensor::number_of;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Unary", unary),
    ("Binary", binary),
    ("Where", |ex| ex.emit("Where", vec![])),
    ("Clip", |ex| ex.emit("Clip", vec![])),
    ("Cast", |ex| {
        let Cast { to, saturate, round } = *ex.op()?;
        cast(ex, "Cast", Some(to), saturate, round)
    }),
    ("CastLike", |ex| {
        let CastLike { saturate, round } = *ex.op()?;
        cast(ex, "CastLike", None, saturate, round)
    }),
    ("BitCast", |ex| {
        ex.needs(26)?;
        let to = type_number(ex.op::<BitCast>()?.to)?;
        ex.emit("BitCast", vec![to])
    }),
];

fn type_number(to: DType) -> Result<Attribute, String> {
    number_of(to).map(|n| int("to", n.into())).ok_or_else(|| format!("whose result is {to}"))
}

fn cast(
    ex: &mut Ex<'_, '_>,
    name: &str,
    to: Option<DType>,
    saturate: bool,
    round: ScaleRound,
) -> Result<(), String> {
    let mut attributes = to.map(type_number).transpose()?.into_iter().collect::<Vec<_>>();
    if !saturate {
        ex.needs(19)?;
        attributes.push(flag("saturate", false));
    }
    if round != ScaleRound::Up {
        ex.needs(24)?;
        attributes.push(text("round_mode", if round == ScaleRound::Down { "down" } else { "nearest" }));
    }
    ex.emit(name, attributes)
}

fn unary(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Unary(fun) = *ex.op()?;
    match fun {
        Fun::Swish(alpha) => swish(ex, alpha),
        Fun::Gelu { tanh } if ex.allows(20) => {
            ex.emit("Gelu", vec![text("approximate", if tanh { "tanh" } else { "none" })])
        }
        Fun::Gelu { tanh } => gelu(ex, tanh),
        fun => {
            let (name, attributes) = function(fun);
            ex.emit(&name, attributes)
        }
    }
}

/// The operator that a function is, with its attributes. Functions are named as ONNX names them.
fn function(fun: Fun) -> (String, Vec<Attribute>) {
    let with = |name: &str, attributes: &[(&str, f32)]| {
        (name.to_owned(), attributes.iter().map(|(name, value)| float(name, *value)).collect())
    };
    match fun {
        Fun::IsNan => with("IsNaN", &[]),
        Fun::IsInf { negative, positive } => {
            let flags = vec![flag("detect_negative", negative), flag("detect_positive", positive)];
            ("IsInf".into(), flags)
        }
        Fun::LeakyRelu(alpha) => with("LeakyRelu", &[("alpha", alpha)]),
        Fun::Elu(alpha) => with("Elu", &[("alpha", alpha)]),
        Fun::Celu(alpha) => with("Celu", &[("alpha", alpha)]),
        Fun::ThresholdedRelu(alpha) => with("ThresholdedRelu", &[("alpha", alpha)]),
        Fun::Selu { alpha, gamma } => with("Selu", &[("alpha", alpha), ("gamma", gamma)]),
        Fun::HardSigmoid { alpha, beta } => with("HardSigmoid", &[("alpha", alpha), ("beta", beta)]),
        Fun::Shrink { lambda, bias } => with("Shrink", &[("lambd", lambda), ("bias", bias)]),
        plain => with(&format!("{plain:?}"), &[]),
    }
}

/// `x * sigmoid(alpha x)`.
fn swish(ex: &mut Ex<'_, '_>, alpha: f32) -> Result<(), String> {
    let x = ex.input(0);
    let scaled = if alpha == 1.0 {
        x.clone()
    } else {
        let alpha = ex.scalar(ex.dtype(0), alpha)?;
        ex.temp("Mul", &[&x, &alpha], vec![])
    };
    let gate = ex.temp("Sigmoid", &[&scaled], vec![]);
    ex.emit_with("Mul", &[x, gate], vec![])
}

/// `x / 2 * (1 + erf(x / sqrt 2))`, or with `tanh(sqrt(2 / pi) (x + 0.044715 x^3))` in the place of the error function.
fn gelu(ex: &mut Ex<'_, '_>, tanh: bool) -> Result<(), String> {
    let (x, dtype) = (ex.input(0), ex.dtype(0));
    let (half, one) = (ex.scalar(dtype, 0.5)?, ex.scalar(dtype, 1.0)?);
    let inner = if tanh {
        let (factor, cubic) =
            (ex.scalar(dtype, (2.0 / std::f32::consts::PI).sqrt())?, ex.scalar(dtype, 0.044_715)?);
        let square = ex.temp("Mul", &[&x, &x], vec![]);
        let cube = ex.temp("Mul", &[&square, &x], vec![]);
        let cube = ex.temp("Mul", &[&cube, &cubic], vec![]);
        let sum = ex.temp("Add", &[&x, &cube], vec![]);
        let scaled = ex.temp("Mul", &[&sum, &factor], vec![]);
        ex.temp("Tanh", &[&scaled], vec![])
    } else {
        let factor = ex.scalar(dtype, std::f32::consts::FRAC_1_SQRT_2)?;
        let scaled = ex.temp("Mul", &[&x, &factor], vec![]);
        ex.temp("Erf", &[&scaled], vec![])
    };
    let gate = ex.temp("Add", &[&inner, &one], vec![]);
    let product = ex.temp("Mul", &[&x, &gate], vec![]);
    ex.emit_with("Mul", &[product, half], vec![])
}

fn binary(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Binary(fun) = *ex.op()?;
    match fun {
        Fun2::Mod if float_type(ex.dtype(0)) => {
            Err("whose remainder of floats takes the divisor's sign".into())
        }
        Fun2::Fmod => ex.emit("Mod", vec![flag("fmod", true)]),
        Fun2::BitAnd => ex.emit("BitwiseAnd", vec![]),
        Fun2::BitOr => ex.emit("BitwiseOr", vec![]),
        Fun2::BitXor => ex.emit("BitwiseXor", vec![]),
        Fun2::ShiftLeft => ex.emit("BitShift", vec![text("direction", "LEFT")]),
        Fun2::ShiftRight => ex.emit("BitShift", vec![text("direction", "RIGHT")]),
        Fun2::PRelu => ex.emit("PRelu", vec![]),
        plain => ex.emit(&format!("{plain:?}"), vec![]),
    }
}

fn float_type(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}
