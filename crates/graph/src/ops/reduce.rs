//! `Reduce` and `ArgReduce`: dimensions folded into one value, or into the place of the extreme one.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type, axes, axis};

/// How elements are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the functions' own")]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    LogSum,
    LogSumExp,
    SumSquare,
}

/// Inputs: `x`, and optionally the axes; all of them when none are given, or none with `keep_all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// How.
    pub kind: ReduceKind,
    /// Whether folded dimensions stay as 1.
    pub keep_dims: bool,
    /// Without axes nothing is folded.
    pub keep_all: bool,
}

impl Reduce {
    /// The dimensions that are folded; none when only the data decides.
    pub fn axes(&self, args: &Args<'_>) -> Result<Option<Vec<usize>>, String> {
        let rank = args.tensor(0)?.rank();
        let given = if args.has(1) {
            match args.ints(1) {
                Some(list) => list,
                None => return Ok(None),
            }
        } else {
            Vec::new()
        };
        match (given.is_empty(), self.keep_all) {
            (true, true) => Ok(Some(Vec::new())),
            (true, false) => Ok(Some((0..rank).collect())),
            (false, _) => axes(&given, rank).map(Some),
        }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        "Reduce"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(folded) = self.axes(args)? else {
            return Ok(vec![match (self.keep_dims, args.length(1)) {
                (true, _) => TensorType::of_rank(x.dtype, x.rank()).into(),
                (false, Some(n)) if n > 0 => TensorType::of_rank(x.dtype, x.rank().saturating_sub(n)).into(),
                _ => Type::Unknown,
            }]);
        };
        Ok(vec![TensorType { dtype: x.dtype, shape: without(&x.shape, &folded, self.keep_dims) }.into()])
    }

    fn describe(&self) -> String {
        format!("{:?}", self.kind)
    }
}

/// The shape without these dimensions, or with 1 in their place.
fn without(shape: &[Dim], folded: &[usize], keep: bool) -> Vec<Dim> {
    let one = |(i, dim): (usize, &Dim)| match (folded.contains(&i), keep) {
        (true, true) => Some(Dim::Fixed(1)),
        (true, false) => None,
        (false, _) => Some(*dim),
    };
    shape.iter().enumerate().filter_map(one).collect()
}

/// The place of the largest or smallest element along an axis, as I64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgReduce {
    /// The largest, not the smallest.
    pub max: bool,
    /// Along this axis.
    pub axis: i64,
    /// Whether the axis stays as 1.
    pub keep_dims: bool,
    /// Of equal elements the last one counts.
    pub last: bool,
}

impl Op for ArgReduce {
    fn name(&self) -> &'static str {
        "ArgReduce"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let along = axis(self.axis, x.rank())?;
        let shape = without(&x.shape, &[along], self.keep_dims);
        Ok(vec![TensorType { dtype: DType::I64, shape }.into()])
    }
}
