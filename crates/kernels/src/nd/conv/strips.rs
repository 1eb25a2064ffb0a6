//! Channel by channel, a strip of rows at a time: the strip is copied with zeros around it, so that every output has all
//! taps and no tile is cut short by the image's edge.
//!
//! Serves the windows of [`Taps`](super::taps::Taps), where each channel has one output. A zero that is multiplied by an
//! infinite weight is NaN.

use std::ops::Range;

use kinglet_simd::dispatch;

use super::pass::{Job, Pixels, Place};
use super::taps::{SLACK, Taps};
use super::{Conv, ConvShape};
use crate::SharedMut;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pairs::Carry;

/// Floats of a copied strip: it stays in the second-level cache.
const STRIP: usize = 24 << 10;
/// Images that are at least as wide as this lose little at their edges: with few taps, copying them would cost more.
const WIDE: usize = 32;

/// How a convolution's images are cut into strips.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strips {
    /// Rows of output.
    rows: usize,
    /// Pixels of a copied row.
    pitch: usize,
    /// Floats of a copied strip, with room behind it for tiles that end beyond their row.
    pub(super) floats: usize,
}

impl Strips {
    /// The strips of a convolution that multiplies lane by lane; none when they gain nothing.
    pub(super) fn of(shape: &ConvShape, taps: Taps, output: [usize; 2]) -> Option<Self> {
        let (taps, stride) = (taps.kernel, shape.window.stride[1]);
        let gains = taps > 3 || output[1] < WIDE;
        let pitch = (output[1] - 1).checked_mul(stride)?.checked_add(taps)?;
        let row = pitch.checked_mul(BLOCK)?;
        let fit = (STRIP / row).saturating_sub(taps) / stride;
        let rows = fit.clamp(taps.min(output[0]), output[0]);
        let lines = (rows - 1) * stride + taps;
        let floats = lines.checked_mul(row)?.checked_add(SLACK)?;
        gains.then_some(Self { rows, pitch, floats })
    }

    /// Strips of an image.
    pub(super) fn count(&self, output: [usize; 2]) -> usize {
        output[0].div_ceil(self.rows)
    }

    /// Output rows of strip `at`.
    pub(super) fn rows(&self, output: [usize; 2], at: usize) -> Range<usize> {
        at * self.rows..output[0].min((at + 1) * self.rows)
    }
}

/// A strip of a block of channels of an image.
pub(super) struct Strip<'a> {
    pub(super) conv: &'a Conv,
    pub(super) strips: Strips,
    pub(super) image: usize,
    pub(super) block: usize,
    /// Output rows.
    pub(super) rows: Range<usize>,
    pub(super) x: SharedMut<'a, f32>,
    pub(super) residual: Option<SharedMut<'a, f32>>,
    pub(super) out: SharedMut<'a, f32>,
    /// Room for a copied strip.
    pub(super) copy: SharedMut<'a, f32>,
}

impl Strip<'_> {
    /// Computes the strip.
    ///
    /// # Safety
    /// The views hold whole images and a copied strip; the strip's outputs and the copy are this worker's.
    pub(super) unsafe fn run(&self) {
        assert!(self.strips.floats <= self.copy.len(), "room for a strip");
        // SAFETY: by the caller's promise.
        unsafe { self.copy_rows() };
        let Self { conv, strips, block, .. } = *self;
        let place = conv.place(self.image, self.x, self.residual, self.out);
        let width = conv.output[1];
        let above = self.rows.start * width * place.out_pixel;
        let residual =
            if place.residual.is_null() { place.residual } else { place.residual.wrapping_add(above) };
        let (x, out) = (self.copy.as_ptr(), place.out.wrapping_add(above));
        let place = Place { x, x_width: strips.pitch, x_plane: 0, x_pixel: BLOCK, out, residual, ..place };
        let pixels = Pixels::Rows { rows: self.rows.len(), out_width: width };
        // SAFETY: the copy holds all taps of these rows, and the slack behind them; the outputs are this worker's.
        dispatch(conv.level, unsafe { Job { conv, place, pixels, panels: block..block + 1 }.vouched() });
    }

    /// Copies the input rows that the strip sees, zeros where there are none.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn copy_rows(&self) {
        let window = self.conv.shape.window;
        let [height, width] = window.input;
        let (taps, stride, row) = (window.kernel[0], window.stride[0], self.strips.pitch * BLOCK);
        let lines = (self.rows.len() - 1) * stride + taps;
        let before = window.before[1].min(self.strips.pitch);
        let inside = width.min(self.strips.pitch - before);
        let ((images, _), lies) = (self.conv.floats(), self.conv.lies[0]);
        let plane = self.image * images + self.block * height * width * lies.pixel();
        for line in 0..lines {
            let y = (self.rows.start * stride + line).checked_sub(window.before[0]).filter(|y| *y < height);
            // SAFETY: the line lies within the copy, and row `y` within the image.
            unsafe {
                let to = self.copy.as_mut_ptr().add(line * row);
                let Some(y) = y else {
                    to.write_bytes(0, row);
                    continue;
                };
                to.write_bytes(0, before * BLOCK);
                let from = self.x.as_ptr().add(plane + y * width * lies.pixel());
                let copy = Carry { from, lies, to: to.add(before * BLOCK), becomes: Layout::Blocked };
                copy.run(self.conv.level, inside);
                to.add((before + inside) * BLOCK).write_bytes(0, row - (before + inside) * BLOCK);
            }
        }
    }
}
