//! Resizing with the kernels that models were trained with: Pillow's (and torchvision's), or OpenCV's.
//!
//! Pillow widens its kernels when it shrinks (antialiasing), OpenCV does not. Both agree with the originals within one step
//! of 255, but where a cubic kernel overshoots at a hard edge.

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::U8x3;
use fir::{FilterType, ResizeAlg, ResizeOptions};

use super::warp::sample;
use super::{ImageError, Picture};

/// Longest side that a picture may be resized to.
const MAX_SIDE: u32 = 1 << 15;

/// The shape of Pillow's kernels before they are widened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The closest pixel.
    Nearest,
    /// A triangle of one pixel to each side.
    Bilinear,
    /// A cubic of two pixels to each side (`a = -0.5`).
    Bicubic,
}

/// A way of resizing: whose, and with which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// As `PIL.Image.resize` and `torchvision.transforms.Resize` do: antialiased.
    Pillow(Filter),
    /// As `cv2.INTER_NEAREST`: the pixel below the corner, not the centre, of each new one.
    OpenCvNearest,
    /// As `cv2.INTER_LINEAR`.
    OpenCvBilinear,
    /// As `cv2.INTER_CUBIC` (`a = -0.75`; the edge pixels continue outside the picture).
    OpenCvBicubic,
}

impl Resize {
    /// The whole picture in a new size.
    pub fn apply(self, picture: &Picture, width: u32, height: u32) -> Result<Picture, ImageError> {
        if ![width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)) {
            return Err(ImageError::Target { width, height, limit: MAX_SIDE });
        }
        if (width, height) == (picture.width, picture.height) {
            return Ok(picture.clone());
        }
        match self {
            Self::Pillow(Filter::Nearest) => convolve(picture, width, height, ResizeAlg::Nearest),
            Self::Pillow(Filter::Bilinear) => widened(picture, width, height, FilterType::Bilinear),
            Self::Pillow(Filter::Bicubic) => widened(picture, width, height, FilterType::CatmullRom),
            Self::OpenCvNearest => Ok(nearest_corner(picture, width, height)),
            Self::OpenCvBilinear => {
                convolve(picture, width, height, ResizeAlg::Interpolation(FilterType::Bilinear))
            }
            Self::OpenCvBicubic => Ok(bicubic(picture, width, height)),
        }
    }
}

fn widened(picture: &Picture, width: u32, height: u32, filter: FilterType) -> Result<Picture, ImageError> {
    convolve(picture, width, height, ResizeAlg::Convolution(filter))
}

fn convolve(picture: &Picture, width: u32, height: u32, by: ResizeAlg) -> Result<Picture, ImageError> {
    let fail = |why: String| ImageError::Resize { width: picture.width, height: picture.height, why };
    // The typed interface: only code for this pixel type is compiled.
    let source = TypedImageRef::<U8x3>::from_buffer(picture.width, picture.height, &picture.rgb)
        .map_err(|e| fail(e.to_string()))?;
    let mut target = TypedImage::<U8x3>::new(width, height);
    let options = ResizeOptions::new().resize_alg(by);
    fir::Resizer::new().resize_typed(&source, &mut target, &options).map_err(|e| fail(e.to_string()))?;
    let rgb = target.pixels().iter().flat_map(|pixel| pixel.0).collect();
    Ok(Picture { width, height, rgb })
}

/// Each new pixel's centre sampled in the old picture.
fn bicubic(picture: &Picture, width: u32, height: u32) -> Picture {
    let place = |i: u32, new: u32, old: u32| (f64::from(i) + 0.5) * f64::from(old) / f64::from(new) - 0.5;
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let row = place(y, height, picture.height);
        rgb.extend((0..width).flat_map(|x| sample(picture, [place(x, width, picture.width), row])));
    }
    Picture { width, height, rgb }
}

/// OpenCV's nearest pixel: the one below the corner, not the centre, of each new pixel.
fn nearest_corner(picture: &Picture, width: u32, height: u32) -> Picture {
    let place = |i: u32, new: u32, old: u32| (u64::from(i) * u64::from(old) / u64::from(new)) as i64;
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let row = place(y, height, picture.height);
        (0..width).for_each(|x| rgb.extend(picture.at(place(x, width, picture.width), row)));
    }
    Picture { width, height, rgb }
}
