//! Operations on one element of each input.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Cast, Clip, Fun, Fun2, Identity, Unary, Where};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const OPS: &[Entry] = &[
    ("abs", |cx| unary(cx, Fun::Abs)),
    ("acos", |cx| unary(cx, Fun::Acos)),
    ("add", |cx| binary(cx, Fun2::Add)),
    ("asin", |cx| unary(cx, Fun::Asin)),
    ("atan", |cx| unary(cx, Fun::Atan)),
    ("atanh", |cx| unary(cx, Fun::Atanh)),
    ("cast", cast),
    ("ceil", |cx| unary(cx, Fun::Ceil)),
    ("clamped_relu", |cx| { let (a, b) = alpha_beta(cx); let x = leaky(cx, a)?; clip(cx, x, None, Some(b)) }),
    ("clip", |cx| { let (a, b) = alpha_beta(cx); let x = cx.input("x")?; clip(cx, x, Some(a), Some(b)) }),
    ("cos", |cx| unary(cx, Fun::Cos)),
    ("cosh", |cx| unary(cx, Fun::Cosh)),
    ("elu", |cx| { let alpha = cx.float("alpha", 1.0); unary(cx, Fun::Elu(alpha)) }),
    ("equal", |cx| binary(cx, Fun2::Equal)),
    ("erf", |cx| unary(cx, Fun::Erf)),
    ("exp", |cx| unary(cx, Fun::Exp)),
    ("exp2", |cx| { let two = cx.scalar(2.0)?; let x = cx.input("x")?; cx.emit(Binary(Fun2::Pow), &[two, x]) }),
    ("floor", |cx| unary(cx, Fun::Floor)),
    ("floor_div", floor_div),
    ("gelu", |cx| { let tanh = cx.text("mode").as_deref() == Some("TANH_APPROXIMATION"); gelu(cx, tanh) }),
    ("greater", |cx| binary(cx, Fun2::Greater)),
    ("greater_equal", |cx| binary(cx, Fun2::GreaterOrEqual)),
    ("identity", |cx| { let x = cx.input("x")?; cx.emit(Identity, &[x]) }),
    ("inverse", |cx| { let x = shifted(cx, 1e-4)?; cx.emit(Unary(Fun::Reciprocal), &[x]) }),
    ("leaky_relu", |cx| { let alpha = cx.float("alpha", 0.01); unary(cx, Fun::LeakyRelu(alpha)) }),
    ("less", |cx| binary(cx, Fun2::Less)),
    ("less_equal", |cx| binary(cx, Fun2::LessOrEqual)),
    ("linear_activation", |cx| { let (a, b) = alpha_beta(cx); affine(cx, a, b) }),
    ("log", |cx| { let x = shifted(cx, 1e-45)?; cx.emit(Unary(Fun::Log), &[x]) }),
    ("logical_and", |cx| binary(cx, Fun2::And)),
    ("logical_not", |cx| unary(cx, Fun::Not)),
    ("logical_or", |cx| binary(cx, Fun2::Or)),
    ("logical_xor", |cx| binary(cx, Fun2::Xor)),
    ("maximum", |cx| binary(cx, Fun2::Max)),
    ("minimum", |cx| binary(cx, Fun2::Min)),
    ("mod", |cx| binary(cx, Fun2::Mod)),
    ("mul", |cx| binary(cx, Fun2::Mul)),
    ("not_equal", |cx| { let (x, y) = pair(cx)?; let same = cx.temp(Binary(Fun2::Equal), &[x, y])?; cx.emit(Unary(Fun::Not), &[same]) }),
    ("pow", |cx| binary(cx, Fun2::Pow)),
    ("prelu", prelu),
    ("real_div", |cx| binary(cx, Fun2::Div)),
    ("relu", |cx| unary(cx, Fun::Relu)),
    ("relu6", |cx| { let x = cx.input("x")?; clip(cx, x, Some(0.0), Some(6.0)) }),
    ("round", |cx| unary(cx, Fun::Round)),
    ("rsqrt", |cx| { let x = shifted(cx, 1e-12)?; let root = cx.temp(Unary(Fun::Sqrt), &[x])?; cx.emit(Unary(Fun::Reciprocal), &[root]) }),
    ("scaled_tanh", scaled_tanh),
    ("select", |cx| { let (c, a, b) = (cx.input("cond")?, cx.input("a")?, cx.input("b")?); cx.emit(Where, &[c, a, b]) }),
    ("sigmoid", |cx| unary(cx, Fun::Sigmoid)),
    ("sigmoid_hard", |cx| { let alpha = cx.float("alpha", 0.2); let beta = cx.float("beta", 0.5); unary(cx, Fun::HardSigmoid { alpha, beta }) }),
    ("sign", |cx| unary(cx, Fun::Sign)),
    ("silu", |cx| unary(cx, Fun::Swish(1.0))),
    ("sin", |cx| unary(cx, Fun::Sin)),
    ("sinh", |cx| unary(cx, Fun::Sinh)),
    ("softplus", |cx| unary(cx, Fun::Softplus)),
    ("softplus_parametric", softplus_parametric),
    ("softsign", |cx| unary(cx, Fun::Softsign)),
    ("sqrt", |cx| unary(cx, Fun::Sqrt)),
    ("square", |cx| { let x = cx.input("x")?; cx.emit(Binary(Fun2::Mul), &[x, x]) }),
    ("sub", |cx| binary(cx, Fun2::Sub)),
    ("tan", |cx| unary(cx, Fun::Tan)),
    ("tanh", |cx| unary(cx, Fun::Tanh)),
    ("threshold", |cx| { let alpha = cx.float("alpha", 0.0); let x = cx.input("x")?; clip(cx, x, Some(alpha), None) }),
    ("thresholded_relu", |cx| { let alpha = cx.float("alpha", 1.0); unary(cx, Fun::ThresholdedRelu(alpha)) }),
];

