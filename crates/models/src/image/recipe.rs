//! From a picture to what a model reads: fit, resize, scale; and the way back for boxes.

use super::planes::append_planes;
use super::{Array, Channels, ImageError, Picture, Resize, Scaling};

/// How a picture of any size becomes one of the model's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Exactly this size, proportions given up.
    Stretch {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The short side becomes `short`, then the middle is cut out: `Resize(short)`, `CenterCrop` of torchvision.
    Crop {
        /// Pixels of the short side before the cut.
        short: u32,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Stretched to a size, then the middle is cut out.
    StretchCrop {
        /// Columns and rows before the cut.
        whole: [u32; 2],
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The whole picture in the middle of this size, `fill` around it.
    Letterbox {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Grey level around the picture.
        fill: u8,
    },
    /// Proportions kept: the short side becomes `short` unless the long one would exceed `long`.
    Sides {
        /// Pixels of the short side.
        short: u32,
        /// Most pixels of the long side.
        long: u32,
    },
    /// Enlarged until the short side has `short` pixels, shrunk until the long one has `long`; both sides are then
    /// rounded to multiples of `multiple`.
    Multiples {
        /// Fewest pixels of the short side.
        short: u32,
        /// Most pixels of the long side.
        long: u32,
        /// What each side is a multiple of.
        multiple: u32,
    },
}

/// Everything between decoding and the first layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Size and framing.
    pub fit: Fit,
    /// Whose kernel.
    pub resize: Resize,
    /// Channels and their order.
    pub channels: Channels,
    /// Their range.
    pub scaling: Scaling,
}

/// Where a prepared picture's pixels came from: `source = (x - offset) * scale` in each direction (x, y).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Size of the source picture.
    pub source: [u32; 2],
    /// Size of the prepared one.
    pub size: [u32; 2],
    /// Where the source's corner lies in the prepared picture.
    pub offset: [f32; 2],
    /// Source pixels for each prepared pixel.
    pub scale: [f32; 2],
}

impl View {
    /// A place in the prepared picture, in pixels of the source and inside it.
    pub fn to_source(&self, x: f32, y: f32) -> [f32; 2] {
        let one = |at: f32, axis: usize| {
            let source = (at - self.offset[axis]) * self.scale[axis];
            source.clamp(0.0, self.source[axis] as f32)
        };
        [one(x, 0), one(y, 1)]
    }
}

/// What a model reads, and where it came from.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `[1, channels, height, width]`.
    pub array: Array,
    /// The way back.
    pub view: View,
}

impl Recipe {
    /// Prepares one picture.
    pub fn prepare(&self, picture: &Picture) -> Result<Prepared, ImageError> {
        let (framed, view) = self.frame(picture)?;
        let mut data = Vec::new();
        append_planes(&framed, self.channels, self.scaling, &mut data);
        let shape = vec![1, self.channels.count(), framed.height() as usize, framed.width() as usize];
        Ok(Prepared { array: Array { shape, data }, view })
    }

    /// The picture at the model's size, still in RGB.
    pub fn frame(&self, picture: &Picture) -> Result<(Picture, View), ImageError> {
        let (width, height) = (picture.width(), picture.height());
        let (inner, size, offset) = self.fit.layout(width, height);
        let resized = self.resize.apply(picture, inner[0], inner[1])?;
        let view = View {
            source: [width, height],
            size,
            offset: offset.map(|o| o as f32),
            scale: [width as f32 / inner[0] as f32, height as f32 / inner[1] as f32],
        };
        if inner == size {
            return Ok((resized, view));
        }
        let fill = if let Fit::Letterbox { fill, .. } = self.fit { fill } else { 0 };
        Ok((resized.crop(-offset[0], -offset[1], size[0], size[1], [fill; 3]), view))
    }
}

impl Fit {
    /// Size after resizing, size of the frame, and where in the frame the resized picture's corner lies.
    fn layout(self, width: u32, height: u32) -> ([u32; 2], [u32; 2], [i64; 2]) {
        let whole = |size: [u32; 2]| (size, size, [0, 0]);
        match self {
            Self::Stretch { width, height } => whole([width, height]),
            Self::Crop { short, width: w, height: h } => {
                middle(short_side(width, height, short, u32::MAX), [w, h])
            }
            Self::StretchCrop { whole, width, height } => middle(whole, [width, height]),
            Self::Letterbox { width: w, height: h, .. } => {
                let ratio = (f64::from(w) / f64::from(width)).min(f64::from(h) / f64::from(height));
                let scaled = |side: u32| ((f64::from(side) * ratio).round() as u32).max(1);
                let inner = [scaled(width).min(w), scaled(height).min(h)];
                (inner, [w, h], [i64::from(w - inner[0]) / 2, i64::from(h - inner[1]) / 2])
            }
            Self::Sides { short, long } => whole(short_side(width, height, short, long)),
            Self::Multiples { short, long, multiple } => {
                whole(multiples(width, height, short, long, multiple))
            }
        }
    }
}

/// A frame in the middle of a resized picture, as [`Fit::layout`] answers.
fn middle(inner: [u32; 2], frame: [u32; 2]) -> ([u32; 2], [u32; 2], [i64; 2]) {
    let cut =
        |axis: usize| -((f64::from(inner[axis]) - f64::from(frame[axis])) / 2.0).round_ties_even() as i64;
    (inner, frame, [cut(0), cut(1)])
}

/// The size whose short side is `short`, or whose long side is `long` where it would be longer; fractions are cut off.
fn short_side(width: u32, height: u32, short: u32, long: u32) -> [u32; 2] {
    let (min, max) = (f64::from(width.min(height)), f64::from(width.max(height)));
    let mut short = f64::from(short);
    if max / min * short > f64::from(long) {
        short = (f64::from(long) * min / max).round();
    }
    let scaled = |side: u32| {
        let exact = if f64::from(side) == min { short } else { short * f64::from(side) / min };
        (exact as u32).max(1)
    };
    [scaled(width), scaled(height)]
}

fn multiples(width: u32, height: u32, short: u32, long: u32, multiple: u32) -> [u32; 2] {
    let (min, max) = (f64::from(width.min(height)), f64::from(width.max(height)));
    let enlarged = (f64::from(short) / min).max(1.0);
    let ratio = if max * enlarged > f64::from(long) { f64::from(long) / max } else { enlarged };
    let multiple = multiple.max(1);
    [width, height].map(|side| {
        let whole = (f64::from(side) * ratio).floor() / f64::from(multiple);
        (whole.round_ties_even() as u32).max(1).saturating_mul(multiple)
    })
}
