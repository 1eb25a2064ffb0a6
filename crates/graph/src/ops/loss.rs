//! `NllLoss`: the negative log-likelihood of target classes.

use super::Op;
use crate::{Args, TensorType, Type};

/// How losses are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LossKind {
    Each,
    Sum,
    Mean,
}

/// Inputs: log-probabilities `[N, C, ..]`, classes `[N, ..]`, optional weights `[C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NllLoss {
    /// How losses are gathered.
    pub kind: LossKind,
    /// Elements of this class do not count.
    pub ignore: Option<i64>,
}

impl Op for NllLoss {
    fn name(&self) -> &'static str {
        "NllLoss"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (x, target) = (args.tensor(0)?, args.tensor(1)?);
        if x.rank() < 2 || target.rank() + 1 != x.rank() {
            return Err("takes [N, C, ..] and [N, ..]".into());
        }
        let shape = if self.kind == LossKind::Each { target.shape.clone() } else { Vec::new() };
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}
