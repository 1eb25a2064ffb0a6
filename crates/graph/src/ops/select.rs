//! `Where` and `Clip`: elements chosen by a condition or by bounds.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, TensorType, Type, broadcast};

/// `y = condition ? a : b`, with broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where;

impl Op for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [condition, a, b] = args.tensors::<3>()?;
        if condition.dtype != DType::Bool || a.dtype != b.dtype {
            return Err("takes truth values and two tensors of one type".into());
        }
        let shape = broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?;
        Ok(vec![TensorType { dtype: a.dtype, shape }.into()])
    }
}

/// `y = min(max(x, low), high)`. Inputs: `x`, and optionally the scalars `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip;

impl Op for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![args.tensor(0)?.clone().into()])
    }
}
