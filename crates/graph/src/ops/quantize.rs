//! `Quantize`, `Dequantize`, `DynamicQuantize`: numbers to codes with scales and back.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type};

/// `code = saturate(round(x / scale) + zero)`. Inputs: `x`, scale, optional zero point (which also tells the type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantize {
    /// Axis of the scales.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: scales are one or one an index.
    pub block: usize,
    /// Type of the codes without a zero point.
    pub to: DType,
    /// Codes of small floats stay finite.
    pub saturate: bool,
}

impl Op for Quantize {
    fn name(&self) -> &'static str {
        "Quantize"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let dtype = args.optional(2).map_or(self.to, |zero| zero.dtype);
        Ok(vec![args.tensor(0)?.with(dtype).into()])
    }
}

/// `x = (code - zero) * scale`. Inputs: codes, scale, optional zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dequantize {
    /// Axis of the scales.
    pub axis: i64,
    /// Elements along the axis that share a scale; 0: scales are one or one an index.
    pub block: usize,
    /// Type of the result; the scale's when none.
    pub to: Option<DType>,
}

impl Op for Dequantize {
    fn name(&self) -> &'static str {
        "Dequantize"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let dtype = self.to.unwrap_or(args.tensor(1)?.dtype);
        Ok(vec![args.tensor(0)?.with(dtype).into()])
    }
}

/// U8 codes, scale and zero point, chosen by the range of numbers, zero included. Outputs: codes, scales, zero points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DynamicQuantize {
    /// So many outer dimensions have a scale for each of their indices, and scales have the value's rank with 1 for the
    /// others; with none, all have one, which has no dimensions.
    pub outer: usize,
}

impl Op for DynamicQuantize {
    fn name(&self) -> &'static str {
        "DynamicQuantize"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let size = |(i, dim): (usize, &Dim)| if i < self.outer { *dim } else { Dim::Fixed(1) };
        let shape: Vec<Dim> = match self.outer {
            0 => Vec::new(),
            _ => x.shape.iter().enumerate().map(size).collect(),
        };
        let scales = |dtype| Type::from(TensorType { dtype, shape: shape.clone() });
        Ok(vec![x.with(DType::U8).into(), scales(x.dtype), scales(DType::U8)])
    }

    fn describe(&self) -> String {
        if self.outer == 0 { String::new() } else { format!("{} outer dimensions", self.outer) }
    }
}
