//! Inputs of a band of outputs, copied into blocks with what is added around them.

use std::ops::Range;

use super::conv::CodeShape;
use crate::nd::layout::{BLOCK, Layout};

/// A rectangle of an image, which may reach beyond it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    /// First row and column; before the image when negative.
    pub(super) from: [isize; 2],
    /// Rows and columns.
    pub(super) size: [usize; 2],
}

impl Band {
    /// The inputs of some rows of outputs.
    pub(super) fn of(shape: &CodeShape, rows: Range<usize>, width: usize) -> Self {
        let w = &shape.window;
        let reach =
            |i: usize, count: usize| (count - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1;
        let from = [(rows.start * w.stride[0]) as isize - w.before[0] as isize, -(w.before[1] as isize)];
        Self { from, size: [reach(0, rows.len()), reach(1, width)] }
    }

    /// Pixels.
    pub(super) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// An image of codes.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) codes: &'a [u8],
    pub(super) channels: usize,
    pub(super) size: [usize; 2],
    pub(super) layout: Layout,
}

impl Image<'_> {
    /// Copies a band of some blocks of channels as `[block][row][column][16]`; what is not in the image becomes `zero`, or stays
    /// as it is without one.
    pub(super) fn copy(&self, band: Band, blocks: Range<usize>, zero: Option<u8>, to: &mut [u8]) {
        let plane = band.pixels() * BLOCK;
        let width = band.size[1] * BLOCK;
        for (block, to) in blocks.zip(to.chunks_exact_mut(plane)) {
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let y = band.from[0] + row as isize;
                let inside = y >= 0 && (y as usize) < self.size[0];
                let (left, count) = if inside { self.columns(band) } else { (0, 0) };
                let (before, rest) = to.split_at_mut(left * BLOCK);
                let (middle, behind) = rest.split_at_mut(count * BLOCK);
                if let Some(zero) = zero {
                    before.fill(zero);
                    behind.fill(zero);
                }
                if count > 0 {
                    let first = (band.from[1] + left as isize) as usize;
                    self.row(block, y as usize * self.size[1] + first, middle);
                }
            }
        }
    }

    /// Columns of a band before the image, and within it.
    fn columns(&self, band: Band) -> (usize, usize) {
        let left = (-band.from[1]).max(0) as usize;
        let end = (self.size[1] as isize - band.from[1]).clamp(0, band.size[1] as isize) as usize;
        (left.min(end), end.saturating_sub(left))
    }

    /// Copies pixels from number `pixel` on of a block of channels.
    fn row(&self, block: usize, pixel: usize, to: &mut [u8]) {
        if self.layout == Layout::Blocked {
            let from = (block * self.size[0] * self.size[1] + pixel) * BLOCK;
            return to.copy_from_slice(&self.codes[from..from + to.len()]);
        }
        let count = BLOCK.min(self.channels - block * BLOCK);
        let from = self.codes[pixel * self.channels + block * BLOCK..].chunks(self.channels);
        let (to, _) = to.as_chunks_mut::<BLOCK>();
        for (to, from) in to.iter_mut().zip(from) {
            match from.first_chunk::<BLOCK>() {
                Some(whole) if count == BLOCK => *to = *whole,
                _ => to[..count].copy_from_slice(&from[..count]),
            }
        }
    }
}
