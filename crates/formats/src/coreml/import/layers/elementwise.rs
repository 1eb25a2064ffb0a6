//! Layers on one element of each input.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Binary, Clip, Fun, Fun2, Unary};

use super::Entry;
use crate::coreml::import::network::Cx;
use crate::coreml::{CoreMlError, Fields, Weights};

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const LAYERS: &[Entry] = &[
    ("acos", |cx| unary(cx, Fun::Acos)),
    ("acosh", |cx| unary(cx, Fun::Acosh)),
    ("activation", activation),
    ("add", |cx| fold(cx, Fun2::Add)),
    ("addBroadcastable", |cx| fold(cx, Fun2::Add)),
    ("asin", |cx| unary(cx, Fun::Asin)),
    ("asinh", |cx| unary(cx, Fun::Asinh)),
    ("atan", |cx| unary(cx, Fun::Atan)),
    ("atanh", |cx| unary(cx, Fun::Atanh)),
    ("average", average),
    ("bias", bias),
    ("ceil", |cx| unary(cx, Fun::Ceil)),
    ("clip", clip),
    ("cos", |cx| unary(cx, Fun::Cos)),
    ("cosh", |cx| unary(cx, Fun::Cosh)),
    ("divideBroadcastable", |cx| fold(cx, Fun2::Div)),
    ("erf", |cx| unary(cx, Fun::Erf)),
    ("floor", |cx| unary(cx, Fun::Floor)),
    ("gelu", |cx| { let fun = match cx.params().int(1) { 0 => Fun::Gelu { tanh: false }, 1 => Fun::Gelu { tanh: true }, _ => Fun::Swish(1.702) }; unary(cx, fun) }),
    ("max", |cx| fold(cx, Fun2::Max)),
    ("maxBroadcastable", |cx| fold(cx, Fun2::Max)),
    ("min", |cx| fold(cx, Fun2::Min)),
    ("minBroadcastable", |cx| fold(cx, Fun2::Min)),
    ("multiply", |cx| fold(cx, Fun2::Mul)),
    ("multiplyBroadcastable", |cx| fold(cx, Fun2::Mul)),
    ("powBroadcastable", |cx| fold(cx, Fun2::Pow)),
    ("round", |cx| unary(cx, Fun::Round)),
    ("scale", scale),
    ("sign", |cx| unary(cx, Fun::Sign)),
    ("sin", |cx| unary(cx, Fun::Sin)),
    ("sinh", |cx| unary(cx, Fun::Sinh)),
    ("subtractBroadcastable", |cx| fold(cx, Fun2::Sub)),
    ("tan", |cx| unary(cx, Fun::Tan)),
    ("tanh", |cx| unary(cx, Fun::Tanh)),
    ("unary", function),
];

fn unary(cx: &mut Cx<'_>, fun: Fun) -> Done {
    let x = cx.input(0)?;
    cx.emit(Unary(fun), &[x])
}

/// All inputs one after another; one input goes with the number in field 1.
fn fold(cx: &mut Cx<'_>, fun: Fun2) -> Done {
    let mut inputs = cx.inputs()?;
    if inputs.len() == 1 {
        let alpha = cx.params().float(1);
        inputs.push(cx.scalar(alpha)?);
    }
    let [first, middle @ .., last] = &inputs[..] else { return Err(cx.fail("it has no inputs")) };
    let mut sum = *first;
    for next in middle {
        sum = cx.temp(Binary(fun), &[sum, *next])?;
    }
    cx.emit(Binary(fun), &[sum, *last])
}

fn average(cx: &mut Cx<'_>) -> Done {
    let inputs = cx.inputs()?;
    let mut sum = cx.input(0)?;
    for next in &inputs[1..] {
        sum = cx.temp(Binary(Fun2::Add), &[sum, *next])?;
    }
    let count = cx.scalar(inputs.len() as f32)?;
    cx.emit(Binary(Fun2::Div), &[sum, count])
}

fn clip(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let (low, high) = (cx.params().float(1), cx.params().float(2));
    let bounds = [cx.scalar(low)?, cx.scalar(high)?];
    cx.emit(Clip, &[x, bounds[0], bounds[1]])
}

/// `x * scale [+ bias]` with weights of the given shapes, `[C]` meaning channels.
fn scale(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let factor = channelwise(cx, 1, 2)?;
    if !cx.params().bool(3) {
        return cx.emit(Binary(Fun2::Mul), &[x, factor]);
    }
    let bias = channelwise(cx, 4, 5)?;
    let scaled = cx.temp(Binary(Fun2::Mul), &[x, factor])?;
    cx.emit(Binary(Fun2::Add), &[scaled, bias])
}

fn bias(cx: &mut Cx<'_>) -> Done {
    let (x, bias) = (cx.picture(0)?, channelwise(cx, 1, 2)?);
    cx.emit(Binary(Fun2::Add), &[x, bias])
}

/// Weights in field `weights` whose shape is in field `shape`; a single dimension is that of the channels.
fn channelwise(cx: &mut Cx<'_>, shape: u32, weights: u32) -> Result<ValueId, CoreMlError> {
    let mut shape = cx.sizes(shape, &[1]);
    if let [channels] = shape[..] {
        shape = vec![channels, 1, 1];
    }
    cx.weights(weights, &shape)
}

