//! Images made of blocked ones, value by value: channels of several behind one another, pixels repeated, and channels that
//! become pixels.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::layout::{BLOCK, Layout};
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Puts the channels of several images of `pixels` pixels behind one another: `parts` are channels and spans. Rows of the
/// spans are blocked images.
pub fn concat(parts: Vec<(usize, Span)>, pixels: usize, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("concat");
    let floats = |channels| Layout::Blocked.floats(channels, pixels).unwrap_or(usize::MAX);
    let mut runs = Vec::new();
    let mut all: usize = 0;
    for (part, (channels, span)) in parts.iter().enumerate() {
        check.span::<f32>("part", span, floats(*channels))?;
        check.same_rows("part and out", span, &out)?;
        let mut from = 0;
        while from < *channels {
            let to = all + from;
            let count = (BLOCK - from % BLOCK).min(BLOCK - to % BLOCK).min(channels - from);
            runs.push(Run { part, from, to, count });
            from += count;
        }
        all = all.saturating_add(*channels);
    }
    check.that(all > 0 && pixels > 0, || "nothing to join".into())?;
    check.span::<f32>("out", &out, floats(all))?;
    let spans = parts.into_iter().map(|(_, span)| span).collect();
    Ok(Box::new(Concat { spans, runs, pixels, blocks: all.div_ceil(BLOCK), out }))
}

/// Neighbouring channels that lie in one block on both sides.
#[derive(Clone, Copy)]
struct Run {
    part: usize,
    from: usize,
    to: usize,
    count: usize,
}

struct Concat {
    spans: Vec<Span>,
    /// By where they go.
    runs: Vec<Run>,
    pixels: usize,
    blocks: usize,
    out: Span,
}

/// Pixels of a unit of work.
const STRIP: usize = 256;

// SAFETY: touches its spans; each unit, some pixels of a block of `out`, is made by one worker.
unsafe impl Step for Concat {
    fn label(&self) -> String {
        format!("concat {} images", self.spans.len())
    }

    fn spans(&self) -> Vec<Access> {
        self.spans.iter().map(|span| Access::Read(*span)).chain([Access::Write(self.out)]).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.out.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let strips = self.pixels.div_ceil(STRIP);
        let out = ctx.view(&self.out);
        for unit in worker.share(ctx.rows(self.out.rows) * self.blocks * strips, 1) {
            let (image, block, strip) =
                (unit / strips / self.blocks, unit / strips % self.blocks, unit % strips);
            let pixels = strip * STRIP..self.pixels.min((strip + 1) * STRIP);
            for run in self.runs.iter().filter(|run| run.to / BLOCK == block) {
                let (span, at) = (&self.spans[run.part], |channel| channel % BLOCK);
                let plane = |channel: usize| channel / BLOCK * self.pixels * BLOCK;
                let move_run = MoveRun {
                    x: ctx.view(span),
                    from: image * span.cols + plane(run.from) + at(run.from),
                    out,
                    to: image * self.out.cols + plane(run.to) + at(run.to),
                    count: run.count,
                    pixels: pixels.clone(),
                };
                dispatch(ctx.level(), move_run);
            }
        }
    }
}

/// Some channels of some pixels.
struct MoveRun<'a> {
    x: SharedMut<'a, f32>,
    from: usize,
    out: SharedMut<'a, f32>,
    to: usize,
    count: usize,
    pixels: Range<usize>,
}

impl Kernel for MoveRun<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let end = (self.pixels.end - 1) * BLOCK + self.count;
        assert!(self.from + end <= self.x.len() && self.to + end <= self.out.len(), "images of these sizes");
        for pixel in self.pixels {
            for lane in (0..self.count).step_by(I::LANES) {
                let count = I::LANES.min(self.count - lane);
                // SAFETY: within both views, as asserted; this unit's outputs are this worker's.
                unsafe {
                    let x = self.x.as_ptr().add(self.from + pixel * BLOCK + lane);
                    let out = self.out.as_mut_ptr().add(self.to + pixel * BLOCK + lane);
                    isa.store_part_ptr(isa.load_part_ptr(x, count), out, count);
                }
            }
        }
    }
}

