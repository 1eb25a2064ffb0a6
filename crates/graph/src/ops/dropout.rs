//! `Dropout`: the input, and which elements were kept. Inputs: `x`, optional ratio, optional training flag.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Type};

/// Outside of training every element is kept. In training each is dropped with the ratio's probability and the others grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// Start of the random sequence.
    pub seed: Option<i64>,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        Ok(vec![x.clone().into(), x.with(DType::Bool).into()])
    }

    fn pure(&self) -> bool {
        false
    }
}
