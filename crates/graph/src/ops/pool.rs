//! `Pool`: the largest, mean or p-norm of sliding windows.

use kinglet_tensor::DType;

use super::Op;
use super::conv::Window;
use crate::{Args, Dim, TensorType, Type};

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest element; output 1, when wanted, is its index in the flattened input.
    Max {
        /// Indices count the last dimension slowest.
        column_major: bool,
    },
    /// The mean; padding counts as zeroes when `count_pad`.
    Average {
        /// Whether padding counts.
        count_pad: bool,
    },
    /// `(sum |x|^p)^(1/p)`.
    Lp(u32),
}

/// Input `x` `[N, C, spatial..]`, output `[N, C, spatial..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What becomes of a window.
    pub kind: PoolKind,
    /// Size of a window, one entry a spatial dimension; empty: the whole input.
    pub kernel: Vec<usize>,
    /// Where windows lie.
    pub window: Window,
    /// Whether a last window that overhangs counts.
    pub ceil: bool,
}

impl Op for Pool {
    fn name(&self) -> &'static str {
        "Pool"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.window.check()?;
        let x = args.tensor(0)?;
        if x.rank() < 3 && !(self.kernel.is_empty() && x.rank() == 2) {
            return Err(format!("takes [N, C, spatial..], got {} dimensions", x.rank()));
        }
        let spatial = x.rank() - 2;
        if !self.kernel.is_empty() && self.kernel.len() != spatial {
            return Err(format!("a kernel of {} dimensions for {spatial}", self.kernel.len()));
        }
        let mut shape = x.shape[..2].to_vec();
        for (i, dim) in x.shape[2..].iter().enumerate() {
            shape.push(match (self.kernel.get(i), dim.fixed()) {
                (None, _) => Dim::Fixed(1),
                (Some(kernel), Some(n)) => {
                    Dim::Fixed(self.window.axis(i, spatial, n, *kernel, self.ceil)?.output)
                }
                (Some(_), None) => Dim::Unknown,
            });
        }
        let y = TensorType { dtype: x.dtype, shape };
        let indices = y.with(DType::I64);
        Ok(vec![y.into(), indices.into()])
    }

    fn describe(&self) -> String {
        format!("{:?} {:?}", self.kind, self.kernel)
    }
}
