//! Ops that keep the elements in order and only change the shape: `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`, `Identity`.

use super::Op;
use crate::{Args, Dim, TensorType, Type, axes, axis};

/// Inputs: `x`, and the new shape as I64: -1 is what is left, 0 the dimension of `x` in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// 0 is a size, not a reference.
    pub allow_zero: bool,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(wanted) = args.ints(1) else {
            return Ok(vec![
                args.length(1).map_or(Type::Unknown, |rank| TensorType::of_rank(x.dtype, rank).into()),
            ]);
        };
        let mut shape = Vec::with_capacity(wanted.len());
        for (i, &n) in wanted.iter().enumerate() {
            shape.push(match n {
                0 if !self.allow_zero => *x.shape.get(i).ok_or("0 behind the last dimension")?,
                -1 => Dim::Unknown,
                n => Dim::Fixed(usize::try_from(n).map_err(|_| format!("a dimension of {n}"))?),
            });
        }
        fill_rest(&x.shape, &wanted, &mut shape)?;
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        same_shape(self, args)
    }
}

/// Input 0 when the op leaves its known shape as it is.
fn same_shape(op: &dyn Op, args: &Args<'_>) -> Option<usize> {
    let made = op.infer(args).ok()?;
    (made[0].known().is_some() && made.first() == Some(args.ty(0))).then_some(0)
}

/// Replaces the -1, if any, and checks that the element counts agree, as far as they are known.
fn fill_rest(from: &[Dim], wanted: &[i64], shape: &mut [Dim]) -> Result<(), String> {
    let rest = wanted.iter().position(|n| *n == -1);
    if wanted.iter().filter(|n| **n == -1).count() > 1 {
        return Err(format!("shape {wanted:?} leaves more than one dimension open"));
    }
    let times = |n: usize, d: &Dim| n.checked_mul(d.fixed()?);
    let total = from.iter().try_fold(1usize, times);
    let mut others = shape.iter().enumerate().filter(|(i, _)| Some(*i) != rest).map(|(_, d)| d);
    let given = others.try_fold(1usize, times);
    let (Some(total), Some(given)) = (total, given) else { return Ok(()) };
    match rest {
        Some(i) if given > 0 && total.is_multiple_of(given) => shape[i] = Dim::Fixed(total / given),
        Some(i) if given == 0 && total == 0 => shape[i] = Dim::Fixed(0),
        None if total == given => {}
        _ => return Err(format!("{total} elements cannot take shape {wanted:?}")),
    }
    Ok(())
}

/// `[product of dims before axis, product of the others]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten {
    /// First dimension of the second group.
    pub axis: i64,
}

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        let at = if self.axis == x.rank() as i64 { x.rank() } else { axis(self.axis, x.rank())? };
        let group = |dims: &[Dim]| {
            let all = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.fixed()?));
            all.map_or_else(|| if dims.len() == 1 { dims[0] } else { Dim::Unknown }, Dim::Fixed)
        };
        let shape = vec![group(&x.shape[..at]), group(&x.shape[at..])];
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// Removes dimensions of 1: those that input 1 names, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze;

impl Op for Squeeze {
    fn name(&self) -> &'static str {
        "Squeeze"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let gone = if args.has(1) {
            let Some(list) = args.ints(1) else { return Ok(vec![Type::Unknown]) };
            axes(&list, x.rank())?
        } else if x.dims().is_some() {
            (0..x.rank()).filter(|i| x.shape[*i] == Dim::Fixed(1)).collect()
        } else {
            return Ok(vec![Type::Unknown]);
        };
        if let Some(bad) = gone.iter().find(|i| x.shape[**i].fixed().is_some_and(|n| n != 1)) {
            return Err(format!("dimension {bad} of {:?} is not 1", x.shape));
        }
        let kept = x.shape.iter().enumerate().filter(|(i, _)| !gone.contains(i));
        Ok(vec![TensorType { dtype: x.dtype, shape: kept.map(|(_, dim)| *dim).collect() }.into()])
    }
}

/// Inserts dimensions of 1 where input 1 says, in terms of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsqueeze;

impl Op for Unsqueeze {
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let Some(list) = args.ints(1) else {
            let rank = args.length(1);
            return Ok(vec![
                rank.map_or(Type::Unknown, |n| TensorType::of_rank(x.dtype, x.rank() + n).into()),
            ]);
        };
        let rank = x.rank() + list.len();
        let new = axes(&list, rank)?;
        let mut old = x.shape.iter().copied();
        let one = |i| if new.contains(&i) { Dim::Fixed(1) } else { old.next().unwrap_or(Dim::Fixed(1)) };
        let shape = (0..rank).map(one).collect();
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// The input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity;

impl Op for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![args.ty(0).clone()])
    }

    fn passes(&self, _: &Args<'_>) -> Option<usize> {
        Some(0)
    }
}
