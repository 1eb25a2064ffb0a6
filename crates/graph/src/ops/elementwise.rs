//! Elementwise ops over activations of one type.

use super::Op;
use crate::{Args, Type};

/// `y = a + b`, both of the same type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<2>()?;
        if inputs[0] != inputs[1] {
            return Err(format!("types differ: {:?} and {:?}", inputs[0], inputs[1]));
        }
        Ok(vec![inputs[0].clone().into()])
    }
}

/// `y = factor * x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The factor.
    pub factor: f32,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "Scale"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<1>()?;
        Ok(vec![inputs[0].clone().into()])
    }

    fn describe(&self) -> String {
        format!("factor {}", self.factor)
    }
}

/// `y = cap * tanh(x / cap)` (Gemma 2).
#[derive(Clone, Debug, PartialEq)]
pub struct Softcap {
    /// Bound on the magnitude of the result.
    pub cap: f32,
}

impl Op for Softcap {
    fn name(&self) -> &'static str {
        "Softcap"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<1>()?;
        Ok(vec![inputs[0].clone().into()])
    }

    fn describe(&self) -> String {
        format!("cap {}", self.cap)
    }
}
