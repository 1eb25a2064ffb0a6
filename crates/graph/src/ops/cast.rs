//! `Cast` and `BitCast`: the same numbers, or the same bits, in another type.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Type};

/// Each element converted to `to`: towards zero for integers, to the nearest for floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Type of the result.
    pub to: DType,
    /// Values beyond the range of an 8-bit float become its largest (not infinite or NaN).
    pub saturate: bool,
    /// How values become `F8E8M0` scales.
    pub round: ScaleRound,
}

/// Rounding to a power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ScaleRound {
    #[default]
    Up,
    Down,
    Nearest,
}

impl Cast {
    /// With the usual treatment of values out of range.
    pub fn to(to: DType) -> Self {
        Self { to, saturate: true, round: ScaleRound::Up }
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![args.tensor(0)?.with(self.to).into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        (args.optional(0)?.dtype == self.to).then_some(0)
    }

    fn describe(&self) -> String {
        format!("to {}", self.to)
    }
}

/// The bits of each row of elements read as another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitCast {
    /// Type of the result.
    pub to: DType,
}

impl Op for BitCast {
    fn name(&self) -> &'static str {
        "BitCast"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let (from, to) = (x.dtype.block_bytes(), self.to.block_bytes());
        let mut ty = x.with(self.to);
        if from != to {
            let last = ty.shape.last_mut().ok_or("a scalar cannot change its size")?;
            let fits = last.fixed().is_none_or(|n| (n * from).is_multiple_of(to));
            *last = last.map(|n| n * from / to);
            if !fits {
                return Err(format!("rows of {} do not fill elements of {}", x.dtype, self.to));
            }
        }
        Ok(vec![ty.into()])
    }
}

/// `Cast` to the type of input 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CastLike {
    /// As of [`Cast`].
    pub saturate: bool,
    /// As of [`Cast`].
    pub round: ScaleRound,
}

impl CastLike {
    /// The cast, once the type is known.
    pub fn cast(&self, to: DType) -> Cast {
        Cast { to, saturate: self.saturate, round: self.round }
    }
}

impl Op for CastLike {
    fn name(&self) -> &'static str {
        "CastLike"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, like] = args.tensors::<2>()?;
        Ok(vec![x.with(like.dtype).into()])
    }

    fn passes(&self, args: &Args<'_>) -> Option<usize> {
        (args.optional(0)?.dtype == args.optional(1)?.dtype).then_some(0)
    }
}
