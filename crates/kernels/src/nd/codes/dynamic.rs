//! Numbers to codes whose scale and zero their own range decides: the nearest of 256 steps from the least to the greatest
//! number, zero included.
//!
//! Codes lie in channel blocks, as products read them fastest. Scales and zeros are pairs of floats, `(scale, zero)`.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::ending::Recode;
use crate::arena::Span;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::strided::fixed;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Numbers as kernels have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Images, or one for all rows of a matrix.
    pub images: usize,
    /// Channels, or columns.
    pub channels: usize,
    /// Pixels of an image, or rows.
    pub pixels: usize,
    /// How they lie: in rows, or in blocks, as their codes do.
    pub layout: Layout,
}

impl Numbers {
    fn elements(&self, layout: Layout) -> usize {
        layout.floats(self.channels, self.pixels).unwrap_or(usize::MAX)
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Pixels of all blocks: what the work is cut into.
    fn runs(&self) -> usize {
        if self.layout == Layout::Rows { self.pixels } else { self.blocks() * self.pixels }
    }

    /// Strips that an image's runs are cut into.
    fn strips(&self) -> usize {
        let each = if self.layout == Layout::Rows { self.channels } else { BLOCK };
        self.runs().div_ceil((STRIP / each.max(1)).max(1)).clamp(1, MOST)
    }

    fn strip(&self, at: usize) -> Range<usize> {
        let (runs, strips) = (self.runs(), self.strips());
        runs * at / strips..runs * (at + 1) / strips
    }

    fn check(&self, check: Check, x: &Span, out: Option<&Span>) -> Result<(), StepError> {
        let laid = matches!(self.layout, Layout::Rows | Layout::Blocked) && self.channels > 0;
        check.that(laid && self.pixels > 0, || format!("{self:?}"))?;
        check.span::<f32>("x", x, self.elements(self.layout))?;
        check.that(x.rows.count(&[]) == Some(self.images), || format!("{x:?} for {self:?}"))?;
        let Some(out) = out else { return Ok(()) };
        check.span::<u8>("out", out, self.elements(Layout::Blocked))?;
        check.same_rows("x and out", x, out)
    }
}

/// Numbers of a strip, about.
const STRIP: usize = 4096;
/// Strips of an image at most.
const MOST: usize = 256;

/// Floats that [`ranges`] leaves for these numbers.
pub fn range_floats(numbers: &Numbers) -> usize {
    2 * numbers.images * numbers.strips()
}

/// The least and the greatest number of each strip of `x`, zero included, for [`round_by`].
pub fn ranges(numbers: Numbers, x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("ranges");
    numbers.check(check, &x, None)?;
    check.span::<f32>("out", &out, out.cols)?;
    let enough = fixed(&out).is_some_and(|floats| floats >= range_floats(&numbers));
    check.that(enough, || format!("{out:?} for {numbers:?}"))?;
    Ok(Box::new(Ranges { numbers, x, out }))
}

struct Ranges {
    numbers: Numbers,
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each strip's pair is one worker's.
unsafe impl Step for Ranges {
    fn label(&self) -> String {
        "ranges".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 2 * STRIP)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let numbers = self.numbers;
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<f32>(&self.out));
        let each = numbers.elements(numbers.layout);
        for unit in worker.share(numbers.images * numbers.strips(), 1) {
            let (image, strip) = (unit / numbers.strips(), unit % numbers.strips());
            // SAFETY: `x` is only read, and the pair is this worker's.
            unsafe {
                let x = x.part(image * each..(image + 1) * each);
                let found = dispatch(ctx.level(), RangeOf { numbers, x, strip: numbers.strip(strip) });
                out.part_mut(2 * unit..2 * unit + 2).copy_from_slice(&found);
            }
        }
    }
}

/// The range of a strip of an image.
struct RangeOf<'a> {
    numbers: Numbers,
    x: &'a [f32],
    strip: Range<usize>,
}

