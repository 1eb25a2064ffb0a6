//! `Conv` and `ConvTranspose`: convolutions over any number of spatial dimensions.

use super::Op;
use crate::{Args, Dim, TensorType, Type};

/// Placement of a sliding window, one entry a spatial dimension; empty lists mean the neutral value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Distance of neighbouring windows; 1 when empty.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps; 1 when empty.
    pub dilations: Vec<usize>,
    /// How much is added around the input.
    pub pads: Pads,
}

/// How much is added around each spatial dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pads {
    /// All begins, then all ends; none when empty. Negative ones crop.
    Given(Vec<i64>),
    /// So that the output has `ceil(input / stride)` elements; the odd one behind.
    SameUpper,
    /// The same, the odd one before.
    SameLower,
}

impl Default for Pads {
    fn default() -> Self {
        Self::Given(Vec::new())
    }
}

/// One spatial dimension of a window over an input of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Axis {
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: i64,
    pub after: i64,
    pub output: usize,
}

impl Window {
    /// An error when windows or taps would not move on.
    pub fn check(&self) -> Result<(), String> {
        let lists = [("strides", &self.strides), ("dilations", &self.dilations)];
        match lists.into_iter().find(|(_, list)| list.contains(&0)) {
            Some((what, list)) => Err(format!("{what} of {list:?}, each must be at least 1")),
            None => Ok(()),
        }
    }

    /// The stride of spatial dimension `i`.
    pub fn stride(&self, i: usize) -> usize {
        self.strides.get(i).copied().unwrap_or(1).max(1)
    }

    /// The dilation of spatial dimension `i`.
    pub fn dilation(&self, i: usize) -> usize {
        self.dilations.get(i).copied().unwrap_or(1).max(1)
    }

    /// Spatial dimension `i` of `rank`, for this input and kernel; `ceil` counts windows that overhang.
    pub fn axis(
        &self,
        i: usize,
        rank: usize,
        input: usize,
        kernel: usize,
        ceil: bool,
    ) -> Result<Axis, String> {
        let (stride, dilation) = (self.stride(i), self.dilation(i));
        let reach =
            kernel.checked_sub(1).and_then(|k| k.checked_mul(dilation)).ok_or("an empty kernel")? as i64 + 1;
        let same = |lower: bool| {
            let output = input.div_ceil(stride);
            let total = ((output as i64 - 1) * stride as i64 + reach - input as i64).max(0);
            let less = total / 2;
            if lower { (total - less, less) } else { (less, total - less) }
        };
        let (before, after) = match &self.pads {
            Pads::Given(pads) => {
                (pads.get(i).copied().unwrap_or(0), pads.get(i + rank).copied().unwrap_or(0))
            }
            Pads::SameUpper => same(false),
            Pads::SameLower => same(true),
        };
        let room =
            (input as i64).checked_add(before).and_then(|n| n.checked_add(after)).ok_or("pads overflow")?;
        let room = room - reach;
        if room < 0 {
            return Err(format!("a window of {reach} does not fit into {input} elements"));
        }
        let (room, stride_) = (room as usize, stride);
        let mut output = if ceil { room.div_ceil(stride_) } else { room / stride_ } + 1;
        // The last window must start inside the input or the padding before it.
        if ceil && (output as i64 - 1) * stride as i64 >= input as i64 + before {
            output -= 1;
        }
        Ok(Axis { kernel, stride, dilation, before, after, output })
    }
}

/// `y[n, o, ..] = b[o] + sum over channels and taps of x * w`.
///
/// Inputs: `x` `[N, C, spatial..]`, `w` `[O, C / groups, kernel..]`, optional `b` `[O]`; output `[N, O, spatial..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Where the kernel is applied.
    pub window: Window,
    /// Groups of channels that do not mix.
    pub groups: usize,
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (x, w) = (args.tensor(0)?, args.tensor(1)?);
        Ok(vec![TensorType { dtype: x.dtype, shape: conv_shape(self, x, w)? }.into()])
    }

    fn describe(&self) -> String {
        let groups = if self.groups > 1 { format!(", {} groups", self.groups) } else { String::new() };
        format!("strides {:?}{groups}", self.window.strides)
    }
}

/// The shape of a convolution's output.
pub(crate) fn conv_shape(op: &Conv, x: &TensorType, w: &TensorType) -> Result<Vec<Dim>, String> {
    op.window.check()?;
    let rank = x.rank();
    if rank < 3 || w.rank() != rank {
        return Err(format!(
            "takes [N, C, spatial..] and [O, C, kernel..], got ranks {rank} and {}",
            w.rank()
        ));
    }
    if let (Some(c), Some(part), Some(o)) = (x.shape[1].fixed(), w.shape[1].fixed(), w.shape[0].fixed()) {
        let divides = op.groups > 0 && o.is_multiple_of(op.groups);
        if !divides || part.checked_mul(op.groups) != Some(c) {
            return Err(format!("{c} channels against {o}x{part} in {} groups", op.groups));
        }
    }
    let mut shape = vec![x.shape[0], w.shape[0]];
    for i in 2..rank {
        shape.push(match (x.shape[i].fixed(), w.shape[i].fixed()) {
            (Some(n), Some(k)) => Dim::Fixed(op.window.axis(i - 2, rank - 2, n, k, false)?.output),
            _ => Dim::Unknown,
        });
    }
    Ok(shape)
}

