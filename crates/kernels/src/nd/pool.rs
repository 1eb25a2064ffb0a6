//! Pooling of blocked images: the largest or the mean value under a window, or of a whole image.
//!
//! Means are sums, divided once. Rows of a window are added in runs of [`RUN`] in four sums each, so that the error is at most
//! `(taps / RUN + RUN / 4 + rows + 6) * 2^-24 * mean(|x|)`.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch_bf16};

use super::layout::{BLOCK, Layout};
use super::pairs::{load, store};
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

/// Pools images of `channels` channels. Rows of the spans are images, blocked or in bfloat16 as `lies` says of `x` and `out`.
pub fn pool(
    pool: Pool,
    channels: usize,
    window: Window,
    lies: [Layout; 2],
    x: Span,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("pool");
    let output = window.output();
    check.that(output.is_some(), || format!("{window:?} does not fit"))?;
    let [height, width] = output.unwrap_or_default();
    check.that(lies.iter().all(|l| matches!(l, Layout::Blocked | Layout::Halves)), || format!("{lies:?}"))?;
    let floats = |i: usize, pixels| lies[i].floats(channels, pixels).unwrap_or(usize::MAX);
    check.span::<f32>("x", &x, floats(0, window.input[0] * window.input[1]))?;
    check.span::<f32>("out", &out, floats(1, height * width))?;
    check.same_rows("x and out", &x, &out)?;
    let inside = (0..height).all(|at| !window.taps(0, at).is_empty())
        && (0..width).all(|at| !window.taps(1, at).is_empty());
    check.that(inside, || format!("{window:?} has outputs without any input"))?;
    let (blocks, output) = (channels.div_ceil(BLOCK), [height, width]);
    Ok(Box::new(PoolStep { pool, blocks, window, output, pixel: lies.map(Layout::pixel), x, out }))
}

/// The mean of each channel of images of `pixels` pixels, which lie as [`pool`] says: an image of one pixel.
pub fn global_mean(
    channels: usize,
    pixels: usize,
    lies: [Layout; 2],
    x: Span,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    pool(Pool::Mean, channels, whole(pixels)?, lies, x, out)
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
    /// Floats of a pixel of `x` and of `out`.
    pixel: [usize; 2],
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
        dispatch_bf16(ctx.level(), Job { step: self, units, x: ctx.view(&self.x), out: ctx.view(&self.out) });
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
        let PoolStep { pool, window, output, pixel: [pixel, out_pixel], .. } = self.step;
        let (pixel, out_pixel) = (*pixel, *out_pixel);
        let [height, width] = window.input;
        let rows = window.taps(0, y);
        for at in 0..output[1] {
            let columns = window.taps(1, at);
            let count = match pool {
                Pool::PaddedMean => window.kernel[0] * window.kernel[1],
                _ => rows.len() * columns.len(),
            };
            let first = window.source(0, y, rows.start) * width + window.source(1, at, columns.start);
            let from = (plane * height * width + first) * pixel;
            let to = ((plane * output[0] + y) * output[1] + at) * out_pixel;
            let step = window.dilation[1] * pixel;
            for lane in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: the spans hold whole images (checked when the step was made), the taps lie within the
                // input, and this row of outputs is this worker's.
                unsafe {
                    let first = self.x.as_ptr().add(from);
                    let mut value = isa.splat(F::START);
                    for row in 0..rows.len() {
                        let first = first.add(row * window.dilation[0] * width * pixel);
                        value = Vectors { first, step, pixel, lane }.fold::<I, F>(isa, value, columns.len());
                    }
                    let value = F::end(isa, value, count);
                    store(isa, value, self.out.as_mut_ptr().add(to), out_pixel, lane);
                }
            }
        }
    }
}

/// Lanes from `lane` on of pixels that lie `step` floats apart; a pixel's block has `pixel` floats, and is bfloat16 when those
/// are pairs.
#[derive(Clone, Copy)]
struct Vectors {
    first: *const f32,
    step: usize,
    pixel: usize,
    lane: usize,
}

