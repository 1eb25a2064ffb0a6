//! RMS normalisation (Zhang & Sennrich 2019, <https://arxiv.org/abs/1910.07467>), alone and with the residual before it.

use super::{Add, Op, Parts, Slot, cols};
use crate::{Args, TensorType, Type};

/// `y = x / sqrt(mean(x^2) + eps) * w`, over each group of `w.len()` columns. Inputs: `x` f32 `[T, C]`, `w` `[G]`, `G`
/// divides `C` (a head's length for query/key norms, all columns otherwise).
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "RmsNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<2>()?;
        check_group(inputs[0], inputs[1])?;
        Ok(vec![inputs[0].clone().into()])
    }

    fn describe(&self) -> String {
        format!("eps {:e}", self.eps)
    }
}

/// `sum = a + b`, `y = RmsNorm(sum, w)`. Inputs: `a`, `b`, `w`; outputs: `sum`, `y`.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

impl Op for AddRmsNorm {
    fn name(&self) -> &'static str {
        "AddRmsNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<3>()?;
        if inputs[0] != inputs[1] {
            return Err("summands differ in type".into());
        }
        check_group(inputs[0], inputs[2])?;
        Ok(vec![inputs[0].clone().into(), inputs[0].clone().into()])
    }

    fn decompose(&self, _: &Args<'_>) -> Option<Parts> {
        use Slot::{In, Out};
        let mut parts = Parts::default();
        parts.node(Add, &[In(0), In(1)], &[Out(0)]);
        parts.node(RmsNorm { eps: self.eps }, &[Out(0), In(2)], &[Out(1)]);
        Some(parts)
    }

    fn describe(&self) -> String {
        format!("eps {:e}", self.eps)
    }
}

fn check_group(x: &TensorType, w: &TensorType) -> Result<(), String> {
    let (c, g) = (cols("x", x)?, cols("weight", w)?);
    if g > 0 && w.shape.len() == 1 && c.is_multiple_of(g) {
        return Ok(());
    }
    Err(format!("a weight of {g} does not divide rows of {c}"))
}
