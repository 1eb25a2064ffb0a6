//! Functions of one, two or three elements, casts and clips.

use kinglet_graph::ops::{Binary, Cast, Fun, Fun2, Unary};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::write::node::{Arg, Ex};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[
    ("Unary", unary),
    ("Binary", binary),
    ("Where", |ex| {
        let (cond, a, b) = (ex.input(0)?, ex.input(1)?, ex.input(2)?);
        ex.emit("select", vec![("cond", cond.into()), ("a", a.into()), ("b", b.into())])
    }),
    ("Clip", clip),
    ("Cast", |ex| {
        let to = ex.op::<Cast>()?.to;
        let name = match crate::coreml::write::weights::computed(to, ex.writer.options.half)? {
            DType::Bool => "bool",
            DType::I32 => "int32",
            DType::F16 => "fp16",
            _ => "fp32",
        };
        let x = ex.input(0)?;
        ex.emit("cast", vec![("x", x.into()), ("dtype", Arg::Text(name))])
    }),
    ("Identity", |ex| of_x(ex, "identity")),
    ("Dropout", |ex| {
        // Outside of training it passes its input on.
        if ex.has(2) {
            return Err("which may train".into());
        }
        of_x(ex, "identity")
    }),
];

fn of_x(ex: &mut Ex<'_, '_>, kind: &str) -> Done {
    let x = ex.input(0)?;
    ex.emit(kind, vec![("x", x.into())])
}

fn with_alpha(ex: &mut Ex<'_, '_>, kind: &str, alpha: f32) -> Done {
    let x = ex.input(0)?;
    ex.emit(kind, vec![("x", x.into()), ("alpha", Arg::Float(alpha))])
}

fn unary(ex: &mut Ex<'_, '_>) -> Done {
    let Unary(fun) = *ex.op()?;
    match fun {
        Fun::LeakyRelu(alpha) => return with_alpha(ex, "leaky_relu", alpha),
        Fun::Elu(alpha) => return with_alpha(ex, "elu", alpha),
        Fun::ThresholdedRelu(alpha) => return with_alpha(ex, "thresholded_relu", alpha),
        Fun::Swish(alpha) if alpha != 1.0 => return swish(ex, alpha),
        Fun::HardSwish => return hard_swish(ex),
        Fun::Mish => return mish(ex),
        Fun::HardSigmoid { alpha, beta } => {
            let x = ex.input(0)?;
            let given = vec![("x", x.into()), ("alpha", Arg::Float(alpha)), ("beta", Arg::Float(beta))];
            return ex.emit("sigmoid_hard", given);
        }
        Fun::Gelu { tanh } => {
            let (x, mode) = (ex.input(0)?, if tanh { "TANH_APPROXIMATION" } else { "EXACT" });
            return ex.emit("gelu", vec![("x", x.into()), ("mode", Arg::Text(mode))]);
        }
        Fun::Log => {
            let x = ex.input(0)?;
            return ex.emit("log", vec![("x", x.into()), ("epsilon", Arg::Float(0.0))]);
        }
        Fun::Neg => {
            let x = ex.input(0)?;
            let minus = if ex.is_float(0) { Arg::Float(-1.0) } else { Arg::Int(-1) };
            return ex.emit("mul", vec![("x", x.into()), ("y", minus)]);
        }
        Fun::IsNan => {
            let x = ex.input(0)?;
            return ex.emit("not_equal", vec![("x", (&x).into()), ("y", (&x).into())]);
        }
        Fun::Reciprocal => {
            let x = ex.input(0)?;
            return ex.emit("real_div", vec![("x", Arg::Float(1.0)), ("y", x.into())]);
        }
        _ => {}
    }
    let kind = plain(fun).ok_or("which has no counterpart")?;
    of_x(ex, kind)
}

/// The operation that a function without parameters is.
fn plain(fun: Fun) -> Option<&'static str> {
    Some(match fun {
        Fun::Abs => "abs",
        Fun::Acos => "acos",
        Fun::Asin => "asin",
        Fun::Atan => "atan",
        Fun::Atanh => "atanh",
        Fun::Ceil => "ceil",
        Fun::Cos => "cos",
        Fun::Cosh => "cosh",
        Fun::Erf => "erf",
        Fun::Exp => "exp",
        Fun::Floor => "floor",
        Fun::Not => "logical_not",
        Fun::Relu => "relu",
        Fun::Round => "round",
        Fun::Sigmoid => "sigmoid",
        Fun::Sign => "sign",
        Fun::Sin => "sin",
        Fun::Sinh => "sinh",
        Fun::Softplus => "softplus",
        Fun::Softsign => "softsign",
        Fun::Sqrt => "sqrt",
        Fun::Swish(_) => "silu",
        Fun::Tan => "tan",
        Fun::Tanh => "tanh",
        _ => return None,
    })
}