fn unary(cx: &mut Cx<'_>, fun: Fun) -> Done {
    let x = cx.input("x")?;
    cx.emit(Unary(fun), &[x])
}

fn pair(cx: &mut Cx<'_>) -> Result<(ValueId, ValueId), CoreMlError> {
    Ok((cx.input("x")?, cx.input("y")?))
}

fn binary(cx: &mut Cx<'_>, fun: Fun2) -> Done {
    let (x, y) = pair(cx)?;
    cx.emit(Binary(fun), &[x, y])
}

/// Rounded down, of whole numbers too: what is left over has the sign of the divisor.
fn floor_div(cx: &mut Cx<'_>) -> Done {
    let (x, y) = pair(cx)?;
    if !cx.is_whole(x) {
        let quotient = cx.temp(Binary(Fun2::Div), &[x, y])?;
        return cx.emit(Unary(Fun::Floor), &[quotient]);
    }
    let rest = cx.temp(Binary(Fun2::Mod), &[x, y])?;
    let whole = cx.temp(Binary(Fun2::Sub), &[x, rest])?;
    cx.emit(Binary(Fun2::Div), &[whole, y])
}

fn alpha_beta(cx: &Cx<'_>) -> (f32, f32) {
    (cx.float("alpha", 1.0), cx.float("beta", 0.0))
}

/// `x + epsilon`; `x` alone where that changes nothing.
fn shifted(cx: &mut Cx<'_>, default: f32) -> Result<ValueId, CoreMlError> {
    let (x, epsilon) = (cx.input("x")?, cx.float("epsilon", default));
    if epsilon == 0.0 {
        return Ok(x);
    }
    let epsilon = cx.scalar(epsilon)?;
    cx.temp(Binary(Fun2::Add), &[x, epsilon])
}

fn leaky(cx: &mut Cx<'_>, alpha: f32) -> Result<ValueId, CoreMlError> {
    let x = cx.input("x")?;
    cx.temp(Unary(Fun::LeakyRelu(alpha)), &[x])
}

fn gelu(cx: &mut Cx<'_>, tanh: bool) -> Done {
    match cx.text("mode").as_deref() {
        // x * sigmoid(1.702 x)
        Some("SIGMOID_APPROXIMATION") => unary(cx, Fun::Swish(1.702)),
        _ => unary(cx, Fun::Gelu { tanh }),
    }
}

fn clip(cx: &mut Cx<'_>, x: ValueId, low: Option<f32>, high: Option<f32>) -> Done {
    let mut bounds = [cx.absent(); 2];
    for (bound, value) in bounds.iter_mut().zip([low, high]) {
        if let Some(value) = value {
            *bound = cx.scalar(value)?;
        }
    }
    cx.emit(Clip, &[x, bounds[0], bounds[1]])
}

/// `alpha * x + beta`.
fn affine(cx: &mut Cx<'_>, alpha: f32, beta: f32) -> Done {
    let (x, alpha, beta) = (cx.input("x")?, cx.scalar(alpha)?, cx.scalar(beta)?);
    let scaled = cx.temp(Binary(Fun2::Mul), &[x, alpha])?;
    cx.emit(Binary(Fun2::Add), &[scaled, beta])
}

/// `alpha * tanh(beta * x)`.
fn scaled_tanh(cx: &mut Cx<'_>) -> Done {
    let (a, b) = (cx.float("alpha", 1.0), cx.float("beta", 1.0));
    let (x, alpha, beta) = (cx.input("x")?, cx.scalar(a)?, cx.scalar(b)?);
    let inner = cx.temp(Binary(Fun2::Mul), &[x, beta])?;
    let tanh = cx.temp(Unary(Fun::Tanh), &[inner])?;
    cx.emit(Binary(Fun2::Mul), &[tanh, alpha])
}

/// A slope for each channel.
fn prelu(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let alpha = by_channel(cx, x, "alpha")?;
    cx.emit(Binary(Fun2::PRelu), &[x, alpha])
}

/// `alpha * ln(1 + e^(beta * x))`, with both by channel.
fn softplus_parametric(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let (alpha, beta) = (by_channel(cx, x, "alpha")?, by_channel(cx, x, "beta")?);
    let inner = cx.temp(Binary(Fun2::Mul), &[x, beta])?;
    let soft = cx.temp(Unary(Fun::Softplus), &[inner])?;
    cx.emit(Binary(Fun2::Mul), &[soft, alpha])
}

/// A parameter with a number for each channel, dimension 1 of `x`.
fn by_channel(cx: &mut Cx<'_>, x: ValueId, parameter: &str) -> Result<ValueId, CoreMlError> {
    let list = cx.input(parameter)?;
    let tail: Vec<i64> = (1..cx.rank(x)?.saturating_sub(1) as i64).collect();
    let axes = cx.constant_ints(&tail)?;
    cx.temp(kinglet_graph::ops::Unsqueeze, &[list, axes])
}

/// Half precision is computed in f32, so that only changes of kind are left of casts.
fn cast(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let to = match cx.text("dtype").as_deref() {
        Some("bool") => DType::Bool,
        Some("fp16" | "fp32" | "fp64") => DType::F32,
        Some(_) => DType::I32,
        None => return Err(cx.fail("`dtype` is missing")),
    };
    cx.emit(Cast::to(to), &[x])
}
