//! `Resize`: images (or any dimensions) sampled at another density.

use super::Op;
use crate::{Args, Dim, TensorType, Type, axis};

/// How values between elements are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeMode {
    /// The nearest element.
    Nearest(NearestRule),
    /// Weighted by distance.
    Linear,
    /// By a cubic with this coefficient.
    Cubic(f32),
}

/// Which neighbour is nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum NearestRule {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// Where an output element lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as ONNX names them")]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

/// What sizes mean when only some dimensions are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as ONNX names them")]
pub enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// Inputs: `x`, optional region, optional scales, optional sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How values between elements are found.
    pub mode: ResizeMode,
    /// Where an output element lies.
    pub coordinates: Coordinates,
    /// Which dimensions; empty: all.
    pub axes: Vec<i64>,
    /// What sizes mean.
    pub aspect: Aspect,
    /// Neighbours outside do not count.
    pub exclude_outside: bool,
    /// Value outside of the region.
    pub outside: f32,
    /// Smooths when the result is smaller.
    pub antialias: bool,
}

/// One resized dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Scaled {
    pub axis: usize,
    pub scale: f64,
    pub output: usize,
}

impl Resize {
    /// The resized dimensions of an input of this shape; none when only the data decides.
    pub fn scaled(&self, args: &Args<'_>, shape: &[usize]) -> Result<Option<Vec<Scaled>>, String> {
        let over: Vec<usize> = if self.axes.is_empty() {
            (0..shape.len()).collect()
        } else {
            self.axes.iter().map(|a| axis(*a, shape.len())).collect::<Result<_, _>>()?
        };
        if args.has(3) && args.length(3) != Some(0) {
            let Some(sizes) = args.ints(3) else { return Ok(None) };
            return self.by_sizes(&over, shape, &sizes).map(Some);
        }
        let Some(scales) = args.floats(2) else { return Ok(None) };
        if scales.len() != over.len() {
            return Err(format!("{} scales for {} dimensions", scales.len(), over.len()));
        }
        let one = |(axis, scale): (&usize, &f32)| {
            // In f32, as ONNX infers shapes: ten times 0.7 are seven.
            let output = (shape[*axis] as f32 * scale).floor();
            let fits = output.is_finite() && (0.0..1e12).contains(&output);
            fits.then_some(Scaled { axis: *axis, scale: f64::from(*scale), output: output as usize })
        };
        let scaled: Option<Vec<Scaled>> = over.iter().zip(&scales).map(one).collect();
        scaled.map(Some).ok_or_else(|| format!("impossible scales {scales:?}"))
    }

    fn by_sizes(&self, over: &[usize], shape: &[usize], sizes: &[i64]) -> Result<Vec<Scaled>, String> {
        if sizes.len() != over.len() || sizes.iter().any(|n| *n < 0) {
            return Err(format!("sizes {sizes:?} for {} dimensions", over.len()));
        }
        let ratios: Vec<f64> =
            over.iter().zip(sizes).map(|(a, n)| *n as f64 / (shape[*a] as f64).max(1.0)).collect();
        let common = match self.aspect {
            Aspect::Stretch => None,
            Aspect::NotLarger => ratios.iter().copied().reduce(f64::min),
            Aspect::NotSmaller => ratios.iter().copied().reduce(f64::max),
        };
        let one = |((axis, n), ratio): ((&usize, &i64), &f64)| match common {
            None => Scaled { axis: *axis, scale: *ratio, output: *n as usize },
            Some(scale) => {
                let output = (scale * shape[*axis] as f64 + 0.5).floor() as usize;
                Scaled { axis: *axis, scale, output }
            }
        };
        Ok(over.iter().zip(sizes).zip(&ratios).map(one).collect())
    }
}

impl Op for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let open = || Ok(vec![TensorType::of_rank(x.dtype, x.rank()).into()]);
        let Some(mut shape) = x.dims() else { return open() };
        let Some(scaled) = self.scaled(args, &shape)? else { return open() };
        scaled.iter().for_each(|s| shape[s.axis] = s.output);
        Ok(vec![TensorType { dtype: x.dtype, shape: shape.into_iter().map(Dim::Fixed).collect() }.into()])
    }

    fn describe(&self) -> String {
        format!("{:?}, {:?}", self.mode, self.coordinates)
    }
}
