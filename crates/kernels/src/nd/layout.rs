//! How feature maps lie in memory, and steps that carry them from one layout to another.
//!
//! An image of `channels` by `pixels` is
//! - [`Layout::Planar`]: `[channels][pixels]`, what files and most graphs mean;
//! - [`Layout::Blocked`]: `[channels / 16][pixels][16]`, what convolutions work in; what stands in lanes
//!   behind the last channel is unspecified and never mixed with others;
//! - [`Layout::Halves`]: the same in bfloat16, two neighbouring channels in the place of a float, the first one in its low
//!   half;
//! - [`Layout::Rows`]: `[pixels][channels]`, tokens.

use std::marker::PhantomData;
use std::ops::Range;

use super::pairs::{Carry, PAIRS};
use crate::arena::{Elem, Element, Span};
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Channels of a block.
pub const BLOCK: usize = 16;

/// An order of an image's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "said at the top of the file")]
pub enum Layout {
    Planar,
    Blocked,
    Halves,
    Rows,
}

impl Layout {
    /// Floats of an image.
    pub fn floats(self, channels: usize, pixels: usize) -> Option<usize> {
        match self {
            Self::Blocked => channels.checked_next_multiple_of(BLOCK)?.checked_mul(pixels),
            Self::Halves => channels.div_ceil(BLOCK).checked_mul(PAIRS)?.checked_mul(pixels),
            Self::Planar | Self::Rows => channels.checked_mul(pixels),
        }
    }

    /// Floats from a pixel of a channel, or of a block of them, to the next.
    pub(super) fn pixel(self) -> usize {
        match self {
            Self::Blocked => BLOCK,
            Self::Halves => PAIRS,
            Self::Planar | Self::Rows => 1,
        }
    }

    /// Where value `(channel, pixel)` lies, in values.
    pub fn index(self, channels: usize, pixels: usize, channel: usize, pixel: usize) -> usize {
        match self {
            Self::Planar => channel * pixels + pixel,
            Self::Blocked | Self::Halves => (channel / BLOCK * pixels + pixel) * BLOCK + channel % BLOCK,
            Self::Rows => pixel * channels + channel,
        }
    }
}

/// Copies images of `channels` by `pixels`, floats or codes, from layout `from` into layout `to`; rows of the spans are images.
/// Floats in blocks become bfloat16 and back; other layouts do not meet [`Layout::Halves`].
pub fn relayout(
    x: Span,
    out: Span,
    channels: usize,
    pixels: usize,
    from: Layout,
    to: Layout,
) -> Result<Box<dyn Step>, StepError> {
    let (check, bytes) = (Check("relayout"), x.elem == Elem::U8);
    for (what, span, layout) in [("x", &x, from), ("out", &out, to)] {
        let elements = layout.floats(channels, pixels).unwrap_or(usize::MAX);
        if bytes {
            check.span::<u8>(what, span, elements)?;
        } else {
            check.span::<f32>(what, span, elements)?;
        }
    }
    check.same_rows("x and out", &x, &out)?;
    check.that(from != to, || "both layouts are the same".into())?;
    if from == Layout::Halves || to == Layout::Halves {
        let floats = !bytes && (from == Layout::Blocked || to == Layout::Blocked);
        check.that(floats, || format!("{from:?} to {to:?}"))?;
        return Ok(Box::new(Rounding { x, out, from, to, pixels: channels.div_ceil(BLOCK) * pixels }));
    }
    Ok(if bytes {
        Box::new(Relayout::<u8> { x, out, channels, pixels, from, to, elements: PhantomData })
    } else {
        Box::new(Relayout::<f32> { x, out, channels, pixels, from, to, elements: PhantomData })
    })
}

struct Relayout<T> {
    x: Span,
    out: Span,
    channels: usize,
    pixels: usize,
    from: Layout,
    to: Layout,
    elements: PhantomData<T>,
}

/// Pixels that a worker carries at a time.
const STRIP: usize = 64;

/// Rounds blocked images to bfloat16, or makes them floats again.
struct Rounding {
    x: Span,
    out: Span,
    from: Layout,
    to: Layout,
    /// Of an image, in all its blocks.
    pixels: usize,
}

