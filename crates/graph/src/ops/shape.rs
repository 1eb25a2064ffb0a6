//! Values that follow from shapes: `Shape`, `Size`, `ConstantOfShape`, `Range`, `EyeLike`, `OneHot`.

use kinglet_tensor::{Bytes, DType, Tensor};

use super::Op;
use super::layout::dims_of;
use crate::{Args, Dim, TensorType, Type, axis};

/// The dimensions `start..end` of the input as I64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// First dimension; negative counts from the end.
    pub start: i64,
    /// Behind the last dimension; none: all.
    pub end: Option<i64>,
}

impl Shape {
    /// The dimensions that are told.
    pub fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let rank = rank as i64;
        let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
        let (start, end) = (place(self.start), place(self.end.unwrap_or(rank)));
        start..end.max(start)
    }
}

impl Op for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let n = self.range(args.tensor(0)?.rank()).len();
        Ok(vec![TensorType::fixed(DType::I64, &[n]).into()])
    }

    fn known(&self, args: &Args<'_>) -> Option<Vec<Tensor>> {
        let x = args.optional(0)?;
        let dims: Option<Vec<i64>> =
            x.shape[self.range(x.rank())].iter().map(|d| Some(d.fixed()? as i64)).collect();
        let dims = dims?;
        int_tensor(vec![dims.len()], &dims).map(|t| vec![t])
    }
}

/// An I64 tensor without a name.
pub fn int_tensor(shape: Vec<usize>, values: &[i64]) -> Option<Tensor> {
    let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
    Tensor::new("", DType::I64, shape, Bytes::from(bytes)).ok()
}

/// A scalar of F32.
pub fn float_scalar(x: f32) -> Option<Tensor> {
    Tensor::new("", DType::F32, vec![], Bytes::copy_from_slice(&x.to_le_bytes())).ok()
}

/// The number of elements as an I64 scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size;

impl Op for Size {
    fn name(&self) -> &'static str {
        "Size"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        args.tensor(0)?;
        Ok(vec![TensorType::fixed(DType::I64, &[]).into()])
    }

    fn known(&self, args: &Args<'_>) -> Option<Vec<Tensor>> {
        let n = args.optional(0)?.elements()?;
        int_tensor(Vec::new(), &[n as i64]).map(|t| vec![t])
    }
}

/// A tensor of the shape in input 0, filled with one value.
#[derive(Clone, Debug)]
pub struct ConstantOfShape {
    /// The value: one element.
    pub value: Tensor,
}

impl Op for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        args.tensor(0)?;
        let dtype = self.value.dtype();
        Ok(vec![match args.ints(0) {
            Some(list) => TensorType { dtype, shape: dims_of(&list)? }.into(),
            None => args.length(0).map_or(Type::Unknown, |rank| TensorType::of_rank(dtype, rank).into()),
        }])
    }
}

/// `start, start + step, ..` up to but without `limit`. Inputs: the three scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range;

impl Op for Range {
    fn name(&self) -> &'static str {
        "Range"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [start, _, _] = args.tensors::<3>()?;
        let ints = (args.int(0), args.int(1), args.int(2));
        let floats = (args.floats(0), args.floats(1), args.floats(2));
        let count = match (ints, floats) {
            ((Some(start), Some(limit), Some(step)), _) => {
                Some(range_len(start as f64, limit as f64, step as f64)?)
            }
            (_, (Some(start), Some(limit), Some(step))) => match (&start[..], &limit[..], &step[..]) {
                (&[start], &[limit], &[step]) => Some(range_len(start.into(), limit.into(), step.into())?),
                _ => return Err("takes scalars".into()),
            },
            _ => None,
        };
        let dim = count.map_or(Dim::Unknown, Dim::Fixed);
        Ok(vec![TensorType { dtype: start.dtype, shape: vec![dim] }.into()])
    }
}

/// How many elements a range has.
pub fn range_len(start: f64, limit: f64, step: f64) -> Result<usize, String> {
    let count = ((limit - start) / step).ceil();
    if step == 0.0 || !count.is_finite() || count > 1e12 {
        return Err(format!("no range goes from {start} to {limit} by {step}"));
    }
    Ok(count.max(0.0) as usize)
}

/// Ones on a diagonal of a matrix of the input's shape, zeroes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EyeLike {
    /// Type of the result; the input's when none.
    pub dtype: Option<DType>,
    /// Which diagonal: positive ones lie above the main one.
    pub k: i64,
}

impl Op for EyeLike {
    fn name(&self) -> &'static str {
        "EyeLike"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        if x.rank() != 2 {
            return Err("takes a matrix".into());
        }
        Ok(vec![x.with(self.dtype.unwrap_or(x.dtype)).into()])
    }
}

/// A new axis with the on-value at each index and the off-value elsewhere. Inputs: indices, depth, `[off, on]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneHot {
    /// Place of the new axis in the result.
    pub axis: i64,
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [indices, _, values] = args.tensors::<3>()?;
        let along = axis(self.axis, indices.rank() + 1)?;
        let whole = |x: &Vec<f32>| x.len() == 1 && x[0] >= 0.0;
        let depth = args.int(1).or_else(|| args.floats(1).filter(whole).map(|x| x[0] as i64));
        let mut shape = indices.shape.clone();
        shape.insert(
            along,
            match depth {
                Some(n) => Dim::Fixed(usize::try_from(n).map_err(|_| format!("a depth of {n}"))?),
                None => Dim::Unknown,
            },
        );
        Ok(vec![TensorType { dtype: values.dtype, shape }.into()])
    }
}
