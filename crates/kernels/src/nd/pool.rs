//! Pooling of blocked images: the largest or the mean value under a window, or of a whole image.
//!
//! Means are sums, divided once. Rows of a window are added in runs of [`RUN`] in four sums each, so that the error is at most
//! `(taps / RUN + RUN / 4 + rows + 6) * 2^-24 * mean(|x|)`.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::layout::{BLOCK, Layout};
use super::shape::Window;
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// So many neighbours are folded before they join the others.
const RUN: usize = 64;

/// What pooling makes of the values under a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest; values added around the image count for nothing. NaN under a window gives NaN or is left out.
    Max,
    /// The mean of those within the image.
    Mean,
    /// The mean, values added around the image counting as zeros.
    PaddedMean,
}

/// Pools images of `channels` channels. Rows of the spans are blocked images.
pub fn pool(
    pool: Pool,
    channels: usize,
    window: Window,
    x: Span,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("pool");
    let output = window.output();
    check.that(output.is_some(), || format!("{window:?} does not fit"))?;
    let [height, width] = output.unwrap_or_default();
    let floats = |pixels| Layout::Blocked.floats(channels, pixels).unwrap_or(usize::MAX);
    check.span::<f32>("x", &x, floats(window.input[0] * window.input[1]))?;
    check.span::<f32>("out", &out, floats(height * width))?;
    check.same_rows("x and out", &x, &out)?;
    let inside = (0..height).all(|at| !window.taps(0, at).is_empty())
        && (0..width).all(|at| !window.taps(1, at).is_empty());
    check.that(inside, || format!("{window:?} has outputs without any input"))?;
    Ok(Box::new(PoolStep { pool, blocks: channels.div_ceil(BLOCK), window, output: [height, width], x, out }))
}

/// The mean of each channel of blocked images of `pixels` pixels: an image of one pixel.
pub fn global_mean(channels: usize, pixels: usize, x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    pool(Pool::Mean, channels, whole(pixels)?, x, out)
}

fn whole(pixels: usize) -> Result<Window, StepError> {
    let window = Window { kernel: [1, pixels], ..Window::square([1, pixels], 1, 1, 0) };
    Check("pool").that(window.output().is_some(), || format!("an image of {pixels} pixels"))?;
    Ok(window)
}

struct PoolStep {
    pool: Pool,
    blocks: usize,
    window: Window,
    output: [usize; 2],
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each unit, a row of a block, is made by one worker.
unsafe impl Step for PoolStep {
    fn label(&self) -> String {
        let [ky, kx] = self.window.kernel;
        format!("pool {:?} {ky}x{kx}", self.pool).to_lowercase()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let units = worker.share(ctx.rows(self.x.rows) * self.blocks * self.output[0], 1);
        dispatch(ctx.level(), Job { step: self, units, x: ctx.view(&self.x), out: ctx.view(&self.out) });
    }
}

struct Job<'a> {
    step: &'a PoolStep,
    units: Range<usize>,
    x: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for unit in self.units.clone() {
            let (plane, y) = (unit / self.step.output[0], unit % self.step.output[0]);
            if self.step.pool == Pool::Max {
                self.row::<I, Max>(isa, plane, y);
            } else {
                self.row::<I, Sum>(isa, plane, y);
            }
        }
    }
}

impl Job<'_> {
    /// A row of outputs of a plane: a block of channels of an image.
    #[inline(always)]
    fn row<I: Isa, F: Fold>(&self, isa: I, plane: usize, y: usize) {
        let PoolStep { pool, window, output, .. } = self.step;
        let [height, width] = window.input;
        let rows = window.taps(0, y);
        for at in 0..output[1] {
            let columns = window.taps(1, at);
            let count = match pool {
                Pool::PaddedMean => window.kernel[0] * window.kernel[1],
                _ => rows.len() * columns.len(),
            };
            let first = window.source(0, y, rows.start) * width + window.source(1, at, columns.start);
            let from = (plane * height * width + first) * BLOCK;
            let to = ((plane * output[0] + y) * output[1] + at) * BLOCK;
            let step = [window.dilation[0] * width * BLOCK, window.dilation[1] * BLOCK];
            for lane in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: the spans hold whole images (checked when the step was made), the taps lie within the
                // input, and this row of outputs is this worker's.
                unsafe {
                    let x = self.x.as_ptr().add(from + lane);
                    let value = fold::<I, F>(isa, x, [rows.len(), columns.len()], step);
                    isa.store_ptr(F::end(isa, value, count), self.out.as_mut_ptr().add(to + lane));
                }
            }
        }
    }
}

/// Folds a rectangle of vectors.
///
/// # Safety
/// All of them are valid for reading.
#[inline(always)]
unsafe fn fold<I: Isa, F: Fold>(isa: I, x: *const f32, counts: [usize; 2], step: [usize; 2]) -> I::F32 {
    let mut value = isa.splat(F::START);
    for row in 0..counts[0] {
        let mut column = 0;
        while column + 4 <= counts[1] {
            let count = (counts[1] - column).min(RUN) / 4;
            // SAFETY: by the caller's promise.
            let run = unsafe { fours::<I, F>(isa, x.add(row * step[0] + column * step[1]), count, step[1]) };
            value = F::fold(isa, value, run);
            column += 4 * count;
        }
        for column in column..counts[1] {
            // SAFETY: by the caller's promise.
            value = F::fold(isa, value, unsafe { isa.load_ptr(x.add(row * step[0] + column * step[1])) });
        }
    }
    value
}

