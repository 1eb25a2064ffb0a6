//! `Softmax`, with its logarithm and its hard form.

use super::Op;
use crate::{Args, Type, axis};

/// What is made of the exponentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftmaxKind {
    /// Their shares.
    Soft,
    /// The logarithms of their shares.
    Log,
    /// One at the first largest element, zero elsewhere.
    Hard,
}

/// Along `axis`, or over all dimensions from `axis` on together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// What is made.
    pub kind: SoftmaxKind,
    /// Along this axis.
    pub axis: i64,
    /// Together with all dimensions behind it.
    pub flat: bool,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        if !(self.flat && self.axis == x.rank() as i64) {
            axis(self.axis, x.rank().max(1))?;
        }
        Ok(vec![x.clone().into()])
    }

    fn describe(&self) -> String {
        format!("{:?}, axis {}", self.kind, self.axis)
    }
}