/// `x * gate`.
fn gated(ex: &mut Ex<'_, '_>, gate: String) -> Done {
    let x = ex.input(0)?;
    ex.emit("mul", vec![("x", x.into()), ("y", gate.into())])
}

fn swish(ex: &mut Ex<'_, '_>, alpha: f32) -> Done {
    let (x, ty) = (ex.input(0)?, ex.made(0)?);
    let scaled = ex.temp("mul", vec![("x", x.into()), ("y", Arg::Float(alpha))], ty);
    let gate = ex.temp("sigmoid", vec![("x", scaled.into())], ty);
    gated(ex, gate)
}

fn hard_swish(ex: &mut Ex<'_, '_>) -> Done {
    let (x, ty) = (ex.input(0)?, ex.made(0)?);
    let given = vec![("x", x.into()), ("alpha", Arg::Float(1.0 / 6.0)), ("beta", Arg::Float(0.5))];
    let gate = ex.temp("sigmoid_hard", given, ty);
    gated(ex, gate)
}

fn mish(ex: &mut Ex<'_, '_>) -> Done {
    let (x, ty) = (ex.input(0)?, ex.made(0)?);
    let soft = ex.temp("softplus", vec![("x", x.into())], ty);
    let gate = ex.temp("tanh", vec![("x", soft.into())], ty);
    gated(ex, gate)
}

fn binary(ex: &mut Ex<'_, '_>) -> Done {
    let Binary(fun) = *ex.op()?;
    let float = ex.is_float(0);
    let kind = match fun {
        Fun2::Add => "add",
        Fun2::Sub => "sub",
        Fun2::Mul => "mul",
        Fun2::Div if float => "real_div",
        Fun2::Pow => "pow",
        Fun2::Mod => "mod",
        Fun2::Min => "minimum",
        Fun2::Max => "maximum",
        Fun2::And => "logical_and",
        Fun2::Or => "logical_or",
        Fun2::Xor => "logical_xor",
        Fun2::Equal => "equal",
        Fun2::Less => "less",
        Fun2::LessOrEqual => "less_equal",
        Fun2::Greater => "greater",
        Fun2::GreaterOrEqual => "greater_equal",
        Fun2::PRelu => return prelu(ex),
        Fun2::Div => return Err("of integers, which rounds towards zero".into()),
        _ => return Err("which has no counterpart".into()),
    };
    let (x, y) = (ex.input(0)?, ex.input(1)?);
    ex.emit(kind, vec![("x", x.into()), ("y", y.into())])
}

/// A slope for each channel, dimension 1 of `x`.
fn prelu(ex: &mut Ex<'_, '_>) -> Done {
    let slope = ex.weight(1)?;
    let channels = ex.dims(0)?.get(1).copied().ok_or("of a value without channels")?;
    let from = ex.ty(0)?.rank() - slope.shape().len();
    let fits = |(i, n): (usize, &usize)| *n == 1 || from + i == 1 && *n == channels;
    if slope.dtype() != DType::F32 || !slope.shape().iter().enumerate().all(fits) {
        return Err("whose slopes are not one a channel".into());
    }
    let data = match slope.elements() {
        1 => slope.data().repeat(channels).into(),
        _ => slope.data().clone(),
    };
    let (x, alpha) = (ex.input(0)?, ex.tensor("alpha", DType::F32, &[channels], data)?);
    ex.emit("prelu", vec![("x", x.into()), ("alpha", alpha.into())])
}

fn clip(ex: &mut Ex<'_, '_>) -> Done {
    let x = ex.input(0)?;
    let bound = |ex: &Ex<'_, '_>, i| if ex.has(i) { ex.float(i).map(Some) } else { Ok(None) };
    if !ex.is_float(0) {
        return Err("of integers".into());
    }
    match (bound(ex, 1)?, bound(ex, 2)?) {
        (Some(low), Some(high)) => {
            let given = vec![("x", x.into()), ("alpha", Arg::Float(low)), ("beta", Arg::Float(high))];
            ex.emit("clip", given)
        }
        (Some(low), None) => ex.emit("maximum", vec![("x", x.into()), ("y", Arg::Float(low))]),
        (None, Some(high)) => ex.emit("minimum", vec![("x", x.into()), ("y", Arg::Float(high))]),
        (None, None) => ex.emit("identity", vec![("x", x.into())]),
    }
}