/// A function by number: of `x * scale + shift`, or of `max(x, epsilon)` where it asks for one.
fn function(cx: &mut Cx<'_>) -> Done {
    let params = cx.params();
    let number = |tag: u32, default: f32| if params.has(tag) { params.float(tag) } else { default };
    let (kind, alpha) = (params.int(1), params.float(2));
    let (epsilon, shift, scale) = (number(3, 1e-6), number(4, 0.0), number(5, 1.0));
    let mut x = cx.input(0)?;
    for (fun, value) in [(Fun2::Mul, scale), (Fun2::Add, shift)] {
        let neutral = if fun == Fun2::Mul { 1.0 } else { 0.0 };
        if value != neutral {
            let value = cx.scalar(value)?;
            x = cx.temp(Binary(fun), &[x, value])?;
        }
    }
    match kind {
        0 => cx.emit(Unary(Fun::Sqrt), &[x]),
        1 | 2 => {
            let epsilon = cx.scalar(epsilon)?;
            let safe = cx.temp(Binary(Fun2::Add), &[x, epsilon])?;
            let base = if kind == 1 { cx.temp(Unary(Fun::Sqrt), &[safe])? } else { safe };
            cx.emit(Unary(Fun::Reciprocal), &[base])
        }
        3 => {
            let power = cx.scalar(alpha)?;
            cx.emit(Binary(Fun2::Pow), &[x, power])
        }
        4 => cx.emit(Unary(Fun::Exp), &[x]),
        5 => cx.emit(Unary(Fun::Log), &[x]),
        6 => cx.emit(Unary(Fun::Abs), &[x]),
        7 => {
            let least = cx.scalar(alpha)?;
            cx.emit(Clip, &[x, least])
        }
        other => Err(cx.fail(format!("function {other} does not exist"))),
    }
}

/// A nonlinearity by the field that is there.
fn activation(cx: &mut Cx<'_>) -> Done {
    const KINDS: [u32; 13] = [5, 10, 15, 20, 25, 30, 31, 40, 41, 50, 60, 70, 71];
    let kind = KINDS.into_iter().find(|tag| cx.params().has(*tag));
    let kind = kind.ok_or_else(|| cx.fail("it has no nonlinearity"))?;
    let fields = cx.params().message(kind)?.unwrap_or_default();
    let (alpha, beta) = (fields.float(1), fields.float(2));
    let fun = match kind {
        5 => return affine(cx, alpha, beta),
        10 => Fun::Relu,
        15 => Fun::LeakyRelu(alpha),
        20 => Fun::ThresholdedRelu(alpha),
        30 => Fun::Tanh,
        40 => Fun::Sigmoid,
        41 => Fun::HardSigmoid { alpha, beta },
        50 => Fun::Elu(alpha),
        60 => Fun::Softsign,
        70 => Fun::Softplus,
        25 => return prelu(cx, &fields),
        31 => return scaled_tanh(cx, alpha, beta),
        _ => return parametric_softplus(cx, &fields),
    };
    unary(cx, fun)
}

fn affine(cx: &mut Cx<'_>, alpha: f32, beta: f32) -> Done {
    let (x, alpha, beta) = (cx.input(0)?, cx.scalar(alpha)?, cx.scalar(beta)?);
    let scaled = cx.temp(Binary(Fun2::Mul), &[x, alpha])?;
    cx.emit(Binary(Fun2::Add), &[scaled, beta])
}

fn scaled_tanh(cx: &mut Cx<'_>, alpha: f32, beta: f32) -> Done {
    let (x, alpha, beta) = (cx.input(0)?, cx.scalar(alpha)?, cx.scalar(beta)?);
    let inner = cx.temp(Binary(Fun2::Mul), &[x, beta])?;
    let tanh = cx.temp(Unary(Fun::Tanh), &[inner])?;
    cx.emit(Binary(Fun2::Mul), &[tanh, alpha])
}

/// A slope for each channel, or one for all.
fn prelu(cx: &mut Cx<'_>, fields: &Fields) -> Done {
    let x = cx.picture(0)?;
    let slopes = by_channel(cx, fields, 1)?;
    cx.emit(Binary(Fun2::PRelu), &[x, slopes])
}

/// `alpha * ln(1 + e^(beta * x))` with numbers for each channel, or for all.
fn parametric_softplus(cx: &mut Cx<'_>, fields: &Fields) -> Done {
    let x = cx.picture(0)?;
    let (alpha, beta) = (by_channel(cx, fields, 1)?, by_channel(cx, fields, 2)?);
    let inner = cx.temp(Binary(Fun2::Mul), &[x, beta])?;
    let soft = cx.temp(Unary(Fun::Softplus), &[inner])?;
    cx.emit(Binary(Fun2::Mul), &[soft, alpha])
}

/// Weights of a nonlinearity, as many as there are, along the channels.
fn by_channel(cx: &mut Cx<'_>, fields: &Fields, tag: u32) -> Result<ValueId, CoreMlError> {
    let weights = fields.message(tag)?.map(|f| Weights::of(&cx.layer.name, &f)).transpose()?;
    let numbers = weights.and_then(|w| w.floats(w.len()));
    let numbers = numbers.ok_or_else(|| cx.fail(format!("its numbers {tag} are missing")))?;
    let name = format!("{}.numbers.{tag}", cx.layer.name);
    Ok(cx.making.floats(&name, &[numbers.len(), 1, 1], &numbers)?)
}