impl Kernel for RangeOf<'_> {
    type Out = [f32; 2];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; 2] {
        let Numbers { channels, pixels, layout, .. } = self.numbers;
        let (mut least, mut most) = (isa.splat(0.0), isa.splat(0.0));
        let Range { start, end } = self.strip;
        if layout == Layout::Rows {
            widen(isa, &self.x[start * channels..end * channels], &mut least, &mut most);
        } else {
            // What lies behind the last channel is none of the numbers.
            let whole = (channels / BLOCK * pixels).clamp(start, end);
            widen(isa, &self.x[start * BLOCK..whole * BLOCK], &mut least, &mut most);
            for run in self.x[whole * BLOCK..end * BLOCK].chunks_exact(BLOCK) {
                widen(isa, &run[..channels % BLOCK], &mut least, &mut most);
            }
        }
        [-isa.reduce_max(isa.sub(isa.splat(0.0), least)), isa.reduce_max(most)]
    }
}

/// Widens a range by numbers; what is none counts as zero.
#[inline(always)]
fn widen<I: Isa>(isa: I, x: &[f32], least: &mut I::F32, most: &mut I::F32) {
    for part in x.chunks(I::LANES) {
        let x = isa.load_part(part);
        *least = isa.min(x, *least);
        *most = isa.max(x, *most);
    }
}

/// What has a scale of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Each row, whose range is found at once.
    Row,
    /// Each image, or all images: the ranges of their strips.
    Strips(Span, bool),
}

/// The codes of each row, with scale and zero of each in `scales`. Numbers lie in rows.
pub fn round_rows(numbers: Numbers, x: Span, out: Span, scales: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("round rows");
    check.that(numbers.layout == Layout::Rows, || format!("{numbers:?}"))?;
    round(check, numbers, By::Row, [x, out, scales], numbers.images * numbers.pixels)
}

/// The codes of each image, or of all with one scale, by the ranges of their strips; scale and zero of each in `scales`.
pub fn round_by(
    numbers: Numbers,
    ranges: Span,
    each: bool,
    [x, out, scales]: [Span; 3],
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("round by ranges");
    check.span::<f32>("ranges", &ranges, ranges.cols)?;
    let enough = fixed(&ranges).is_some_and(|floats| floats >= range_floats(&numbers));
    check.that(enough, || format!("{ranges:?} for {numbers:?}"))?;
    let pairs = if each { numbers.images } else { 1 };
    round(check, numbers, By::Strips(ranges, each), [x, out, scales], pairs)
}

fn round(
    check: Check,
    numbers: Numbers,
    by: By,
    [x, out, scales]: [Span; 3],
    pairs: usize,
) -> Result<Box<dyn Step>, StepError> {
    numbers.check(check, &x, Some(&out))?;
    check.span::<f32>("scales", &scales, scales.cols)?;
    let enough = fixed(&scales).is_some_and(|floats| floats / 2 >= pairs);
    check.that(enough, || format!("{scales:?} for {pairs} pairs"))?;
    Ok(Box::new(Round { numbers, by, x, out, scales }))
}

struct Round {
    numbers: Numbers,
    by: By,
    x: Span,
    out: Span,
    scales: Span,
}

// SAFETY: touches its spans; each strip, with its rows' scales, is one worker's, and the first strip's one writes what is
// one image's or all images'.
unsafe impl Step for Round {
    fn label(&self) -> String {
        match self.by {
            By::Row => "round rows to u8",
            By::Strips(..) => "round to u8",
        }
        .into()
    }

