//! The shape of a convolution (or a pooling), and where each tap of each output pixel falls.

use std::ops::Range;

/// A two-dimensional window sliding over images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Taps.
    pub kernel: [usize; 2],
    /// Distance of neighbouring outputs, in input pixels.
    pub stride: [usize; 2],
    /// Distance of neighbouring taps, in input pixels.
    pub dilation: [usize; 2],
    /// Pixels added before the first row and column.
    pub before: [usize; 2],
    /// Pixels added behind the last row and column.
    pub after: [usize; 2],
}

impl Window {
    /// A square window of `kernel` taps at `stride`, with `pad` pixels on every side.
    pub fn square(input: [usize; 2], kernel: usize, stride: usize, pad: usize) -> Self {
        Self {
            input,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            before: [pad; 2],
            after: [pad; 2],
        }
    }

    /// Height and width of the output; none when the window does not fit, or a size is zero or overflows.
    pub fn output(&self) -> Option<[usize; 2]> {
        let size = |i: usize| {
            let taps = self.kernel[i].checked_sub(1)?.checked_mul(self.dilation[i])?.checked_add(1)?;
            let padded = self.input[i].checked_add(self.before[i])?.checked_add(self.after[i])?;
            let room = padded.checked_sub(taps)?;
            (self.input[i] > 0 && self.dilation[i] > 0).then_some(())?;
            Some(room.checked_div(self.stride[i])? + 1)
        };
        let output = [size(0)?, size(1)?];
        let small = |n: usize| isize::try_from(n).is_ok();
        let pixels = |[h, w]: [usize; 2]| h.checked_mul(w).is_some_and(small);
        (pixels(output) && pixels(self.input)).then_some(output)
    }

    /// Whether output pixels are the input's, one tap each.
    pub(super) fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.before == [0, 0] && self.after == [0, 0]
    }

    /// Along one axis: runs of outputs whose taps that lie within the input are the same.
    fn classes(&self, axis: usize, outputs: usize) -> Vec<Class> {
        let mut classes: Vec<Class> = Vec::new();
        for at in 0..outputs {
            let taps = self.taps(axis, at);
            match classes.last_mut() {
                Some(last) if last.taps == taps => last.outputs.end = at + 1,
                _ => classes.push(Class { outputs: at..at + 1, taps }),
            }
        }
        classes
    }

    /// The taps of output `at` that lie within the input; no others do.
    pub(super) fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let (dilation, kernel) = (self.dilation[axis], self.kernel[axis]);
        let first = at * self.stride[axis];
        let start = self.before[axis].saturating_sub(first).div_ceil(dilation).min(kernel);
        let room = (self.input[axis] + self.before[axis]).saturating_sub(first);
        let end = room.div_ceil(dilation).min(kernel).max(start);
        start..end
    }

    /// Input coordinate of a tap of output `at`, which lies within the input.
    pub(super) fn source(&self, axis: usize, at: usize, tap: usize) -> usize {
        (at * self.stride[axis] + tap * self.dilation[axis]).saturating_sub(self.before[axis])
    }

    /// All outputs of an image as tiles of at most `tallest` pixels (or `column` pixels, when they stand upright), in
    /// the order of their first rows. With `flat`, tiles of a window of one tap may go on in the next row.
    pub(super) fn spots(&self, tallest: usize, column: usize, flat: bool) -> Vec<Spot> {
        let Some([height, width]) = self.output() else { return Vec::new() };
        if flat && self.pointwise() {
            let spot = |pixels: Range<usize>| Spot {
                input: pixels.start,
                output: pixels.start,
                pixels: pixels.len(),
                upright: false,
                taps: [0..1, 0..1],
            };
            return cuts(height * width, tallest).map(spot).collect();
        }
        let mut spots = Vec::new();
        let (rows, columns) = (self.classes(0, height), self.classes(1, width));
        for (row, col) in rows.iter().flat_map(|row| columns.iter().map(move |col| (row, col))) {
            let (high, wide) = (row.outputs.len(), col.outputs.len());
            let lying = high * wide.div_ceil(tallest) <= wide * high.div_ceil(column);
            let (lines, length, most) = if lying { (high, wide, tallest) } else { (wide, high, column) };
            for (line, cut) in (0..lines).flat_map(|line| cuts(length, most).map(move |cut| (line, cut))) {
                let (dy, dx) = if lying { (line, cut.start) } else { (cut.start, line) };
                let (oy, ox) = (row.outputs.start + dy, col.outputs.start + dx);
                let (iy, ix) = (self.source(0, oy, row.taps.start), self.source(1, ox, col.taps.start));
                spots.push(Spot {
                    input: iy * self.input[1] + ix,
                    output: oy * width + ox,
                    pixels: cut.len(),
                    upright: !lying,
                    taps: [row.taps.clone(), col.taps.clone()],
                });
            }
        }
        spots.sort_by_key(|spot| spot.output / width);
        spots
    }
}

/// Outputs along one axis with the same taps.
struct Class {
    outputs: Range<usize>,
    taps: Range<usize>,
}

/// Neighbouring outputs, in a row or upright, with the same taps.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// Input pixel of the first output's first tap.
    pub(super) input: usize,
    /// First output pixel.
    pub(super) output: usize,
    pub(super) pixels: usize,
    pub(super) upright: bool,
    /// Taps within the input, by axis.
    pub(super) taps: [Range<usize>; 2],
}

/// `0..total` in pieces of nearly equal size, at most `most`.
pub(super) fn cuts(total: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let pieces = total.div_ceil(most).max(1);
    (0..if total == 0 { 0 } else { pieces }).map(move |i| total * i / pieces..total * (i + 1) / pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_cover_every_output_once_whether_flat_or_not() {
        let check = |window: Window| {
            let Some([height, width]) = window.output() else { return };
            let mut seen = vec![0; height * width];
            for spot in [false, true].into_iter().flat_map(|flat| window.spots(5, 3, flat)) {
                for pixel in 0..spot.pixels {
                    let at = spot.output + pixel * if spot.upright { width } else { 1 };
                    seen[at] += 1;
                    for (axis, out) in [(0, at / width), (1, at % width)] {
                        assert_eq!(window.taps(axis, out), spot.taps[axis], "{window:?} {spot:?}");
                    }
                }
            }
            assert!(seen.iter().all(|&n| n == 2), "{window:?}: {seen:?}");
        };
        for (size, kernel, stride, pad) in
            [(7, 3, 1, 1), (8, 3, 2, 1), (5, 7, 2, 3), (1, 3, 1, 1), (9, 1, 2, 0), (4, 2, 3, 5), (6, 1, 1, 0)]
        {
            check(Window::square([size, size + 2], kernel, stride, pad));
            check(Window { dilation: [2, 3], ..Window::square([size + 8, size + 5], kernel, stride, pad) });
        }
    }

    #[test]
    fn windows_that_do_not_fit_have_no_output() {
        let check = |window: Window| assert_eq!(window.output(), None, "{window:?}");
        check(Window::square([2, 2], 3, 1, 0));
        check(Window::square([2, 2], 1, 0, 0));
        check(Window::square([0, 2], 1, 1, 0));
        check(Window::square([2, 2], 0, 1, 1));
        check(Window::square([usize::MAX, 2], 1, 1, 1));
        check(Window::square([usize::MAX / 2, 8], 1, 1, 0));
    }
}