/// The transpose of a convolution: each input element adds a scaled kernel to the output.
///
/// Inputs: `x` `[N, C, spatial..]`, `w` `[C, O / groups, kernel..]`, optional `b` `[O]`; output `[N, O, spatial..]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// Where kernels are added.
    pub window: Window,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Added behind each spatial dimension of the output.
    pub output_padding: Vec<usize>,
    /// Spatial dimensions of the output, from which padding follows; empty when padding decides.
    pub output_shape: Vec<usize>,
}

impl ConvTranspose {
    /// Output size and padding before it, of spatial dimension `i` of `rank`.
    pub fn axis(&self, i: usize, rank: usize, input: usize, kernel: usize) -> Result<(usize, i64), String> {
        let (stride, dilation) = (self.window.stride(i) as i64, self.window.dilation(i) as i64);
        let extra = self.output_padding.get(i).copied().unwrap_or(0) as i64;
        let full = stride * (input as i64 - 1) + extra + (kernel as i64 - 1) * dilation + 1;
        let split = |total: i64| match self.window.pads {
            Pads::SameUpper => total / 2,
            _ => total - total / 2,
        };
        if let Some(wanted) = self.output_shape.get(i) {
            return Ok((*wanted, split((full - *wanted as i64).max(0))));
        }
        let (before, output) = match &self.window.pads {
            Pads::Given(pads) => {
                let before = pads.get(i).copied().unwrap_or(0);
                (before, full - before - pads.get(i + rank).copied().unwrap_or(0))
            }
            _ => (split((full - input as i64 * stride).max(0)), input as i64 * stride),
        };
        Ok((usize::try_from(output).map_err(|_| "the padding is larger than the output")?, before))
    }
}

impl Op for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.window.check()?;
        let (x, w) = (args.tensor(0)?, args.tensor(1)?);
        let rank = x.rank();
        if rank < 3 || w.rank() != rank || self.groups == 0 {
            return Err(format!(
                "takes [N, C, spatial..] and [C, O, kernel..], got ranks {rank} and {}",
                w.rank()
            ));
        }
        if let (Some(c), Some(k)) = (x.shape[1].fixed(), w.shape[0].fixed())
            && (c != k || !c.is_multiple_of(self.groups))
        {
            return Err(format!("{c} channels against {k} in {} groups", self.groups));
        }
        let mut shape = vec![x.shape[0], w.shape[1].map(|n| n.saturating_mul(self.groups))];
        for i in 2..rank {
            shape.push(match (x.shape[i].fixed(), w.shape[i].fixed()) {
                (Some(n), Some(k)) if k > 0 => Dim::Fixed(self.axis(i - 2, rank - 2, n, k)?.0),
                _ => Dim::Unknown,
            });
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

#[cfg(test)]
mod tests {
    use kinglet_tensor::DType;

    use super::*;
    use crate::Arg;
    use crate::ops::{Pool, PoolKind};

    /// What an op says of an image and a kernel.
    fn infer(op: &dyn Op) -> Result<Vec<Type>, String> {
        let types =
            [[1, 3, 8, 8], [3, 3, 2, 2]].map(|shape| Type::from(TensorType::fixed(DType::F32, &shape)));
        let args: Vec<Arg<'_>> = types.iter().map(|ty| Arg { ty, constant: None }).collect();
        op.infer(&Args(&args))
    }

    #[test]
    fn windows_and_taps_that_do_not_move_are_refused() {
        let window = |strides: &[usize], dilations: &[usize]| Window {
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            pads: Pads::default(),
        };
        for (strides, dilations, says) in [
            (&[0, 1][..], &[][..], Some("strides of [0, 1]")),
            (&[1, 0], &[1, 1], Some("strides of [1, 0]")),
            (&[2, 2], &[1, 0], Some("dilations of [1, 0]")),
            (&[2, 2], &[1, 1], None),
            (&[], &[], None),
        ] {
            let window = || window(strides, dilations);
            let (output_padding, output_shape) = (Vec::new(), Vec::new());
            let kind = PoolKind::Average { count_pad: false };
            let ops: [Box<dyn Op>; 3] = [
                Box::new(Conv { window: window(), groups: 1 }),
                Box::new(ConvTranspose { window: window(), groups: 1, output_padding, output_shape }),
                Box::new(Pool { kind, kernel: vec![2, 2], window: window(), ceil: false }),
            ];
            for op in ops {
                match (infer(&*op), says) {
                    (Ok(_), None) => {}
                    (Err(why), Some(says)) => assert!(why.contains(says), "{}: {why}", op.name()),
                    (found, _) => panic!("{} with {strides:?}, {dilations:?}: {found:?}", op.name()),
                }
            }
        }
    }
}