/// Repeats each pixel of images of `size` (height, width) `factors` times down and across. Rows of the spans are blocked
/// images of `channels` channels.
pub fn enlarge(
    channels: usize,
    size: [usize; 2],
    factors: [usize; 2],
    x: Span,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("enlarge");
    let floats = |pixels| Layout::Blocked.floats(channels, pixels).unwrap_or(usize::MAX);
    let pixels = size[0].saturating_mul(size[1]);
    let larger = pixels.saturating_mul(factors[0]).saturating_mul(factors[1]);
    check.that(channels > 0 && larger > 0, || format!("{channels} channels, {size:?} by {factors:?}"))?;
    check.span::<f32>("x", &x, floats(pixels))?;
    check.span::<f32>("out", &out, floats(larger))?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Enlarge { blocks: channels.div_ceil(BLOCK), size, factors, x, out }))
}

struct Enlarge {
    blocks: usize,
    size: [usize; 2],
    factors: [usize; 2],
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each unit, the copies of a row of a block, is made by one worker.
unsafe impl Step for Enlarge {
    fn label(&self) -> String {
        format!("enlarge {}x{}", self.factors[0], self.factors[1])
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.out.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let units = worker.share(ctx.rows(self.x.rows) * self.blocks * self.size[0], 1);
        dispatch(ctx.level(), Copies { step: self, units, x: ctx.view(&self.x), out: ctx.view(&self.out) });
    }
}

struct Copies<'a> {
    step: &'a Enlarge,
    /// Rows of input, through all blocks of all images.
    units: Range<usize>,
    x: SharedMut<'a, f32>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Copies<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Enlarge { size: [_, width], factors: [down, across], .. } = *self.step;
        for row in self.units {
            for at in 0..width {
                for lane in (0..BLOCK).step_by(I::LANES) {
                    // SAFETY: the spans hold whole images (checked when the step was made), and the copies of this row
                    // are this worker's.
                    unsafe {
                        let value = isa.load_ptr(self.x.as_ptr().add((row * width + at) * BLOCK + lane));
                        for copy in 0..down * across {
                            let line = row * down + copy / across;
                            let pixel = (line * width + at) * across + copy % across;
                            isa.store_ptr(value, self.out.as_mut_ptr().add(pixel * BLOCK + lane));
                        }
                    }
                }
            }
        }
    }
}

/// Makes planar images of `size` (height, width) times `factors` out of blocked ones, whose channels are
/// `[outputs][down][across]`: each pixel becomes a rectangle. Rows of the spans are images.
pub fn unfold(
    outputs: usize,
    size: [usize; 2],
    factors: [usize; 2],
    x: Span,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("unfold");
    let times = |product: Option<usize>, n: &usize| product?.checked_mul(*n);
    let channels = factors.iter().fold(Some(outputs), times);
    let larger = size.iter().fold(channels, times);
    check.that(larger.is_some_and(|n| n > 0), || format!("{outputs} outputs, {size:?} by {factors:?}"))?;
    let blocked = Layout::Blocked.floats(channels.unwrap_or(usize::MAX), size[0].saturating_mul(size[1]));
    check.span::<f32>("x", &x, blocked.unwrap_or(usize::MAX))?;
    check.span::<f32>("out", &out, larger.unwrap_or(usize::MAX))?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Unfold { outputs, size, factors, x, out }))
}