impl Vectors {
    /// Those so many pixels further on.
    #[inline(always)]
    fn after(self, pixels: usize) -> Self {
        Self { first: self.first.wrapping_add(pixels * self.step), ..self }
    }

    /// # Safety
    /// The pixel is there.
    #[inline(always)]
    unsafe fn get<I: Isa>(self, isa: I, pixel: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        unsafe { load(isa, self.after(pixel).first, self.pixel, self.lane) }
    }

    /// Folds so many of them, every fourth of each run of [`RUN`] into one value.
    ///
    /// # Safety
    /// The pixels are there.
    #[inline(always)]
    unsafe fn fold<I: Isa, F: Fold>(self, isa: I, mut value: I::F32, pixels: usize) -> I::F32 {
        let mut pixel = 0;
        while pixel + 4 <= pixels {
            let count = (pixels - pixel).min(RUN) / 4;
            // SAFETY: by the caller's promise.
            value = F::fold(isa, value, unsafe { self.after(pixel).fours::<I, F>(isa, count) });
            pixel += 4 * count;
        }
        for pixel in pixel..pixels {
            // SAFETY: by the caller's promise.
            value = F::fold(isa, value, unsafe { self.get(isa, pixel) });
        }
        value
    }

    /// Folds `4 * count` of them, every fourth into one value.
    ///
    /// # Safety
    /// The pixels are there, and `count` is not zero.
    #[inline(always)]
    unsafe fn fours<I: Isa, F: Fold>(self, isa: I, count: usize) -> I::F32 {
        // SAFETY: by the caller's promise.
        let (mut a, mut b, mut c, mut d) =
            unsafe { (self.get(isa, 0), self.get(isa, 1), self.get(isa, 2), self.get(isa, 3)) };
        for i in 1..count {
            // SAFETY: by the caller's promise.
            unsafe {
                a = F::fold(isa, a, self.get(isa, 4 * i));
                b = F::fold(isa, b, self.get(isa, 4 * i + 1));
                c = F::fold(isa, c, self.get(isa, 4 * i + 2));
                d = F::fold(isa, d, self.get(isa, 4 * i + 3));
            }
        }
        F::fold(isa, F::fold(isa, a, b), F::fold(isa, c, d))
    }
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
    use crate::nd::testing::{Case, HALF_ERROR, Map, random, rounded};
    use kinglet_simd::Level;

    fn check(kind: Pool, channels: usize, window: Window, images: usize) {
        let ([h, w], [oh, ow]) = (window.input, window.output().expect("fits"));
        // Values that bfloat16 holds.
        let x = rounded(&random(1, images * channels * h * w));
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
        let lies = [Layout::Blocked, Layout::Halves];
        let lies = lies.into_iter().flat_map(|x| lies.map(|out| [x, out]));
        for (level, lies) in
            Level::available().into_iter().flat_map(|level| lies.clone().map(move |l| (level, l)))
        {
            let mut case = Case::new(level);
            let map = |i: usize, pixels| Map { images, channels, pixels, layout: lies[i] };
            let (x, out) = (case.input(map(0, h * w), &x), case.output(map(1, oh * ow)));
            let step = || pool(kind, channels, window, lies, x, out).expect("binds");
            let bound = if lies[1] == Layout::Halves { HALF_ERROR } else { 1e-6 };
            case.check(step, out, map(1, oh * ow), &expected, bound);
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
        let lies = [Layout::Blocked; 2];
        let make = |window, outs: usize| pool(Pool::Max, 16, window, lies, span(0, 64), span(4096, outs));
        assert!(
            pool(
                Pool::Max,
                16,
                Window::square([2, 2], 2, 1, 0),
                [Layout::Rows; 2],
                span(0, 64),
                span(4096, 16)
            )
            .is_err()
        );
        assert!(make(Window::square([2, 2], 2, 1, 0), 16).is_ok());
        assert!(make(Window::square([2, 2], 2, 1, 0), 32).is_err());
        assert!(make(Window::square([2, 2], 2, 1, 3), 16 * 49).is_err());
        assert!(make(Window::square([2, 2], 9, 1, 0), 16).is_err());
    }
}
