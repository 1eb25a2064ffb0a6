//! `IntegerProduct`: sums of products of codes, as integers.

use std::sync::Arc;

use kinglet_tensor::DType;

use super::{Binary, Cast, Conv, Fun2, Op, Parts, Slot, Unsqueeze};
use crate::{Args, Type};

/// `op` of two values of 8-bit codes less their zero points, in I32. Inputs: `a`, `b`, and optionally the zero points of
/// each: one, one a row of a matrix `a`, or one a column of a matrix `b` or an output of a convolution.
#[derive(Clone, Debug)]
pub struct IntegerProduct {
    /// `MatMul` or `Conv`.
    pub op: Arc<dyn Op>,
}

impl IntegerProduct {
    /// How many dimensions of 1 go behind zero points that are many, so that they stand beside their codes.
    fn behind(&self, side: usize, rank: usize) -> usize {
        match (self.op.downcast::<Conv>().is_some(), side) {
            (true, 1) => rank.saturating_sub(1),
            (false, 0) => 1,
            _ => 0,
        }
    }

    /// Codes of a side less their zero points.
    fn centred(&self, parts: &mut Parts, args: &Args<'_>, side: usize) -> Option<Slot> {
        let x = parts.temp(Cast::to(DType::I32), &[Slot::In(side)]);
        let Some(zero) = args.optional(side + 2) else { return Some(x) };
        let mut z = parts.temp(Cast::to(DType::I32), &[Slot::In(side + 2)]);
        let behind = self.behind(side, args.optional(side)?.rank());
        if zero.rank() == 1 && behind > 0 {
            let axes = parts.ints(&(1..=behind as i64).collect::<Vec<_>>())?;
            z = parts.temp(Unsqueeze, &[z, axes]);
        }
        Some(parts.temp(Binary(Fun2::Sub), &[x, z]))
    }
}

impl Op for IntegerProduct {
    fn name(&self) -> &'static str {
        "IntegerProduct"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        for side in 0..2 {
            let found = args.tensor(side)?.dtype;
            if !matches!(found, DType::U8 | DType::I8) {
                return Err(format!("input {side} is {found}, expected codes of 8 bits"));
            }
        }
        let sides = args.0.get(..2).ok_or("takes two values")?;
        let made = self.op.infer(&Args(sides))?;
        let ty = made.first().and_then(Type::tensor).ok_or("makes no tensor")?;
        Ok(vec![ty.with(DType::I32).into()])
    }

    fn describe(&self) -> String {
        format!("{} of codes", self.op.name())
    }

    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        let mut parts = Parts::default();
        let (a, b) = (self.centred(&mut parts, args, 0)?, self.centred(&mut parts, args, 1)?);
        parts.put(self.op.clone(), &[a, b], &[Slot::Out(0)]);
        Some(parts)
    }
}