struct Unfold {
    outputs: usize,
    size: [usize; 2],
    factors: [usize; 2],
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each unit, a row of an output, is made by one worker.
unsafe impl Step for Unfold {
    fn label(&self) -> String {
        format!("unfold {}x{}", self.factors[0], self.factors[1])
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.out.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<f32>(&self.out));
        let ([height, width], [down, across]) = (self.size, self.factors);
        let (high, wide) = (height * down, width * across);
        assert!(ctx.rows(self.x.rows) * self.x.cols <= x.len(), "images of this size");
        for unit in worker.share(ctx.rows(self.x.rows) * self.outputs * high, 1) {
            let (image, output, y) = (unit / high / self.outputs, unit / high % self.outputs, unit % high);
            // SAFETY: this row of the output lies within its image, and is this worker's.
            let row = unsafe { out.part_mut(unit * wide..(unit + 1) * wide) };
            for dx in 0..across {
                let channel = (output * down + y % down) * across + dx;
                let from = Layout::Blocked.index(0, height * width, channel, y / down * width);
                for (at, value) in row.iter_mut().skip(dx).step_by(across).enumerate() {
                    // SAFETY: the span holds the channels of every pixel (checked when the step was made).
                    *value = unsafe { *x.as_ptr().add(image * self.x.cols + from + at * BLOCK) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, Map, random};
    use kinglet_simd::Level;

    fn exact(values: Vec<f32>) -> Vec<f64> {
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    fn channels_lie_behind_one_another() {
        for (channels, pixels, images) in
            [(&[24, 24][..], 300, 1), (&[16, 32, 16], 9, 2), (&[1, 5, 40, 3], 17, 2), (&[7], 1, 1)]
        {
            let map = |channels| Map { images, channels, pixels, layout: Layout::Blocked };
            let all: usize = channels.iter().sum();
            let inputs: Vec<Vec<f32>> =
                channels.iter().enumerate().map(|(i, c)| random(i as u64 + 1, images * c * pixels)).collect();
            let mut expected = Vec::new();
            for image in 0..images {
                for (x, c) in inputs.iter().zip(channels) {
                    expected.extend_from_slice(&x[image * c * pixels..][..c * pixels]);
                }
            }
            for level in Level::available() {
                let mut case = Case::new(level);
                let parts: Vec<_> =
                    inputs.iter().zip(channels).map(|(x, c)| (*c, case.input(map(*c), x))).collect();
                let out = case.output(map(all));
                let step = || concat(parts.clone(), pixels, out).expect("binds");
                case.check(step, out, map(all), &exact(expected.clone()), 0.0);
            }
        }
    }

    #[test]
    fn pixels_are_repeated() {
        for (channels, [h, w], [down, across], images) in
            [(24, [5, 40], [2, 2], 1), (16, [3, 2], [1, 3], 2), (40, [20, 20], [8, 8], 1)]
        {
            let map = |pixels| Map { images, channels, pixels, layout: Layout::Blocked };
            let x = random(1, images * channels * h * w);
            let wide = w * across;
            let value = |at: usize| {
                let (plane, y, x_at) = (at / wide / (h * down), at / wide % (h * down), at % wide);
                x[(plane * h + y / down) * w + x_at / across]
            };
            let expected: Vec<f32> = (0..images * channels * h * down * wide).map(value).collect();
            for level in Level::available() {
                let mut case = Case::new(level);
                let (x, out) = (case.input(map(h * w), &x), case.output(map(h * w * down * across)));
                let step = || enlarge(channels, [h, w], [down, across], x, out).expect("binds");
                case.check(step, out, map(h * w * down * across), &exact(expected.clone()), 0.0);
            }
        }
    }

    #[test]
    fn channels_become_pixels() {
        for (outputs, [h, w], [down, across], images) in
            [(1, [5, 40], [2, 2], 2), (3, [3, 2], [1, 3], 2), (5, [4, 4], [4, 2], 1)]
        {
            let channels = outputs * down * across;
            let x = random(1, images * channels * h * w);
            let (high, wide) = (h * down, w * across);
            let value = |at: usize| {
                let (plane, y, x_at) = (at / wide / high, at / wide % high, at % wide);
                let channel = (plane * down + y % down) * across + x_at % across;
                x[(channel * h + y / down) * w + x_at / across]
            };
            let expected: Vec<f32> = (0..images * outputs * high * wide).map(value).collect();
            let planar = Map { images, channels: outputs, pixels: high * wide, layout: Layout::Planar };
            for level in Level::available() {
                let mut case = Case::new(level);
                let map = Map { images, channels, pixels: h * w, layout: Layout::Blocked };
                let (x, out) = (case.input(map, &x), case.output(planar));
                let step = || unfold(outputs, [h, w], [down, across], x, out).expect("binds");
                case.check(step, out, planar, &exact(expected.clone()), 0.0);
            }
        }
    }

    #[test]
    fn spans_must_fit() {
        let span = |at, rows, cols| Span::f32(at, crate::Rows::Fixed(rows), cols);
        assert!(concat(vec![(8, span(0, 1, 64)), (8, span(256, 1, 64))], 4, span(512, 1, 64)).is_ok());
        assert!(concat(vec![(8, span(0, 1, 64)), (9, span(256, 1, 64))], 4, span(512, 1, 64)).is_err());
        assert!(concat(vec![], 4, span(512, 1, 64)).is_err());
        assert!(enlarge(16, [2, 2], [2, 2], span(0, 1, 64), span(256, 1, 256)).is_ok());
        assert!(enlarge(16, [2, 2], [2, 2], span(0, 1, 64), span(256, 1, 255)).is_err());
        assert!(enlarge(16, [2, 2], [0, 2], span(0, 1, 64), span(256, 1, 256)).is_err());
        assert!(enlarge(16, [usize::MAX, 2], [2, 2], span(0, 1, 64), span(256, 1, 256)).is_err());
    }
}
