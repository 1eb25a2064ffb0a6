//! Pixels to numbers: channel order, scale and bias, one plane a channel.

use super::Picture;

/// Numbers with a shape, outermost dimension first.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// As many values as the product of the dimensions, row-major.
    pub data: Vec<f32>,
}

impl Array {
    /// Values of this shape; none when their number is another.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Option<Self> {
        let elements = shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
        (elements == data.len()).then(|| Self { shape: shape.to_vec(), data })
    }
}

/// Which channels a model reads, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red: Caffe's and OpenCV's order.
    Bgr,
    /// One plane: 0.299 red + 0.587 green + 0.114 blue, rounded to whole steps as Pillow's `L`.
    Grey,
}

impl Channels {
    /// Number of planes.
    pub fn count(self) -> usize {
        if self == Self::Grey { 1 } else { 3 }
    }
}

/// `value * scale + bias` for each channel, in the model's order, of values from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor of each channel.
    pub scale: [f32; 3],
    /// Added after the factor.
    pub bias: [f32; 3],
}

impl Scaling {
    /// `(value / 255 - mean) / deviation`.
    pub const fn standard(mean: [f32; 3], deviation: [f32; 3]) -> Self {
        let mut this = Self { scale: [0.0; 3], bias: [0.0; 3] };
        let mut c = 0;
        while c < 3 {
            this.scale[c] = 1.0 / (255.0 * deviation[c]);
            this.bias[c] = -mean[c] / deviation[c];
            c += 1;
        }
        this
    }

    /// The same factor for every channel, and each channel's bias.
    pub const fn linear(scale: f32, bias: [f32; 3]) -> Self {
        Self { scale: [scale; 3], bias }
    }
}

/// Appends the picture's planes, `[channels, height, width]`.
pub(crate) fn append_planes(picture: &Picture, channels: Channels, scaling: Scaling, out: &mut Vec<f32>) {
    out.reserve(channels.count() * picture.rgb.len() / 3);
    for plane in 0..channels.count() {
        let (scale, bias) = (scaling.scale[plane], scaling.bias[plane]);
        let pixels = picture.rgb.chunks_exact(3);
        match channels {
            Channels::Rgb => out.extend(pixels.map(|p| f32::from(p[plane]) * scale + bias)),
            Channels::Bgr => out.extend(pixels.map(|p| f32::from(p[2 - plane]) * scale + bias)),
            Channels::Grey => out.extend(pixels.map(|p| f32::from(luma(p)) * scale + bias)),
        }
    }
}

/// ITU-R 601 brightness in 16-bit fixed point.
fn luma(p: &[u8]) -> u8 {
    let sum = 19595 * u32::from(p[0]) + 38470 * u32::from(p[1]) + 7471 * u32::from(p[2]);
    ((sum + 0x8000) >> 16) as u8
}
