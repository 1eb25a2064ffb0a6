//! Pooling of blocked images of codes: the largest code under a window, or the mean, as a code.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::ending::Recode;
use super::join::Scale;
use crate::arena::Span;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pool::Pool;
use crate::nd::shape::Window;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Pools images of `channels` channels; rows of the spans are blocked images. The mean of codes `from` becomes one of `scale`
/// and `to`; the largest one stays as it is.
pub fn pool_codes(
    pool: Pool,
    channels: usize,
    window: Window,
    from: Scale,
    (scale, to): (f32, Recode),
    [x, out]: [Span; 2],
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("pool of codes");
    let output = window.output();
    check.that(output.is_some(), || format!("{window:?} does not fit"))?;
    let [height, width] = output.unwrap_or_default();
    let codes = |pixels| Layout::Blocked.floats(channels, pixels).unwrap_or(usize::MAX);
    check.span::<u8>("x", &x, codes(window.input[0] * window.input[1]))?;
    check.span::<u8>("out", &out, codes(height * width))?;
    check.same_rows("x and out", &x, &out)?;
    let inside = (0..height).all(|at| !window.taps(0, at).is_empty())
        && (0..width).all(|at| !window.taps(1, at).is_empty());
    check.that(inside, || format!("{window:?} has outputs without any input"))?;
    let few = window.kernel[0].saturating_mul(window.kernel[1]) < 1 << 23;
    check.that(few, || format!("{window:?} has too many taps"))?;
    let blocks = channels.div_ceil(BLOCK);
    Ok(Box::new(PoolStep { pool, blocks, window, output: [height, width], from, scale, to, x, out }))
}

/// The mean of each channel of blocked images of `pixels` pixels: images of one pixel.
pub fn mean_codes(
    channels: usize,
    pixels: usize,
    from: Scale,
    to: (f32, Recode),
    spans: [Span; 2],
) -> Result<Box<dyn Step>, StepError> {
    let window = Window { kernel: [1, pixels], ..Window::square([1, pixels], 1, 1, 0) };
    pool_codes(Pool::Mean, channels, window, from, to, spans)
}

struct PoolStep {
    pool: Pool,
    blocks: usize,
    window: Window,
    output: [usize; 2],
    from: Scale,
    scale: f32,
    to: Recode,
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each unit, a row of a block, is made by one worker.
unsafe impl Step for PoolStep {
    fn label(&self) -> String {
        let [ky, kx] = self.window.kernel;
        format!("pool {:?} {ky}x{kx} u8", self.pool).to_lowercase()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 8192)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let units = worker.share(ctx.rows(self.x.rows) * self.blocks * self.output[0], 1);
        dispatch(ctx.level(), Job { step: self, units, x: ctx.view(&self.x), out: ctx.view(&self.out) });
    }
}

struct Job<'a> {
    step: &'a PoolStep,
    units: Range<usize>,
    x: SharedMut<'a, u8>,
    out: SharedMut<'a, u8>,
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for unit in self.units.clone() {
            self.row(isa, unit / self.step.output[0], unit % self.step.output[0]);
        }
    }
}

impl Job<'_> {
    /// A row of outputs of a plane: a block of channels of an image.
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, plane: usize, y: usize) {
        let PoolStep { window, output, .. } = self.step;
        let [height, width] = window.input;
        let rows = window.taps(0, y);
        for at in 0..output[1] {
            let columns = window.taps(1, at);
            let first = window.source(0, y, rows.start) * width + window.source(1, at, columns.start);
            let from = (plane * height * width + first) * BLOCK;
            let to = ((plane * output[0] + y) * output[1] + at) * BLOCK;
            for lane in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: the spans hold whole images (checked when the step was made), the taps lie within the input,
                // and this row of outputs is this worker's.
                unsafe {
                    let code = self.code(isa, self.x.as_ptr().add(from + lane), [rows.len(), columns.len()]);
                    isa.store_u8_ptr(code, self.out.as_mut_ptr().add(to + lane));
                }
            }
        }
    }

    /// The codes of a window with so many taps.
    ///
    /// # Safety
    /// All of them are valid for reading.
    #[inline(always)]
    unsafe fn code<I: Isa>(&self, isa: I, x: *const u8, taps: [usize; 2]) -> I::I32 {
        let PoolStep { pool, window, from, scale, to, .. } = self.step;
        let step = [window.dilation[0] * window.input[1] * BLOCK, window.dilation[1] * BLOCK];
        let (mut largest, mut sum) = (isa.splat_i32(0), isa.splat_i32(0));
        for (row, column) in (0..taps[0]).flat_map(|row| (0..taps[1]).map(move |column| (row, column))) {
            // SAFETY: by the caller's promise.
            let code = unsafe { isa.load_u8_ptr(x.add(row * step[0] + column * step[1])) };
            largest = isa.max_i32(largest, code);
            sum = isa.add_i32(sum, code);
        }
        let count = match pool {
            Pool::Max => return largest,
            Pool::Mean => taps[0] * taps[1],
            Pool::PaddedMean => window.kernel[0] * window.kernel[1],
        };
        let zeros = isa.splat_i32((taps[0] * taps[1]) as i32 * i32::from(from.zero));
        let total = isa.mul(isa.to_f32(isa.sub_i32(sum, zeros)), isa.splat(from.scale));
        let mean = isa.div(total, isa.splat(count as f32));
        to.code(isa, isa.div(mean, isa.splat(*scale)))
    }
}
