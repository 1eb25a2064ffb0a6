//! Normalisations other than RMS over rows: layer, batch, instance, group, local response, p-norm.

use kinglet_tensor::DType;

use super::{Binary, Fun, Fun2, Identity, Op, Parts, Reduce, ReduceKind, Slot, Unary};
use crate::{Args, Dim, TensorType, Type, axis};

/// `y = (x - mean) / sqrt(var + eps) * scale + bias` over the dimensions from `axis` on. Without `centre`, the mean counts
/// as zero (RMS).
///
/// Inputs: `x`, `scale`, optional `bias`, both broadcast over `x`; outputs: `y`, mean, and `1 / sqrt(var + eps)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// First dimension of a row.
    pub axis: i64,
    /// Added to the variance.
    pub eps: f32,
    /// Whether the mean is subtracted.
    pub centre: bool,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let from = axis(self.axis, x.rank())?;
        let mut shape = x.shape.clone();
        shape[from..].fill(Dim::Fixed(1));
        let dtype = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let stat = TensorType { dtype, shape };
        Ok(vec![x.clone().into(), stat.clone().into(), stat.into()])
    }

    fn describe(&self) -> String {
        format!("axis {}, eps {:e}", self.axis, self.eps)
    }

    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        use Slot::{In, Out};
        let rank = args.optional(0).filter(|ty| ty.dtype == DType::F32)?.rank();
        let mut parts = Parts::default();
        let axes: Vec<i64> = (axis(self.axis, rank).ok()? as i64..rank as i64).collect();
        let (axes, eps, two) = (parts.ints(&axes)?, parts.float(self.eps)?, parts.float(2.0)?);
        let mean = Reduce { kind: ReduceKind::Mean, keep_dims: true, keep_all: false };
        let centred = if self.centre {
            let centre = parts.temp(mean, &[In(0), axes]);
            parts.node(Identity, &[centre], &[Out(1)]);
            parts.temp(Binary(Fun2::Sub), &[In(0), centre])
        } else {
            In(0)
        };
        let square = parts.temp(Binary(Fun2::Pow), &[centred, two]);
        let variance = parts.temp(mean, &[square, axes]);
        let sum = parts.temp(Binary(Fun2::Add), &[variance, eps]);
        let root = parts.temp(Unary(Fun::Sqrt), &[sum]);
        parts.node(Unary(Fun::Reciprocal), &[root], &[Out(2)]);
        let normed = parts.temp(Binary(Fun2::Div), &[centred, root]);
        if args.has(2) {
            let scaled = parts.temp(Binary(Fun2::Mul), &[normed, In(1)]);
            parts.node(Binary(Fun2::Add), &[scaled, In(2)], &[Out(0)]);
        } else {
            parts.node(Binary(Fun2::Mul), &[normed, In(1)], &[Out(0)]);
        }
        Some(parts)
    }
}

/// `y = (x - mean) / sqrt(var + eps) * scale + bias` for each channel.
///
/// Inputs: `x` `[N, C, ..]`, `scale`, `bias`, `mean`, `var`, all `[C]`. In training, mean and variance are those of the
/// batch, and outputs 1 and 2 are the running ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f32,
    /// Share of the running statistics that stays.
    pub momentum: f32,
    /// Whether the batch's own statistics are used.
    pub training: bool,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, scale, _, mean, var] = args.tensors::<5>()?;
        let channels = x.shape.get(1).copied().unwrap_or(Dim::Fixed(1));
        if scale.rank() != 1
            || (scale.shape[0] != channels && scale.elements().is_some() && channels.fixed().is_some())
        {
            return Err("takes one factor a channel".into());
        }
        Ok(vec![x.clone().into(), mean.clone().into(), var.clone().into()])
    }

    fn describe(&self) -> String {
        format!("eps {:e}", self.eps)
    }
}

/// Each group of channels of each sample normalised by its own mean and variance, then scaled and shifted.
///
/// Inputs: `x` `[N, C, ..]`, `scale` and `bias`, one a channel, or one a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Number of groups; none: one for each channel.
    pub groups: Option<usize>,
    /// Added to the variance.
    pub eps: f32,
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "GroupNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, _, _] = args.tensors::<3>()?;
        let channels = x.shape.get(1).and_then(|dim| dim.fixed());
        if x.rank() < 2 || channels.zip(self.groups).is_some_and(|(c, g)| g == 0 || !c.is_multiple_of(g)) {
            return Err(format!("{channels:?} channels in {:?} groups", self.groups));
        }
        Ok(vec![x.clone().into()])
    }
}

/// `y = x / (bias + alpha / size * sum x^2)^beta` over `size` neighbouring channels.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the formula names them")]
pub struct Lrn {
    pub alpha: f32,
    pub beta: f32,
    pub bias: f32,
    pub size: usize,
}

impl Op for Lrn {
    fn name(&self) -> &'static str {
        "Lrn"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        if x.rank() < 2 || self.size == 0 {
            return Err("takes [N, C, ..] and a size".into());
        }
        Ok(vec![x.clone().into()])
    }
}

/// `y = x / norm(x)` along an axis, with the 1- or 2-norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LpNorm {
    /// Along this axis.
    pub axis: i64,
    /// 1 or 2.
    pub p: u32,
}

impl Op for LpNorm {
    fn name(&self) -> &'static str {
        "LpNorm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x] = args.tensors::<1>()?;
        axis(self.axis, x.rank())?;
        Ok(vec![x.clone().into()])
    }
}