    fn spans(&self) -> Vec<Access> {
        let ranges = if let By::Strips(ranges, _) = self.by { Some(Access::Read(ranges)) } else { None };
        let spans = [Access::Read(self.x), Access::Write(self.out), Access::Write(self.scales)];
        spans.into_iter().chain(ranges).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 2 * STRIP)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let numbers = self.numbers;
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<u8>(&self.out));
        let scales = ctx.view::<f32>(&self.scales);
        let each = numbers.elements(numbers.layout);
        for unit in worker.share(numbers.images * numbers.strips(), 1) {
            let (image, strip) = (unit / numbers.strips(), unit % numbers.strips());
            let pair = match self.by {
                By::Row => None,
                By::Strips(ranges, own) => {
                    let strips = if own {
                        image * numbers.strips()..(image + 1) * numbers.strips()
                    } else {
                        0..numbers.images * numbers.strips()
                    };
                    let ranges = ctx.view::<f32>(&ranges);
                    // SAFETY: ranges are only read; the first strip's worker is the only one to write the pair.
                    unsafe {
                        let pair = pair_of(ranges.part(2 * strips.start..2 * strips.end));
                        if strip == 0 && (own || image == 0) {
                            let at = if own { image } else { 0 };
                            scales.part_mut(2 * at..2 * at + 2).copy_from_slice(&pair);
                        }
                        Some(pair)
                    }
                }
            };
            // SAFETY: `x` is only read.
            let x = unsafe { x.part(image * each..(image + 1) * each) };
            dispatch(
                ctx.level(),
                Strip { numbers, image, x, pair, strip: numbers.strip(strip), out, scales },
            );
        }
    }
}

/// Scale and zero for the range that strips have together.
fn pair_of(ranges: &[f32]) -> [f32; 2] {
    let bounds =
        ranges.chunks_exact(2).fold([0.0f32; 2], |all, range| [all[0].min(range[0]), all[1].max(range[1])]);
    pair(bounds)
}

/// Scale and zero for a range with zero in it.
#[inline(always)]
fn pair([least, most]: [f32; 2]) -> [f32; 2] {
    let scale = (most - least) / 255.0;
    // What is no number, or too small to be divided by, has a scale all the same.
    let scale = if scale > 0.0 { scale } else { 1.0 };
    [scale, (-least / scale).clamp(0.0, 255.0).round_ties_even()]
}

/// A strip of an image to codes.
struct Strip<'a> {
    numbers: Numbers,
    image: usize,
    x: &'a [f32],
    /// Scale and zero; none for rows, which have their own.
    pair: Option<[f32; 2]>,
    strip: Range<usize>,
    out: SharedMut<'a, u8>,
    scales: SharedMut<'a, f32>,
}

impl Kernel for Strip<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Numbers { channels, pixels, layout, .. } = self.numbers;
        let first = self.image * self.numbers.elements(Layout::Blocked);
        for run in self.strip.clone() {
            if layout == Layout::Blocked {
                let x = &self.x[run * BLOCK..(run + 1) * BLOCK];
                // SAFETY: the run's codes are this worker's.
                unsafe { self.codes(isa, x, self.pair.unwrap_or([1.0, 0.0]), first + run * BLOCK) };
                continue;
            }
            let row = &self.x[run * channels..(run + 1) * channels];
            let pair = self.pair.unwrap_or_else(|| {
                let (mut least, mut most) = (isa.splat(0.0), isa.splat(0.0));
                widen(isa, row, &mut least, &mut most);
                pair([-isa.reduce_max(isa.sub(isa.splat(0.0), least)), isa.reduce_max(most)])
            });
            for (block, x) in row.chunks(BLOCK).enumerate() {
                // SAFETY: the row's codes, and its scale, are this worker's.
                unsafe { self.codes(isa, x, pair, first + (block * pixels + run) * BLOCK) };
            }
            if self.pair.is_none() {
                let at = 2 * (self.image * pixels + run);
                // SAFETY: as above.
                unsafe { self.scales.part_mut(at..at + 2).copy_from_slice(&pair) };
            }
        }
    }
}

impl Strip<'_> {
    /// Stores the codes of at most sixteen numbers at a place.
    ///
    /// # Safety
    /// Sixteen codes from there on are this worker's.
    #[inline(always)]
    unsafe fn codes<I: Isa>(&self, isa: I, x: &[f32], [scale, zero]: [f32; 2], at: usize) {
        let (scale, to) = (isa.splat(scale), Recode::new(zero as u8, f32::NEG_INFINITY, f32::INFINITY));
        for (i, part) in x.chunks(I::LANES).enumerate() {
            let code = to.code(isa, isa.div(isa.load_part(part), scale));
            // SAFETY: by the caller's promise.
            unsafe { isa.store_u8_ptr(code, self.out.as_mut_ptr().wrapping_add(at + i * I::LANES)) };
        }
    }
}

#[cfg(test)]
mod tests;
