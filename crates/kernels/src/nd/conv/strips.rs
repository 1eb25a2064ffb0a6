//! Channel by channel, a strip of rows at a time: the strip is copied with zeros around it, so that every output has all
//! taps and no tile is cut short by the image's edge.
//!
//! Serves square windows of 3, 5 or 7 taps at stride 1 or 2, where each channel has one output. A zero that is multiplied
//! by an infinite weight is NaN.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::{Conv, ConvShape};
use crate::SharedMut;
use crate::nd::act::{Apply, Runs, clip};
use crate::nd::layout::BLOCK;
use crate::nd::shape::cuts;

/// Floats of a copied strip: it stays in the second-level cache.
const STRIP: usize = 24 << 10;
/// Pixels of the longest tile.
const LONGEST: usize = 16;
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
    /// The strips of a convolution that multiplies lane by lane; none when it is of another kind.
    pub(super) fn of(shape: &ConvShape, output: [usize; 2]) -> Option<Self> {
        let [taps, stride] = [shape.window.kernel, shape.window.stride].map(|[y, x]| (y == x).then_some(x));
        let (taps, stride) = (taps?, stride?);
        let known = matches!(taps, 3 | 5 | 7) && matches!(stride, 1 | 2) && shape.window.dilation == [1, 1];
        let gains = taps > 3 || output[1] < WIDE;
        let pitch = (output[1] - 1).checked_mul(stride)?.checked_add(taps)?;
        let row = pitch.checked_mul(BLOCK)?;
        let fit = (STRIP / row).saturating_sub(taps) / stride;
        let rows = fit.clamp(taps.min(output[0]), output[0]);
        let lines = (rows - 1) * stride + taps;
        let floats = lines.checked_mul(row)?.checked_add(LONGEST * stride * BLOCK)?;
        (known && gains).then_some(Self { rows, pitch, floats })
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
        let window = self.conv.shape.window;
        let (kernel, stride) = (window.kernel[0], window.stride[0]);
        assert!(self.strips.floats <= self.copy.len(), "room for a strip");
        // SAFETY: by the caller's promise.
        unsafe { self.copy_rows() };
        match (kernel, stride) {
            (3, 1) => dispatch(self.conv.level, Rows::<3, 1>(self)),
            (3, _) => dispatch(self.conv.level, Rows::<3, 2>(self)),
            (5, 1) => dispatch(self.conv.level, Rows::<5, 1>(self)),
            (5, _) => dispatch(self.conv.level, Rows::<5, 2>(self)),
            (_, 1) => dispatch(self.conv.level, Rows::<7, 1>(self)),
            (..) => dispatch(self.conv.level, Rows::<7, 2>(self)),
        }
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
        let (images, _) = self.conv.floats();
        let plane = self.image * images + self.block * height * width * BLOCK;
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
                let from = self.x.as_ptr().add(plane + y * width * BLOCK);
                from.copy_to_nonoverlapping(to.add(before * BLOCK), inside * BLOCK);
                to.add((before + inside) * BLOCK).write_bytes(0, row - (before + inside) * BLOCK);
            }
        }
    }
}

/// The rows of a copied strip, `K` by `K` taps at stride `S`.
struct Rows<'a, const K: usize, const S: usize>(&'a Strip<'a>);

impl<const K: usize, const S: usize> Kernel for Rows<'_, K, S> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Strip { conv, strips, block, rows, .. } = self.0;
        let (width, plane) = (conv.output[1], conv.output[0] * conv.output[1] * BLOCK);
        let (_, images) = conv.floats();
        let most = if I::REGISTERS >= 32 { LONGEST } else { LONGEST / 2 };
        let (lo, hi, later) = conv.shape.act.split();
        let residual = self.0.residual.map_or(std::ptr::null(), |r| r.as_ptr());
        for (line, y) in rows.clone().enumerate() {
            let to = self.0.image * images + block * plane + y * width * BLOCK;
            for pixels in cuts(width, most) {
                let at = to + pixels.start * BLOCK;
                let from = (line * S * strips.pitch + pixels.start * S) * BLOCK;
                let tile = Tile {
                    a: self.0.copy.as_ptr().wrapping_add(from),
                    row: strips.pitch * BLOCK,
                    w: conv.weights[conv.panels[*block].at..].as_ptr(),
                    bias: conv.bias[block * BLOCK..].as_ptr(),
                    residual: if residual.is_null() { residual } else { residual.wrapping_add(at) },
                    out: self.0.out.as_mut_ptr().wrapping_add(at),
                    pixels: pixels.len(),
                    bounds: (lo, hi),
                };
                // SAFETY: the copy holds all taps of these pixels, and as much behind the last row as a tile may read;
                // weights and bias fill a block; outputs and residuals lie within their images.
                unsafe {
                    match pixels.len() {
                        0..=4 => tile.run::<I, K, S, 4>(isa),
                        5..=7 => tile.run::<I, K, S, 7>(isa),
                        9..=14 if I::REGISTERS >= 32 => tile.run::<I, K, S, 14>(isa),
                        15.. if I::REGISTERS >= 32 => tile.run::<I, K, S, 16>(isa),
                        _ => tile.run::<I, K, S, 8>(isa),
                    }
                }
            }
            if later {
                let (at, count) = (self.0.out.as_mut_ptr().wrapping_add(to), width * BLOCK);
                // SAFETY: this row of outputs was just made by this worker.
                unsafe { Apply::new(conv.shape.act, Runs { at, rows: 1, pitch: 0, count }) }.run(isa);
            }
        }
    }
}

/// Neighbouring outputs of a block.
struct Tile {
    /// The first output's first tap.
    a: *const f32,
    /// Floats between rows of input.
    row: usize,
    w: *const f32,
    bias: *const f32,
    /// Null when there is none.
    residual: *const f32,
    out: *mut f32,
    pixels: usize,
    bounds: (f32, f32),
}

impl Tile {
    /// Computes `M` outputs and stores as many as the tile has.
    ///
    /// # Safety
    /// Every pointer is valid for what the tile reads and writes, `a` for all taps of `M` outputs.
    #[inline(always)]
    unsafe fn run<I: Isa, const K: usize, const S: usize, const M: usize>(&self, isa: I) {
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: by the caller's promise.
            unsafe {
                let mut acc = [isa.load_ptr(self.bias.add(lane)); M];
                for y in 0..K {
                    let (a, w) = (self.a.add(y * self.row + lane), self.w.add(y * K * BLOCK + lane));
                    for x in 0..K {
                        let weight = isa.load_ptr(w.add(x * BLOCK));
                        for (m, sum) in acc.iter_mut().enumerate() {
                            *sum = isa.fma(isa.load_ptr(a.add((x + m * S) * BLOCK)), weight, *sum);
                        }
                    }
                }
                for (m, sum) in acc.iter().enumerate().take(self.pixels) {
                    let at = m * BLOCK + lane;
                    let mut sum = *sum;
                    if !self.residual.is_null() {
                        sum = isa.add(sum, isa.load_ptr(self.residual.add(at)));
                    }
                    isa.store_ptr(clip(isa, sum, self.bounds.0, self.bounds.1), self.out.add(at));
                }
            }
        }
    }
}
