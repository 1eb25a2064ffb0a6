//! Elements picked by index, and put back by index: `Gather`, `GatherElements`, `GatherNd`, `ScatterElements`, `ScatterNd`.

use super::Op;
use crate::{Args, Dim, TensorType, Type, axis};

/// `y[.., i.., ..] = x[.., indices[i..], ..]` along an axis. Negative indices count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Along this axis of `x`.
    pub axis: i64,
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, indices] = args.tensors::<2>()?;
        let along = axis(self.axis, x.rank())?;
        let mut shape = x.shape[..along].to_vec();
        shape.extend(&indices.shape);
        shape.extend(&x.shape[along + 1..]);
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn describe(&self) -> String {
        format!("axis {}", self.axis)
    }
}

/// `y[i, j, ..] = x[.., indices[i, j, ..], ..]` along an axis; of the indices' shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// Along this axis.
    pub axis: i64,
}

impl Op for GatherElements {
    fn name(&self) -> &'static str {
        "GatherElements"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, indices] = args.tensors::<2>()?;
        axis(self.axis, x.rank())?;
        fitting(x, indices, self.axis)?;
        Ok(vec![indices.with(x.dtype).into()])
    }
}

/// `Ok` when indices have the rank of `x` and are nowhere larger but along the axis.
fn fitting(x: &TensorType, indices: &TensorType, along: i64) -> Result<(), String> {
    let along = axis(along, x.rank())?;
    let larger = |(i, (n, m)): (usize, (&Dim, &Dim))| {
        i != along && n.fixed().zip(m.fixed()).is_some_and(|(n, m)| m > n)
    };
    if indices.rank() != x.rank() || x.shape.iter().zip(&indices.shape).enumerate().any(larger) {
        return Err(format!("indices {:?} do not fit {:?}", indices.shape, x.shape));
    }
    Ok(())
}

/// `y[b.., i.., ..] = x[b.., indices[b.., i..], ..]`, where the innermost dimension of the indices is a place in `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading dimensions that both share.
    pub batch_dims: usize,
}

impl Op for GatherNd {
    fn name(&self) -> &'static str {
        "GatherNd"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, indices] = args.tensors::<2>()?;
        let (last, outer) = indices.shape.split_last().ok_or("indices need a dimension")?;
        let Some(depth) = last.fixed() else { return Ok(vec![Type::Unknown]) };
        let from = self.batch_dims.checked_add(depth).filter(|n| *n <= x.rank());
        let from =
            from.filter(|_| self.batch_dims < indices.rank()).ok_or("places are deeper than the data")?;
        let mut shape = outer.to_vec();
        shape.extend(&x.shape[from..]);
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// What an update does to the element that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ScatterKind {
    Replace,
    Add,
    Mul,
    Min,
    Max,
}

/// `x` with `x[.., indices[i, j, ..], ..]` updated by `updates[i, j, ..]`. Inputs: `x`, indices, updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterElements {
    /// Along this axis.
    pub axis: i64,
    /// What an update does.
    pub kind: ScatterKind,
}

impl Op for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, indices, updates] = args.tensors::<3>()?;
        fitting(x, indices, self.axis)?;
        if updates.rank() != indices.rank() || updates.dtype != x.dtype {
            return Err("takes one update for each index, of the type of x".into());
        }
        Ok(vec![x.clone().into()])
    }
}

/// `x` with the parts that the innermost dimension of the indices names updated. Inputs: `x`, indices, updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterNd {
    /// What an update does.
    pub kind: ScatterKind,
}

impl Op for ScatterNd {
    fn name(&self) -> &'static str {
        "ScatterNd"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, indices, updates] = args.tensors::<3>()?;
        let depth = indices.shape.last().ok_or("indices need a dimension")?;
        if depth.fixed().is_some_and(|n| n > x.rank()) || updates.dtype != x.dtype {
            return Err("places are deeper than the data, or updates are of another type".into());
        }
        Ok(vec![x.clone().into()])
    }
}
