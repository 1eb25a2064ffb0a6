//! `Dft` and `Stft`: discrete Fourier transforms of whole signals and of windows that slide over them; `MelWeights`.

use kinglet_tensor::DType;

use super::Op;
use crate::{Args, Dim, TensorType, Type, axis};

/// Inputs: `x` `[.., 1 or 2]` (real, or real and imaginary), and optionally the length (the signal is cut or filled with
/// zeroes) and the axis (the last but one without it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dft {
    /// From frequencies to a signal.
    pub inverse: bool,
    /// Only the first half of the frequencies, which decides the other one for real signals.
    pub onesided: bool,
}

impl Dft {
    /// Elements along the axis of the result and in its last dimension, of `n` elements along the axis.
    pub fn sizes(&self, n: usize, length: Option<usize>) -> (usize, usize) {
        match (self.inverse, self.onesided) {
            (true, true) => (length.unwrap_or(2 * n.saturating_sub(1)), 1),
            (false, true) => (length.unwrap_or(n) / 2 + 1, 2),
            (_, false) => (length.unwrap_or(n), 2),
        }
    }
}

impl Op for Dft {
    fn name(&self) -> &'static str {
        "Dft"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let mut ty = TensorType::of_rank(x.dtype, x.rank());
        let along = if args.has(2) { args.int(2) } else { Some(-2) };
        let length = if args.has(1) { args.int(1).map(Some) } else { Some(None) };
        if let (Some(along), Some(length)) = (along, length) {
            let along = axis(along, x.rank())?;
            if along + 1 == x.rank() {
                return Err("the last dimension holds real and imaginary parts".into());
            }
            let length =
                length.map(|n| usize::try_from(n).map_err(|_| format!("a length of {n}"))).transpose()?;
            ty.shape.clone_from(&x.shape);
            ty.shape[along] = x.shape[along].map(|n| self.sizes(n, length).0);
            ty.shape[x.rank() - 1] = Dim::Fixed(self.sizes(0, length).1);
        }
        Ok(vec![ty.into()])
    }

    fn describe(&self) -> String {
        if self.inverse { "inverse".into() } else { String::new() }
    }
}

/// Inputs: signals `[N, length, 1 or 2]`, the step between windows, and optionally the window's weights and its length.
/// Output: `[N, windows, frequencies, 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stft {
    /// As of [`Dft`].
    pub onesided: bool,
}

impl Op for Stft {
    fn name(&self) -> &'static str {
        "Stft"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        if x.rank() != 3 {
            return Err(format!("takes signals [N, length, 1 or 2], got {x:?}"));
        }
        let given = if args.has(3) { args.int(3) } else { args.length(2).map(|n| n as i64) };
        let frame = given.and_then(|n| usize::try_from(n).ok());
        let step = args.int(1).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let (mut windows, mut bins) = (Dim::Unknown, Dim::Unknown);
        if let (Some(frame), Some(step)) = (frame, step) {
            windows = x.shape[1].map(|n| n.checked_sub(frame).map_or(0, |rest| rest / step + 1));
            bins = Dim::Fixed(if self.onesided { frame / 2 + 1 } else { frame });
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: vec![x.shape[0], windows, bins, Dim::Fixed(2)] }.into()])
    }
}

/// Weights that gather the frequencies of a spectrum into bands of equal width for the ear.
///
/// Inputs, all scalars: bands, length of the transform, samples a second, lowest and highest frequency in Hz. Output:
/// `[length / 2 + 1, bands]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MelWeights {
    /// Type of the weights.
    pub dtype: DType,
}

impl Op for MelWeights {
    fn name(&self) -> &'static str {
        "MelWeights"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        args.tensors::<5>()?;
        let size = |n: i64| usize::try_from(n).map(Dim::Fixed).map_err(|_| format!("a size of {n}"));
        let bins = args.int(1).map(|n| size(n / 2 + 1)).transpose()?.unwrap_or(Dim::Unknown);
        let bands = args.int(0).map(size).transpose()?.unwrap_or(Dim::Unknown);
        Ok(vec![TensorType { dtype: self.dtype, shape: vec![bins, bands] }.into()])
    }
}
