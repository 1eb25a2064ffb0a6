//! `Random`: numbers drawn from a distribution. Input: the shape. Two runs agree where a seed is given.

use kinglet_tensor::DType;

use super::Op;
use super::layout::dims_of;
use crate::{Args, TensorType, Type};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// From `low` up to but without `high`, all alike.
    Uniform {
        /// The least.
        low: f32,
        /// Above the greatest.
        high: f32,
    },
    /// The bell curve.
    Normal {
        /// Its middle.
        mean: f32,
        /// Its width: the standard deviation.
        deviation: f32,
    },
    /// `-ln(-ln u)` of even `u`: added to logarithms of weights, the largest is a choice by these weights.
    Gumbel,
}

/// Numbers of a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Random {
    /// What is drawn.
    pub from: Distribution,
    /// Start of the random sequence; without one, every run has its own.
    pub seed: Option<u64>,
    /// Type of the elements: floats.
    pub dtype: DType,
}

impl Op for Random {
    fn name(&self) -> &'static str {
        "Random"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        args.tensor(0)?;
        if !matches!(self.dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            return Err(format!("draws floats, not {:?}", self.dtype));
        }
        Ok(vec![match args.ints(0) {
            Some(list) => TensorType { dtype: self.dtype, shape: dims_of(&list)? }.into(),
            None => args.length(0).map_or(Type::Unknown, |rank| TensorType::of_rank(self.dtype, rank).into()),
        }])
    }

    fn pure(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("{:?}", self.from)
    }
}