/// Folds `4 * count` vectors that lie `step` apart, every fourth into one value.
///
/// # Safety
/// All of them are valid for reading, and `count` is not zero.
#[inline(always)]
unsafe fn fours<I: Isa, F: Fold>(isa: I, x: *const f32, count: usize, step: usize) -> I::F32 {
    // SAFETY: by the caller's promise.
    let (mut a, mut b, mut c, mut d) = unsafe {
        (
            isa.load_ptr(x),
            isa.load_ptr(x.add(step)),
            isa.load_ptr(x.add(2 * step)),
            isa.load_ptr(x.add(3 * step)),
        )
    };
    for i in 1..count {
        // SAFETY: by the caller's promise.
        unsafe {
            let x = x.add(4 * i * step);
            a = F::fold(isa, a, isa.load_ptr(x));
            b = F::fold(isa, b, isa.load_ptr(x.add(step)));
            c = F::fold(isa, c, isa.load_ptr(x.add(2 * step)));
            d = F::fold(isa, d, isa.load_ptr(x.add(3 * step)));
        }
    }
    F::fold(isa, F::fold(isa, a, b), F::fold(isa, c, d))
}

trait Fold {
    const START: f32;
    fn fold<I: Isa>(isa: I, so_far: I::F32, x: I::F32) -> I::F32;
    fn end<I: Isa>(isa: I, value: I::F32, count: usize) -> I::F32;
}

struct Max;

impl Fold for Max {
    const START: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn fold<I: Isa>(isa: I, so_far: I::F32, x: I::F32) -> I::F32 {
        isa.max(so_far, x)
    }

    #[inline(always)]
    fn end<I: Isa>(_: I, value: I::F32, _: usize) -> I::F32 {
        value
    }
}

struct Sum;

impl Fold for Sum {
    const START: f32 = 0.0;

    #[inline(always)]
    fn fold<I: Isa>(isa: I, so_far: I::F32, x: I::F32) -> I::F32 {
        isa.add(so_far, x)
    }

    #[inline(always)]
    fn end<I: Isa>(isa: I, value: I::F32, count: usize) -> I::F32 {
        isa.div(value, isa.splat(count as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, Map, random};
    use kinglet_simd::Level;

    fn check(kind: Pool, channels: usize, window: Window, images: usize) {
        let ([h, w], [oh, ow]) = (window.input, window.output().expect("fits"));
        let x = random(1, images * channels * h * w);
        let value = |at: usize| {
            let (plane, y, x_at) = (at / ow / oh, at / ow % oh, at % ow);
            let taps = window.taps(0, y).flat_map(|ky| window.taps(1, x_at).map(move |kx| (ky, kx)));
            let values: Vec<f64> = taps
                .map(|(ky, kx)| (window.source(0, y, ky), window.source(1, x_at, kx)))
                .map(|(iy, ix)| f64::from(x[(plane * h + iy) * w + ix]))
                .collect();
            let sum: f64 = values.iter().sum();
            match kind {
                Pool::Max => values.iter().copied().fold(f64::MIN, f64::max),
                Pool::Mean => sum / values.len() as f64,
                Pool::PaddedMean => sum / (window.kernel[0] * window.kernel[1]) as f64,
            }
        };
        let expected: Vec<f64> = (0..images * channels * oh * ow).map(value).collect();
        for level in Level::available() {
            let mut case = Case::new(level);
            let map = |pixels| Map { images, channels, pixels, layout: Layout::Blocked };
            let (x, out) = (case.input(map(h * w), &x), case.output(map(oh * ow)));
            case.check(
                || pool(kind, channels, window, x, out).expect("binds"),
                out,
                map(oh * ow),
                &expected,
                1e-6,
            );
        }
    }

    #[test]
    fn pooling_follows_the_definition() {
        for kind in [Pool::Max, Pool::Mean, Pool::PaddedMean] {
            check(kind, 16, Window::square([8, 9], 3, 2, 1), 2);
            check(kind, 20, Window::square([20, 14], 2, 2, 0), 1);
            check(kind, 5, Window { dilation: [2, 1], ..Window::square([9, 9], 3, 1, 1) }, 1);
            check(kind, 33, whole(35).expect("fits"), 2);
            check(kind, 16, whole(4 * RUN + 7).expect("fits"), 1);
            check(kind, 16, Window::square([11, 13], 9, 1, 1), 1);
        }
    }

    #[test]
    fn windows_that_see_nothing_are_refused() {
        let span = |at, cols| Span::f32(at, crate::Rows::Fixed(1), cols);
        let make = |window, outs: usize| pool(Pool::Max, 16, window, span(0, 64), span(4096, outs));
        assert!(make(Window::square([2, 2], 2, 1, 0), 16).is_ok());
        assert!(make(Window::square([2, 2], 2, 1, 0), 32).is_err());
        assert!(make(Window::square([2, 2], 2, 1, 3), 16 * 49).is_err());
        assert!(make(Window::square([2, 2], 9, 1, 0), 16).is_err());
    }
}
