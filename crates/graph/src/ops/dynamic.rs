//! `DynamicProduct`: a product of numbers that are rounded to codes as they come, and constant weights in codes.

use std::sync::Arc;

use kinglet_tensor::DType;

use super::{Binary, Cast, Conv, Dequantize, DynamicQuantize, Fun2, Gemm, Op, Parts, Slot};
use crate::{Arg, Args, Type};

/// `op(rounded(x), weights)`: `x` as the nearest of 256 codes, whose scale its range decides when it is there.
///
/// Inputs: `x`, weights, their scales, their zero points, and what else `op` takes behind its first two (a bias). Weights are
/// codes of 8 bits with scales and, optionally, zero points; or numbers, without both, which are rounded to signed codes, one
/// scale an output ([`RoundWeights`]).
#[derive(Clone, Debug)]
pub struct DynamicProduct {
    /// `MatMul`, `Gemm` or `Conv`, with constant weights.
    pub op: Arc<dyn Op>,
    /// Whether each row of `x`, or each image of a convolution, has a scale of its own; else `x` has one.
    pub each: bool,
}

impl DynamicProduct {
    /// The dimension of the weights along which outputs lie.
    pub fn along(&self) -> usize {
        let turned = self.op.downcast::<Gemm>().is_some_and(|op| op.trans_b);
        usize::from(!turned && self.op.downcast::<Conv>().is_none())
    }

    /// How many dimensions of `x`, from the outermost on, have scales of their own.
    fn outer(&self, rank: usize) -> usize {
        match (self.each, self.op.downcast::<Conv>()) {
            (false, _) => 0,
            (true, Some(_)) => 1,
            (true, None) => rank.saturating_sub(1),
        }
    }
}

impl Op for DynamicProduct {
    fn name(&self) -> &'static str {
        "DynamicProduct"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let coded = matches!(args.tensor(1)?.dtype, DType::U8 | DType::I8);
        if coded != args.has(2) {
            return Err("codes have scales, and numbers have none".into());
        }
        let weights: Type = args.tensor(1)?.with(x.dtype).into();
        let seen = [args.0[0], Arg { ty: &weights, constant: None }];
        let seen: Vec<Arg<'_>> = seen.into_iter().chain(args.0.iter().skip(4).copied()).collect();
        self.op.infer(&Args(&seen))
    }

    fn describe(&self) -> String {
        format!("{}, codes {}", self.op.name(), if self.each { "row by row" } else { "of one scale" })
    }

    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        let mut parts = Parts::default();
        let outer = self.outer(args.optional(0)?.rank());
        let three = [parts.place(), parts.place(), parts.place()];
        parts.node(DynamicQuantize { outer }, &[Slot::In(0)], &three);
        let x = if outer == 0 {
            parts.temp(Dequantize { axis: -1, block: 0, to: None }, &three)
        } else {
            let [codes, scale, zero] = three;
            let [code, zero] = [codes, zero].map(|codes| parts.temp(Cast::to(DType::F32), &[codes]));
            let less = parts.temp(Binary(Fun2::Sub), &[code, zero]);
            parts.temp(Binary(Fun2::Mul), &[less, scale])
        };
        let along = self.along();
        let mut weights = [Slot::In(1), Slot::In(2), Slot::In(3)];
        if !args.has(2) {
            let made = [parts.place(), parts.place()];
            parts.node(RoundWeights { axis: along }, &[Slot::In(1)], &made);
            weights = [made[0], made[1], Slot::In(3)];
        }
        let w = parts.temp(Dequantize { axis: along as i64, block: 0, to: None }, &weights);
        let rest = (4..args.len()).map(Slot::In);
        let inputs: Vec<Slot> = [x, w].into_iter().chain(rest).collect();
        parts.put(self.op.clone(), &inputs, &[Slot::Out(0)]);
        Some(parts)
    }
}

/// Numbers as signed codes, `round(x / scale)`, with a scale for each index of a dimension: the largest magnitude there
/// becomes 127. Outputs: codes, scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundWeights {
    /// The dimension.
    pub axis: usize,
}

impl Op for RoundWeights {
    fn name(&self) -> &'static str {
        "RoundWeights"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let along = *x.shape.get(self.axis).ok_or("there is no such dimension")?;
        let scales = crate::TensorType { dtype: x.dtype, shape: vec![along] };
        Ok(vec![x.with(DType::I8).into(), scales.into()])
    }

    fn describe(&self) -> String {
        format!("axis {}", self.axis)
    }
}
