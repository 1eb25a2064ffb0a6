//! Ops that put a tensor into another one: `CentreCropPad`, `Col2Im`, `MaxUnpool`, `TensorScatter`; and `Determinant`.

use super::Op;
use super::conv::Window;
use super::layout::dims_of;
use crate::{Args, Dim, TensorType, Type, axis};

/// `x` cut, or filled up with zeroes, around its middle to the sizes in input 1 along the axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CentreCropPad {
    /// Axes of the sizes; none: all in order.
    pub axes: Option<Vec<i64>>,
}

impl CentreCropPad {
    /// The shape of the result.
    pub fn shape<D: Copy>(&self, shape: &[D], sizes: &[D]) -> Result<Vec<D>, String> {
        let all: Vec<i64> = (0..shape.len() as i64).collect();
        let axes = self.axes.as_ref().unwrap_or(&all);
        if axes.len() != sizes.len() {
            return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
        }
        let mut made = shape.to_vec();
        for (along, size) in axes.iter().zip(sizes) {
            made[axis(*along, shape.len())?] = *size;
        }
        Ok(made)
    }
}

impl Op for CentreCropPad {
    fn name(&self) -> &'static str {
        "CentreCropPad"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, _] = args.tensors::<2>()?;
        let Some(sizes) = args.ints(1) else {
            return Ok(vec![TensorType::of_rank(x.dtype, x.rank()).into()]);
        };
        let shape = self.shape(&x.shape, &dims_of(&sizes)?)?;
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// The sum of columns, each put back where a window of an image lies.
///
/// Inputs: columns `[N, C * block, windows]`, the size of the image, the size of a window. Output: `[N, C, image..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Col2Im {
    /// Where windows lie.
    pub window: Window,
}

impl Op for Col2Im {
    fn name(&self) -> &'static str {
        "Col2Im"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.window.check()?;
        let [x, _, _] = args.tensors::<3>()?;
        if x.rank() != 3 {
            return Err(format!("takes columns [N, C * block, windows], got {x:?}"));
        }
        let (Some(image), Some(block)) = (args.ints(1), args.ints(2)) else {
            let rank = args.length(1).map(|n| TensorType::of_rank(x.dtype, n + 2).into());
            return Ok(vec![rank.unwrap_or(Type::Unknown)]);
        };
        let area = dims_of(&block)?.iter().try_fold(1usize, |n, d| n.checked_mul(d.fixed()?));
        let area = area.filter(|n| *n > 0).ok_or_else(|| format!("windows of {block:?}"))?;
        let mut shape = vec![x.shape[0], x.shape[1].map(|n| n / area)];
        shape.extend(dims_of(&image)?);
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// Zeroes but for the elements of `x` at the places that a pooling took them from.
///
/// Inputs: `x` `[N, C, spatial..]`, places in the flattened result, optionally a larger shape of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxUnpool {
    /// Size of a window, one entry a spatial dimension.
    pub kernel: Vec<usize>,
    /// Where windows lay.
    pub window: Window,
}

impl MaxUnpool {
    /// The shape that the pooling read.
    pub fn shape(&self, x: &[usize]) -> Result<Vec<usize>, String> {
        let super::Pads::Given(pads) = &self.window.pads else { return Err("takes explicit pads".into()) };
        let rank = self.kernel.len();
        if x.len() != rank + 2 {
            return Err(format!("a kernel of {rank} dimensions for {x:?}"));
        }
        let mut shape = x[..2].to_vec();
        for (i, (n, kernel)) in x[2..].iter().zip(&self.kernel).enumerate() {
            let pad = |i: usize| pads.get(i).copied().unwrap_or(0);
            let steps = (n.saturating_sub(1) as i64).saturating_mul(self.window.stride(i) as i64);
            let covered = steps.saturating_add(*kernel as i64);
            let size = covered.saturating_sub(pad(i)).saturating_sub(pad(i + rank));
            shape.push(usize::try_from(size).map_err(|_| "the padding is larger than the result")?);
        }
        Ok(shape)
    }
}

impl Op for MaxUnpool {
    fn name(&self) -> &'static str {
        "MaxUnpool"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.window.check()?;
        let x = args.tensor(0)?;
        let shape = match (args.has(2), args.ints(2), x.dims()) {
            (true, Some(list), _) => dims_of(&list)?,
            (false, _, Some(dims)) => self.shape(&dims)?.into_iter().map(Dim::Fixed).collect(),
            _ => vec![Dim::Unknown; x.rank()],
        };
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// A cache with an update written behind its first elements.
///
/// Inputs: cache `[B, .., L, ..]`, update `[B, .., n, ..]`, optionally the first place of each batch entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorScatter {
    /// Axis of the places.
    pub axis: i64,
    /// Places behind the end continue at the start.
    pub circular: bool,
}

impl Op for TensorScatter {
    fn name(&self) -> &'static str {
        "TensorScatter"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (cache, update) = (args.tensor(0)?, args.tensor(1)?);
        if cache.rank() != update.rank() || axis(self.axis, cache.rank())? == 0 {
            return Err(format!("a cache {cache:?}, an update {update:?}, along axis {}", self.axis));
        }
        Ok(vec![cache.clone().into()])
    }
}

/// The determinant of each matrix in `[.., n, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Determinant;

impl Op for Determinant {
    fn name(&self) -> &'static str {
        "Determinant"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        let square = |x: &TensorType| x.rank() >= 2 && x.shape[x.rank() - 1] == x.shape[x.rank() - 2];
        if x.dims().is_some() && !square(x) || x.rank() < 2 {
            return Err(format!("takes square matrices, got {x:?}"));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: x.shape[..x.rank() - 2].to_vec() }.into()])
    }
}
