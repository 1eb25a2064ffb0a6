//! `Binary`: one function of two elements, with broadcasting.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, TensorType, Type, broadcast};

/// A function of two elements, named as ONNX names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the functions' own")]
pub enum Fun2 {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// The remainder with the sign of the divisor.
    Mod,
    /// The remainder with the sign of the dividend.
    Fmod,
    Min,
    Max,
    And,
    Or,
    Xor,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    /// `a < 0 ? b * a : a`.
    PRelu,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Fun2 {
    /// Whether it compares: the result is a truth value.
    pub fn compares(self) -> bool {
        use Fun2::*;
        matches!(self, Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
    }
}

/// `y = fun(a, b)`; of `a`'s type, or truth values for comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary(pub Fun2);

impl Op for Binary {
    fn name(&self) -> &'static str {
        "Binary"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [a, b] = args.tensors::<2>()?;
        if a.dtype != b.dtype && self.0 != Fun2::Pow {
            return Err(format!("element types differ: {} and {}", a.dtype, b.dtype));
        }
        let dtype = if self.0.compares() { DType::Bool } else { a.dtype };
        Ok(vec![TensorType { dtype, shape: broadcast(&a.shape, &b.shape)? }.into()])
    }

    fn describe(&self) -> String {
        format!("{:?}", self.0)
    }
}