// SAFETY: touches its two spans; each unit, some pixels, is carried by one worker.
unsafe impl Step for Rounding {
    fn label(&self) -> String {
        format!("relayout {:?} to {:?}", self.from, self.to).to_lowercase()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<f32>(&self.out));
        let (images, strips) = (ctx.rows(self.x.rows), self.pixels.div_ceil(STRIP));
        assert!(images * self.x.cols <= x.len() && images * self.out.cols <= out.len(), "whole images");
        for unit in worker.share(images * strips, 1) {
            let (image, first) = (unit / strips, unit % strips * STRIP);
            let at = |span: &Span, layout: Layout| image * span.cols + first * layout.pixel();
            // SAFETY: the spans hold whole images (checked when the step was made); this strip is this worker's.
            unsafe {
                let (from, to) =
                    (x.as_ptr().add(at(&self.x, self.from)), out.as_mut_ptr().add(at(&self.out, self.to)));
                let carry = Carry { from, lies: self.from, to, becomes: self.to };
                carry.run(ctx.level(), STRIP.min(self.pixels - first));
            }
        }
    }
}

// SAFETY: touches its two spans; each unit, a strip of a block of channels, is carried by one worker.
unsafe impl<T: Element> Step for Relayout<T> {
    fn label(&self) -> String {
        format!("relayout {:?} to {:?}", self.from, self.to).to_lowercase()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<T>(&self.x), ctx.view::<T>(&self.out));
        let (blocks, strips) = (self.channels.div_ceil(BLOCK), self.pixels.div_ceil(STRIP));
        for unit in worker.share(ctx.rows(self.x.rows) * blocks * strips, 1) {
            let (image, block, strip) = (unit / strips / blocks, unit / strips % blocks, unit % strips);
            let pixels = strip * STRIP..self.pixels.min((strip + 1) * STRIP);
            // SAFETY: images and strips lie within the spans.
            unsafe { self.carry(x, image * self.x.cols, out, image * self.out.cols, block, pixels) };
        }
    }
}

impl<T: Element> Relayout<T> {
    /// Carries a strip of a block.
    ///
    /// # Safety
    /// Both views hold an image from their offset on, and the strip of `out` is this worker's.
    unsafe fn carry(
        &self,
        x: SharedMut<'_, T>,
        x_at: usize,
        out: SharedMut<'_, T>,
        out_at: usize,
        block: usize,
        pixels: Range<usize>,
    ) {
        let (channels, total) = (self.channels, self.pixels);
        let count = BLOCK.min(channels - block * BLOCK);
        let step = |layout: Layout| match layout {
            Layout::Planar => (total, 1),
            Layout::Blocked | Layout::Halves => (1, BLOCK),
            Layout::Rows => (1, channels),
        };
        let first = |layout: Layout| layout.index(channels, total, block * BLOCK, pixels.start);
        let ((from_channel, from_pixel), (to_channel, to_pixel)) = (step(self.from), step(self.to));
        let (from, to) = (x_at + first(self.from), out_at + first(self.to));
        let x_len = (count - 1) * from_channel + (pixels.len() - 1) * from_pixel + 1;
        let padded = if self.to == Layout::Blocked { BLOCK } else { count };
        let out_len = (padded - 1) * to_channel + (pixels.len() - 1) * to_pixel + 1;
        assert!(from + x_len <= x.len() && to + out_len <= out.len(), "a strip within both images");
        // SAFETY: the bounds were checked; other workers write other elements, so no slice of `out` is made.
        unsafe {
            let (x, out) = (x.as_ptr().add(from), out.as_mut_ptr().add(to));
            for pixel in 0..pixels.len() {
                let (x, out) = (x.add(pixel * from_pixel), out.add(pixel * to_pixel));
                for channel in 0..count {
                    *out.add(channel * to_channel) = *x.add(channel * from_channel);
                }
                for channel in count..padded {
                    *out.add(channel * to_channel) = T::zeroed();
                }
            }
        }
    }
}
