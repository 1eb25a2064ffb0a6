//! Reading text in pictures: where it is, and what it says (the PP-OCR family).
//!
//! Three models do it. A detector leaves a map of how probable text is at each pixel ([`find_text`] makes quadrangles of
//! it); each quadrangle is cut out upright ([`cut`]); a classifier tells whether a line is upside down
//! ([`is_upside_down`]); a recogniser leaves a distribution over characters at each step along the line
//! ([`Dictionary::read`]). [`reading_order`] puts the lines in order. Running the models is the caller's part.

mod find;
mod order;
mod read;
mod rectangle;

pub use find::{FindOptions, find_text};
pub use order::{Line, reading_order, text};
pub use read::{Dictionary, Reading, angle_input, is_upside_down, line_batch, line_width};

use crate::image::{Picture, Quad, rotate_left, straighten};

/// Most pixels of a side of a line that is cut out.
const MAX_LINE: u32 = 4096;
/// A cut so many times higher than wide is a line that runs upwards.
const UPRIGHT: f32 = 1.5;

/// The content of `quad`, turned so that the line runs to the right.
pub fn cut(picture: &Picture, quad: &Quad) -> Picture {
    let line = straighten(picture, quad, MAX_LINE);
    if line.height() as f32 >= UPRIGHT * line.width() as f32 { rotate_left(&line) } else { line }
}
