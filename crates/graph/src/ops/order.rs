//! Ops about the order and choice of elements: `TopK`, `Unique`, `NonZero`, `Compress`, `Cumulative`, `ReverseSequence`.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type, axis};

/// The `k` (input 1) largest or smallest elements along an axis, and their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    /// Along this axis.
    pub axis: i64,
    /// The largest, not the smallest.
    pub largest: bool,
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "TopK"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (x, along) = (args.tensor(0)?, axis(self.axis, args.tensor(0)?.rank())?);
        let mut values = x.clone();
        values.shape[along] = match (args.int(1), x.shape[along].fixed()) {
            (Some(k), Some(n)) => {
                Dim::Fixed(usize::try_from(k).ok().filter(|k| *k <= n).ok_or(format!("{k} of {n} elements"))?)
            }
            _ => Dim::Unknown,
        };
        let indices = values.with(DType::I64);
        Ok(vec![values.into(), indices.into()])
    }
}

/// The distinct elements, or slices along an axis. Outputs: values, index of the first occurrence of each, index of each
/// element among the values, count of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Slices along this axis count as elements; none: all elements.
    pub axis: Option<i64>,
    /// In ascending order, not in order of appearance.
    pub sorted: bool,
}

impl Op for Unique {
    fn name(&self) -> &'static str {
        "Unique"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let values = match self.axis {
            None => TensorType::of_rank(x.dtype, 1),
            Some(along) => {
                let mut ty = x.clone();
                ty.shape[axis(along, x.rank())?] = Dim::Unknown;
                ty
            }
        };
        let list = Type::from(TensorType::of_rank(DType::I64, 1));
        Ok(vec![values.into(), list.clone(), list.clone(), list])
    }
}

/// The indices of all elements that are not zero: `[rank, count]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonZero;

impl Op for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let rank = args.tensor(0)?.rank();
        Ok(vec![TensorType { dtype: DType::I64, shape: vec![Dim::Fixed(rank), Dim::Unknown] }.into()])
    }
}

/// The slices along an axis (or the elements) whose truth value in input 1 is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compress {
    /// Along this axis; none: all elements.
    pub axis: Option<i64>,
}

impl Op for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, _] = args.tensors::<2>()?;
        let Some(along) = self.axis else { return Ok(vec![TensorType::of_rank(x.dtype, 1).into()]) };
        let mut ty = x.clone();
        ty.shape[axis(along, x.rank())?] = Dim::Unknown;
        Ok(vec![ty.into()])
    }
}

/// Sums or products of all elements up to each, along the axis in input 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cumulative {
    /// Products, not sums.
    pub product: bool,
    /// Without the element itself.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
}

impl Op for Cumulative {
    fn name(&self) -> &'static str {
        "Cumulative"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![args.tensor(0)?.clone().into()])
    }
}

/// The first elements of each sequence, as many as input 1 says, reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseSequence {
    /// Axis of the batch: 0 or 1.
    pub batch_axis: usize,
    /// Axis of time: the other one.
    pub time_axis: usize,
}

impl Op for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, _] = args.tensors::<2>()?;
        if x.rank() < 2 || self.batch_axis > 1 || self.time_axis != 1 - self.batch_axis {
            return Err("takes batch and time as the first two dimensions".into());
        }
        Ok(vec![x.clone().into()])
    }
}
