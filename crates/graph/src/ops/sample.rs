//! Ops that read an image between its elements: `GridSample`, `AffineGrid`, `RoiAlign`, `DeformConv`.

use super::Op;
use super::conv::Window;
use crate::{Args, Dim, TensorType, Type};

/// How a value between elements is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SampleMode {
    Nearest,
    Linear,
    /// Cubic convolution with a = -3/4.
    Cubic,
}

/// What lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplePad {
    /// Zeroes.
    Zeros,
    /// The nearest element.
    Border,
    /// The image, mirrored at its borders.
    Reflection,
}

/// Reads an image at given places.
///
/// Inputs: `x` `[N, C, spatial..]`, places `[N, out.., rank]` with -1 and 1 at the borders, last dimension first.
/// Output: `[N, C, out..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridSample {
    /// Between elements.
    pub mode: SampleMode,
    /// Outside.
    pub pad: SamplePad,
    /// Borders are the centres of the outermost elements, not their edges.
    pub align_corners: bool,
}

impl Op for GridSample {
    fn name(&self) -> &'static str {
        "GridSample"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, grid] = args.tensors::<2>()?;
        let spatial = x.rank().saturating_sub(2);
        let width = grid.shape.last().and_then(|d| d.fixed());
        if spatial == 0 || grid.rank() != x.rank() || width.is_some_and(|n| n != spatial) {
            return Err(format!("takes [N, C, spatial..] and [N, out.., {spatial}], got {grid:?}"));
        }
        let mut shape = x.shape[..2].to_vec();
        shape.extend(&grid.shape[1..grid.rank() - 1]);
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }

    fn describe(&self) -> String {
        format!("{:?} {:?}", self.mode, self.pad)
    }
}

/// Places for [`GridSample`] under affine maps.
///
/// Inputs: maps `[N, rank, rank + 1]`, the size of the image `[N, C, spatial..]`. Output: `[N, spatial.., rank]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineGrid {
    /// As of [`GridSample`].
    pub align_corners: bool,
}

impl Op for AffineGrid {
    fn name(&self) -> &'static str {
        "AffineGrid"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let theta = args.tensor(0)?;
        let &[n, rank, _] = theta.shape.as_slice() else {
            return Err(format!("takes maps [N, rank, rank + 1], got {theta:?}"));
        };
        let Some(rank) = rank.fixed() else { return Ok(vec![Type::Unknown]) };
        let sizes = match args.ints(1) {
            Some(list) => super::layout::dims_of(list.get(2..).ok_or("a size takes [N, C, spatial..]")?)?,
            None => vec![Dim::Unknown; rank],
        };
        if sizes.len() != rank {
            return Err(format!("maps of {rank} dimensions for an image of {}", sizes.len()));
        }
        let shape = [n].into_iter().chain(sizes).chain([Dim::Fixed(rank)]).collect();
        Ok(vec![TensorType { dtype: theta.dtype, shape }.into()])
    }
}

/// Regions of images, resampled to one size.
///
/// Inputs: `x` `[N, C, H, W]`, regions `[R, 4]` as left, top, right and bottom, the image of each `[R]`. Output:
/// `[R, C, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlign {
    /// Rows and columns of the result.
    pub size: [usize; 2],
    /// Elements of `x` for one unit of a region's corners.
    pub scale: f32,
    /// Samples a bin in each direction; 0: one for each element that it covers.
    pub samples: usize,
    /// Corners count from the edges of elements, not from their centres.
    pub half_pixel: bool,
    /// The largest sample, not the mean.
    pub max: bool,
}

impl Op for RoiAlign {
    fn name(&self) -> &'static str {
        "RoiAlign"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [x, rois, _] = args.tensors::<3>()?;
        if x.rank() != 4 || rois.rank() != 2 || self.size.contains(&0) {
            return Err(format!("takes [N, C, H, W] and [R, 4], got {x:?} and {rois:?}"));
        }
        let shape = vec![rois.shape[0], x.shape[1], Dim::Fixed(self.size[0]), Dim::Fixed(self.size[1])];
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}

/// A convolution whose taps are moved by offsets from the data, and weighted.
///
/// Inputs: `x` `[N, C, H, W]`, kernels `[O, C / groups, kh, kw]`, offsets `[N, offset groups * kh * kw * 2, h, w]`, optional
/// bias `[O]`, optional weights of the taps `[N, offset groups * kh * kw, h, w]`. Output: `[N, O, h, w]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeformConv {
    /// Where windows lie.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Groups of channels that share offsets.
    pub offset_groups: usize,
}

impl Op for DeformConv {
    fn name(&self) -> &'static str {
        "DeformConv"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        self.window.check()?;
        let (x, w, offset) = (args.tensor(0)?, args.tensor(1)?, args.tensor(2)?);
        if x.rank() != 4 || w.rank() != 4 || offset.rank() != 4 || self.offset_groups == 0 {
            return Err(format!(
                "takes images, kernels and offsets of 4 dimensions, got {x:?}, {w:?}, {offset:?}"
            ));
        }
        let shape = vec![x.shape[0], w.shape[0], offset.shape[2], offset.shape[3]];
        Ok(vec![TensorType { dtype: x.dtype, shape }.into()])
    }
}
