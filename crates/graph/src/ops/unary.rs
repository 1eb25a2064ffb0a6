//! `Unary`: one function of each element.

use kinglet_tensor::DType;

use super::{Binary, Fun2, Op, Parts, Slot};
use crate::{Args, Type};

/// A function of one element, named as ONNX names it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the functions' own")]
pub enum Fun {
    Abs,
    Neg,
    Sign,
    Ceil,
    Floor,
    /// To the nearest integer, halves to even.
    Round,
    Sqrt,
    Reciprocal,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Erf,
    Not,
    BitwiseNot,
    IsNan,
    IsInf {
        negative: bool,
        positive: bool,
    },
    Relu,
    Sigmoid,
    Softplus,
    Softsign,
    Mish,
    HardSwish,
    /// `x * sigmoid(alpha x)`.
    Swish(f32),
    /// `x < 0 ? slope * x : x`.
    LeakyRelu(f32),
    /// `x < 0 ? alpha * (e^x - 1) : x`.
    Elu(f32),
    /// `max(0, x) + min(0, alpha * (e^(x / alpha) - 1))`.
    Celu(f32),
    /// `gamma * (x > 0 ? x : alpha * e^x - alpha)`.
    Selu {
        alpha: f32,
        gamma: f32,
    },
    /// `max(0, min(1, alpha * x + beta))`.
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// `x > alpha ? x : 0`.
    ThresholdedRelu(f32),
    /// `x < -lambda ? x + bias : x > lambda ? x - bias : 0`.
    Shrink {
        lambda: f32,
        bias: f32,
    },
    /// By the error function, or by its approximation with `tanh`.
    Gelu {
        tanh: bool,
    },
}

/// `y = fun(x)`; of the input's type, or truth values for tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unary(pub Fun);

impl Op for Unary {
    fn name(&self) -> &'static str {
        "Unary"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        let dtype = if matches!(self.0, Fun::IsNan | Fun::IsInf { .. }) { DType::Bool } else { x.dtype };
        Ok(vec![x.with(dtype).into()])
    }

    fn describe(&self) -> String {
        format!("{:?}", self.0)
    }

    /// Of the functions that exporters spell out, over F32.
    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        use Slot::{In, Out};
        args.optional(0).filter(|ty| ty.dtype == DType::F32)?;
        let mut parts = Parts::default();
        let x = In(0);
        let gate = match self.0 {
            Fun::Swish(alpha) => {
                let alpha = parts.float(alpha)?;
                let scaled = parts.temp(Binary(Fun2::Mul), &[x, alpha]);
                parts.temp(Self(Fun::Sigmoid), &[scaled])
            }
            Fun::HardSwish => parts.temp(Self(Fun::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }), &[x]),
            Fun::Mish => {
                let soft = parts.temp(Self(Fun::Softplus), &[x]);
                parts.temp(Self(Fun::Tanh), &[soft])
            }
            Fun::Gelu { tanh } => gelu_gate(&mut parts, tanh)?,
            _ => return None,
        };
        parts.node(Binary(Fun2::Mul), &[x, gate], &[Out(0)]);
        Some(parts)
    }
}

/// `(1 + erf(x / sqrt 2)) / 2`, or `(1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
fn gelu_gate(parts: &mut Parts, tanh: bool) -> Option<Slot> {
    let x = Slot::In(0);
    let (one, half) = (parts.float(1.0)?, parts.float(0.5)?);
    let bent = if tanh {
        let (three, cubic, root) = (parts.float(3.0)?, parts.float(0.044_715)?, parts.float(0.797_884_6)?);
        let cube = parts.temp(Binary(Fun2::Pow), &[x, three]);
        let term = parts.temp(Binary(Fun2::Mul), &[cube, cubic]);
        let sum = parts.temp(Binary(Fun2::Add), &[x, term]);
        let scaled = parts.temp(Binary(Fun2::Mul), &[sum, root]);
        parts.temp(Unary(Fun::Tanh), &[scaled])
    } else {
        let root = parts.float(std::f32::consts::SQRT_2)?;
        let scaled = parts.temp(Binary(Fun2::Div), &[x, root]);
        parts.temp(Unary(Fun::Erf), &[scaled])
    };
    let gate = parts.temp(Binary(Fun2::Add), &[bent, one]);
    Some(parts.temp(Binary(Fun2::Mul), &[gate, half]))
}
