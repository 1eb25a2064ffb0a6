//! Pictures: decoded from bytes, resized as the model's makers did, and turned into f32 planes.
//!
//! Contract: bytes are untrusted; nothing is allocated beyond what [`ImageLimits`] allow and nothing panics. What Pillow
//! and OpenCV compute is matched within a step of 255 (see `Resize`). Deliberately absent: I/O, colour management (ICC profiles are
//! ignored, as the training pipelines do), and video.

mod decode;
mod draw;
mod error;
mod planes;
mod presets;
mod recipe;
mod resize;
mod warp;

pub use decode::{ImageLimits, decode, encode_png};
pub use draw::{Canvas, PALETTE};
pub use error::ImageError;
pub(crate) use planes::append_planes;
pub use planes::{Array, Channels, Scaling};
pub use presets::{Hints, PRESETS, Preset, recipe_for};
pub use recipe::{Fit, Prepared, Recipe, View};
pub use resize::{Filter, Resize};
pub use warp::{Quad, rotate_half, rotate_left, straighten};

/// An RGB picture, 8 bits a channel, rows from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>, // [height, width, 3]
}

impl Picture {
    /// A picture of these pixels; none when their number does not fit the size, or a side is zero.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        let bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (bytes > 0 && rgb.len() == bytes).then_some(Self { width, height, rgb })
    }

    /// A picture of one colour; sides of zero become one.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let rgb = colour.repeat(width as usize * height as usize);
        Self { width, height, rgb }
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The pixel in column `x` of row `y`; the nearest one for places outside.
    pub fn at(&self, x: i64, y: i64) -> [u8; 3] {
        let x = x.clamp(0, i64::from(self.width) - 1) as usize;
        let y = y.clamp(0, i64::from(self.height) - 1) as usize;
        let at = (y * self.width as usize + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Sets the pixel in column `x` of row `y`; places outside are ignored.
    pub(crate) fn set(&mut self, x: i64, y: i64, colour: [u8; 3]) {
        if (0..i64::from(self.width)).contains(&x) && (0..i64::from(self.height)).contains(&y) {
            let at = (y as usize * self.width as usize + x as usize) * 3;
            self.rgb[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// The part of `width` x `height` pixels whose corner is at (`left`, `top`); what lies outside is `fill`.
    pub fn crop(&self, left: i64, top: i64, width: u32, height: u32, fill: [u8; 3]) -> Self {
        let mut part = Self::filled(width, height, fill);
        let from = left.clamp(0, i64::from(self.width));
        let to = (left + i64::from(part.width)).clamp(from, i64::from(self.width));
        let bytes = (to - from) as usize * 3;
        for row in 0..i64::from(part.height) {
            let source = top + row;
            if bytes > 0 && (0..i64::from(self.height)).contains(&source) {
                let source = (source as usize * self.width as usize + from as usize) * 3;
                let target = (row as usize * part.width as usize + (from - left) as usize) * 3;
                part.rgb[target..target + bytes].copy_from_slice(&self.rgb[source..source + bytes]);
            }
        }
        part
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}
