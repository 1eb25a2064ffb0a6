//! `Glu`: gated activations (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

use super::Op;
use crate::{Args, Type};

/// The non-linearity on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `x * (1 + erf(x / sqrt(2))) / 2`.
    GeluErf,
}

/// `y = act(gate) * up`. Inputs: `gate`, `up`, both f32 `[T, ff]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glu {
    /// Applied to the gate.
    pub act: Activation,
}

impl Op for Glu {
    fn name(&self) -> &'static str {
        "Glu"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<2>()?;
        if inputs[0] != inputs[1] {
            return Err(format!("gate and up differ: {:?} and {:?}", inputs[0], inputs[1]));
        }
        Ok(vec![inputs[0].clone().into()])
    }

    fn describe(&self) -> String {
        format!("{:?}", self.act)
    }
}
