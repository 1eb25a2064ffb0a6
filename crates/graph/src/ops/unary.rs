//! `Unary`: one function of each element.

use kinglet_tensor::DType;

use super::Op;
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
}
